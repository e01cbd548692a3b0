"""From INPUT's keys to the list of augmentations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fvcore.common.config import CfgNode

from ...config.provenance import key_source
from ...errors import ConfigError
from ...registry import call_with
from .flip import RandomFlip
from .protocol import AUGMENTATIONS, Augmentation
from .resize import ResizeShortestEdge

KEY = "INPUT.AUGMENTATIONS"
DEFAULT = ({"name": "ResizeShortestEdge"}, {"name": "RandomFlip"})
CROP = {"name": "RandomCrop"}  # before those, where INPUT.CROP.ENABLED says so
# Between those in its place, where INPUT.CROP.SINGLE_CATEGORY_MAX_AREA is below 1, as Detectron2's projects have it.
CONSTRAINED_CROP = {"name": "RandomCrop_CategoryAreaConstraint"}
# The keys that an entry takes its defaults from: without the entry nothing reads them.
READ_BY = {
    "INPUT.MIN_SIZE_TRAIN": "ResizeShortestEdge",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "ResizeShortestEdge",
    "INPUT.MAX_SIZE_TRAIN": "ResizeShortestEdge",
    "INPUT.RANDOM_FLIP": "RandomFlip",
    "INPUT.CROP.ENABLED": "RandomCrop",
    "INPUT.CROP.TYPE": "RandomCrop",
    "INPUT.CROP.SIZE": "RandomCrop",
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": CONSTRAINED_CROP["name"],
}

logger = logging.getLogger(__name__)


def build_augmentations(cfg: CfgNode) -> tuple[Augmentation, ...]:
    """The list that INPUT.AUGMENTATIONS says; where it is empty, ResizeShortestEdge and RandomFlip, and before them
    RandomCrop where INPUT.CROP.ENABLED is set.

    Raises:
        ConfigError: an entry is no {name, arguments}, its name is unknown, or an argument cannot work.
    """
    entries = list(cfg.INPUT.AUGMENTATIONS) or _default(cfg)
    result = tuple(_build(entry, place, cfg) for place, entry in enumerate(entries))
    names = {entry["name"] for entry in entries}
    for key, name in READ_BY.items():
        # A crop with a constraint reads what RandomCrop reads.
        if (
            name not in names
            and not (name == CROP["name"] and CONSTRAINED_CROP["name"] in names)
            and key_source(cfg, key) is not None
        ):
            logger.warning("%s is set, and %s has no %s, which alone reads it: it changes nothing.", key, KEY, name)
    return result


def _default(cfg: CfgNode) -> list[Mapping[str, Any]]:
    crop, (resize, *others) = cfg.INPUT.CROP, DEFAULT
    if not crop.ENABLED:
        return list(DEFAULT)
    if crop.SINGLE_CATEGORY_MAX_AREA < 1:
        return [resize, CONSTRAINED_CROP, *others]
    return [CROP, *DEFAULT]


def _build(entry: Any, place: int, cfg: CfgNode) -> Augmentation:
    where = f"{KEY}[{place}]"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ConfigError(f"{where} must be a mapping with a name, such as {{name: RandomFlip}}, got {entry!r}.")
    kind = AUGMENTATIONS.get(entry["name"], where)
    arguments = {key: value for key, value in entry.items() if key != "name"}
    if hasattr(kind, "defaults"):
        arguments = {**kind.defaults(cfg), **arguments}
    try:
        return call_with(kind, arguments, f"{where} ({entry['name']})")
    except ConfigError as error:
        # What an augmentation says of a value does not know the place in the list.
        raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from error


def resize_and_flip(
    *, short_sides: Sequence[int], max_size: int, sampling: str = "choice", flip: str = "horizontal",
    method: str = "pil",
) -> tuple[Augmentation, ...]:  # fmt: skip
    """The default list, for who has no config; the arguments are those of the two."""
    return (
        ResizeShortestEdge(short_sides=short_sides, max_size=max_size, sampling=sampling, method=method),
        RandomFlip(direction=flip),
    )
