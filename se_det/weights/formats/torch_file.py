"""Files of `torch.save`, zip archives and the older format alike: tensors and plain containers only."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ...errors import SeDetError, WeightsError
from .pickle_scan import requested_names

LEGACY_PICKLES = 5  # magic number, version, system, content, keys of the storages
# Of the names a pickle asks for these are never worth naming when it is refused.
COMMON = ("torch.", "collections.OrderedDict", "_codecs.encode", "numpy.")


def read_plain(
    path: str | Path, *, what: str = "a file of PyTorch weights", error: type[SeDetError] = WeightsError
) -> Any:
    """The content of a `torch.save` file, tensors on the CPU.

    Args:
        what: what the file should be, for the sentence.
        error: the class of the error raised.

    Raises:
        SeDetError: of the class `error`: the file is damaged, or asks for anything but tensors and plain containers;
            the sentence names what it asked for.
    """
    path = Path(path)
    names: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            problem = _archive_problem(path, names)
            if problem:
                raise error(f"{path} is damaged or is not {what}: {problem}.")
        else:
            _scan_pickles(path, names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that it may not know: an error says what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except SeDetError:
        raise
    # What a damaged file does to torch.load is not foreseeable: a seek before its start is an OSError, too.
    except Exception as reason:
        wanted = _refused_name(reason, names)
        if wanted:
            raise error(
                f"{path} is refused: it asks for {wanted}, and only tensors and plain containers are read."
            ) from reason
        raise error(f"{path} is damaged or is not {what}.") from reason


def _archive_problem(path: Path, names: list[str]) -> str:
    """What is wrong with a zip archive that `torch.load` would not look at, or an empty string."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        # torch.save never compresses: members larger than the file would be unpacked into memory without end.
        if sum(member.file_size for member in archive.infolist()) > size:
            return "its members are larger than the file"
        broken = archive.testzip()
        if broken:
            return f"the checksum of {broken} is wrong"
        for member in archive.namelist():
            if member.endswith(".pkl"):
                names += requested_names(archive.read(member))
    return ""


def _scan_pickles(path: Path, names: list[str]) -> None:
    """Look through the pickles that a file of the older format begins with."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            if file.tell() == size:
                break
            names += requested_names(file)


def _refused_name(reason: Exception, names: list[str]) -> str:
    """What was asked for and refused, or an empty string when the file is only damaged."""
    strange = [name for name in names if not name.startswith(COMMON)]
    if strange:
        return strange[0]
    found = re.search(r"(?:GLOBAL|Unsupported class|Trying to call) ([\w.]+)", str(reason))
    return found[1].rstrip(".") if isinstance(reason, pickle.UnpicklingError) and found else ""
