"""One's own files as a data set: DATASETS.TRAIN_JSON, TRAIN_IMAGES and their like."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from ..data.coco import CocoDataset, read_coco
from ..data.label_folder import read_labelled_images
from ..data.named.coco_panoptic import read_panoptic
from ..data.pixel_labels import THINGS, LabelFolder, read_class_names
from ..errors import ConfigError

KINDS = ("JSON", "SEM_SEG", "PANOPTIC_JSON")


def has_own_files(cfg: CfgNode, part: str) -> bool:
    """Whether DATASETS names files of one's own for "TRAIN" or "VAL"."""
    return any(cfg.DATASETS[f"{part}_{kind}"] for kind in (*KINDS, "IMAGES", "PANOPTIC"))


def dataset_from_files(cfg: CfgNode, part: str) -> CocoDataset | None:
    """The data set of the files for "TRAIN" or "VAL"; None where none are named.

    Raises:
        ConfigError: files that do not go together.
        DataError: they cannot be used.
    """
    if not has_own_files(cfg, part):
        return None
    json, sem_seg, panoptic_json = (cfg.DATASETS[f"{part}_{kind}"] for kind in KINDS)
    images = cfg.DATASETS[f"{part}_IMAGES"]
    if not images or not (json or sem_seg or panoptic_json):
        given = next(name for name in (*KINDS, "IMAGES", "PANOPTIC") if cfg.DATASETS[f"{part}_{name}"])
        lacking = "JSON" if images else "IMAGES"
        raise ConfigError(
            f"DATASETS.{part}_{given} is {cfg.DATASETS[f'{part}_{given}']} and DATASETS.{part}_{lacking} is empty: "
            f"give both the annotation file and the folder of its images (--{part.lower()}-json and "
            f"--{part.lower()}-images), or for classes of pixels DATASETS.{part}_SEM_SEG or {part}_PANOPTIC_JSON."
        )
    if sem_seg and panoptic_json:
        raise ConfigError(
            f"DATASETS.{part}_SEM_SEG and DATASETS.{part}_PANOPTIC_JSON both give the classes of pixels: leave one out."
        )
    dataset = read_coco(json, images, absolute_file_names=cfg.DATASETS.ABSOLUTE_FILE_NAMES) if json else None
    if panoptic_json:
        folder = cfg.DATASETS[f"{part}_PANOPTIC"] or str(Path(panoptic_json).with_suffix(""))
        return read_panoptic(Path(panoptic_json), Path(folder), Path(images), dataset)
    if sem_seg:
        labels = LabelFolder(Path(sem_seg), _names(cfg, things=dataset is not None))
        return read_labelled_images(Path(images), labels) if dataset is None else dataset.with_labels(labels)
    return dataset


def _names(cfg: CfgNode, *, things: bool) -> tuple[str, ...]:
    """The names of the classes of pixels; beside instances the first is all things."""
    names = read_class_names(cfg.DATASETS.SEM_SEG_CLASSES)
    if names:
        return names
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    return (THINGS, *map(str, range(1, count))) if things else tuple(map(str, range(count)))
