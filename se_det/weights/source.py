"""From what MODEL.WEIGHTS says to a file on this machine, and to its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..config.paths import expand_path
from ..errors import WeightsError
from .download import fetch, hash_in_name, verify
from .families import WeightConventions
from .hub import hub_file
from .identify import identify, read_foreign
from .reading import WeightFile
from .shipped import SHIPPED, shipped_weights
from .transport import PermanentFailure, local_path
from .zoo import SCHEME, ClassifierEntry, DetectorEntry, Entry, entry_of_file, get_entry, list_weights


def resolve_weights(source: str | Path) -> tuple[Path, Entry | None]:
    """The file of `zoo://name`, `shipped://name`, `hf://org/name`, a URL, or at a path; and its zoo entry, if any.

    A file that was brought by hand is known by its name when the name has the hash in it, and that hash is checked.

    Raises:
        WeightsError: there is no such entry, or nobody published its weights; the download failed; a hash differs.
            That a path exists is left to who reads it.
    """
    text = expand_path(str(source), "MODEL.WEIGHTS")
    if text.startswith(SCHEME):
        entry = get_entry(text)
        if entry.url is None:
            raise WeightsError(missing_weights_hint(entry))
        return fetch(entry.url, digest=entry.digest), entry
    if text.startswith(SHIPPED):
        return shipped_weights(text), None
    scheme = text.split("://", 1)[0] if "://" in text else ""
    if scheme in ("http", "https"):
        entry = entry_of_file(Path(text.split("?")[0]))
        return fetch(text, digest=entry.digest if entry else None), entry
    if scheme == "file":
        try:
            path = local_path(text)
        except PermanentFailure as error:
            raise WeightsError(f"MODEL.WEIGHTS {text} {error}.") from error
        expected = hash_in_name(path.name)
    elif scheme == "hf":
        return hub_file(text), None
    elif scheme:
        raise WeightsError(f"MODEL.WEIGHTS {text}: {_other_scheme(text)}")
    else:
        path, expected = Path(text), None
    entry = entry_of_file(path)
    expected = entry.digest if entry else expected
    if expected and path.is_file():
        verify(path, expected, f"{entry.name} in the zoo" if entry else "its own name")
    return path, entry


def open_weights(
    source: str | Path, *, family: str = "", class_order: str | Path | None = None, foreign: bool = False
) -> tuple[WeightFile, Entry | None]:
    """Fetch and read a file, under our names; and its entry in the zoo, whose facts it then has.

    Args:
        source: see `resolve_weights`.
        family, class_order: see `identify`; an entry knows its family.
        foreign: leave the names as they are, for a network of another library's.

    Raises:
        WeightsError: see `resolve_weights` and `identify`.
    """
    path, entry = resolve_weights(source)
    if foreign:
        return read_foreign(path), entry
    file = identify(path, family or (entry.family if entry else ""), class_order)
    if entry is not None and entry.facts is not None:
        file = replace(file, facts=WeightConventions.from_dict({**file.facts.plain(), **entry.facts.plain()}))
    if isinstance(entry, DetectorEntry):
        file = replace(file, extra={**file.extra, **entry.extra()})
    return file, entry


def missing_weights_hint(entry: ClassifierEntry) -> str:
    """What to do about a network that has no public weights."""
    plain, *gated = entry.start_from
    note = f" {entry.note}" if entry.note else ""
    # Half a gate's weights are the file's: FREEZE_AT would keep the other half at its initial values.
    keys = f"MODEL.WEIGHTS {SCHEME}{gated[0]} MODEL.BACKBONE.FREEZE_AT 0" if gated else ""
    from_gated = f", or an SE one's ({keys} and --allow-partial)" if gated else ""
    return (
        f"Nobody published weights of {entry.architecture} (MODEL.WEIGHTS {SCHEME}{entry.name}).{note} Pretrain it "
        "with tools/pretrain.py and name its checkpoint in MODEL.WEIGHTS; or start from a plain network's "
        f"(MODEL.WEIGHTS {SCHEME}{plain}){from_gated}, with MODEL.GATE.NORM GN; or train from scratch with "
        'MODEL.WEIGHTS "" MODEL.RESNETS.NORM GN (or BN) MODEL.BACKBONE.FREEZE_AT 0.'
    )


def _other_scheme(text: str) -> str:
    known = "use a path, zoo://name, shipped://name, hf://org/name, or an http, https or file URL."
    tail = text.split("://", 1)[1]
    for name in list_weights():
        url = get_entry(name).url
        if tail and url and url.endswith(f"/{tail}"):
            return f"{known} In the zoo that file is {SCHEME}{name}."
    return known
