"""What the zoo knows of a public file: classifiers, whose trunks start detectors, and trained detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..config.loading import dump_keys
from .families import WeightConventions


@dataclass(frozen=True, kw_only=True)
class Report:
    """An accuracy that someone published: percent of the 50,000 ImageNet validation images, one crop."""

    top1: float
    top5: float
    crop: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A public weight file.

    Attributes:
        name: what stands after `zoo://`.
        url: where the file is; None when nobody published one.
        sha256, md5: hexadecimal, whole or its beginning; None when it is not known.
        family: whose key names and layouts it has.
        facts: what the file does not show; None without a file.
        source, license, note: who made it; under what terms; what else to know.
    """

    name: str
    url: str | None
    sha256: str | None = None
    md5: str | None = None
    family: str
    facts: WeightConventions | None
    source: str
    license: str
    note: str = ""

    @property
    def file_name(self) -> str | None:
        """The last part of the URL."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1] if self.url else None

    @property
    def digest(self) -> str | None:
        """What the file is checked by, as `fetch` takes it."""
        return self.sha256 or (f"md5:{self.md5}" if self.md5 else None)

    @property
    def hash_in_name(self) -> str | None:
        """The digits of its hash that its file's name has; a file of that name is this one."""
        known = self.sha256[:8] if self.sha256 else self.md5
        return known if known and self.url and known in self.file_name else None


@dataclass(frozen=True, kw_only=True)
class ClassifierEntry(Entry):
    """An ImageNet classifier, named `<architecture>.<source>`; a network without public weights has its bare name.

    Attributes:
        size_mib: of the file, where published.
        architecture: a model's name, as in `list_models()`.
        reports: published accuracies; the first is of this very file.
        start_from: for a network without public weights, the entries whose trunk may start it.
    """

    size_mib: float | None
    architecture: str
    reports: tuple[Report, ...]
    start_from: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DetectorEntry(Entry):
    """A trained detector.

    Attributes:
        path: of its config in the program that trained it, `COCO-Detection/faster_rcnn_R_50_FPN_3x`; a name, too.
        config: key to value, on the defaults, of the config that the weights need.
        categories: `[{"id": ..., "name": ...}, ...]` in the order of the classes; () where they are not known.
        reported: what its authors measured, in percent, by task and metric: {"bbox/AP": 40.2}.
    """

    path: str
    config: Mapping[str, Any]
    categories: tuple[dict[str, Any], ...]
    reported: Mapping[str, float]

    def extra(self) -> dict[str, Any]:
        """What a checkpoint of ours would carry: its config and its categories."""
        return {"config": dump_keys(self.config), **({"categories": list(self.categories)} if self.categories else {})}
