"""NumPy's `.npz` archives of numeric arrays."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from ...errors import WeightsError

MAX_BYTES = 1 << 33  # the largest network here has half a gigabyte; a compressed archive may claim any size


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an archive by name.

    Raises:
        WeightsError: the file is damaged, or holds anything but arrays of numbers.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise WeightsError(f"{path} is refused: unpacked it would be larger than {MAX_BYTES >> 30} GiB.")
            return {
                member.filename.removesuffix(".npy"): _read_array(path, archive, member)
                for member in archive.infolist()
            }
    except WeightsError:
        raise
    except Exception as reason:  # what a damaged archive raises depends on where it is damaged
        raise WeightsError(f"{path} is damaged or is not an archive of NumPy arrays.") from reason


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject or dtype.kind not in "fiub":
            raise WeightsError(
                f"{path} is refused: {member.filename} holds {dtype} elements, and only numbers are read."
            )
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError("the header promises more than there is")
        raw = file.read()
        return np.frombuffer(raw, dtype, count=math.prod(shape)).reshape(shape, order="F" if fortran else "C")
