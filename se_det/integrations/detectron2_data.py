"""Our data sets in Detectron2's catalogs: read and checked by our own reader, so that both engines see the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from fvcore.common.config import CfgNode
from pycocotools import mask as mask_tools

from ..config.resolution import Decision
from ..data.catalog import DATASETS, open_dataset
from ..data.coco import CocoDataset, compare_categories
from ..errors import ConfigError, DataError, suggestion
from ..evaluation.oks import default_sigmas
from ..training import datasets

# What one's own files are called in Detectron2's catalogs.
TRAIN, VAL = "se_det_train", "se_det_val"


def open_datasets(
    cfg: CfgNode, *, training: bool
) -> tuple[list[dict[str, Any]], dict[str, CocoDataset | None], list[Decision]]:
    """Register what `cfg` names.

    One's own files and the sets that we know are read by us. Others are Detectron2's own, or registered by the user.

    Returns:
        The categories, as a checkpoint keeps them; the sets to evaluate on, None for those that we do not read; and
        what DATASETS.TRAIN and TEST, the numbers of classes and INPUT.MASK_FORMAT are by them.

    Raises:
        ConfigError: a set that nobody knows.
        DataError: files that are missing, or cannot be used.
    """
    train, test = _train_sets(cfg) if training else {}, _test_sets(cfg)
    ours = [dataset for dataset in (*train.values(), *test.values()) if dataset is not None]
    for dataset in ours[1:]:
        compare_categories(ours[0], dataset)
    for name, dataset in (train | test).items():
        if dataset is not None:
            _register(name, dataset)
    names = {"DATASETS.TRAIN": tuple(train), "DATASETS.TEST": tuple(test)}
    decisions = [Decision(key, x, "the data", "as Detectron2's catalog calls it") for key, x in names.items()]
    if not ours:
        return [], test, decisions
    decisions += datasets.decide_num_classes(cfg, ours[0])
    decisions += datasets.decide_heads(cfg, ours[0])
    if cfg.MODEL.KEYPOINT_ON and not cfg.TEST.KEYPOINT_OKS_SIGMAS:
        sigmas = list(default_sigmas(len(ours[0].check_keypoints())))
        decisions.append(Decision("TEST.KEYPOINT_OKS_SIGMAS", sigmas, "the data", "one for each keypoint"))
    for dataset in train.values() if cfg.MODEL.MASK_ON else ():
        lacking = 0 if dataset is None else dataset.num_annotations_without_mask()
        if lacking:
            raise DataError(
                f"{dataset.json_path}: {lacking} annotations have no segmentation, which Detectron2's mask head needs "
                "of each. Use the builtin engine, which learns masks from the others, or set MODEL.MASK_ON False."
            )
    if any(dataset.num_rle_annotations() for dataset in train.values() if dataset is not None):
        # Detectron2 draws polygons at the size of the box, but needs bitmaps as soon as one mask is run-length coded.
        why = "it has run-length coded masks"
        decisions.append(Decision("INPUT.MASK_FORMAT", "bitmask", "the training data", why))
    return datasets.categories(ours[0], keypoints=cfg.MODEL.KEYPOINT_ON), test, decisions


def _train_sets(cfg: CfgNode) -> dict[str, CocoDataset | None]:
    if cfg.DATASETS.TRAIN_JSON or cfg.DATASETS.TRAIN_IMAGES or not cfg.DATASETS.TRAIN:
        return {TRAIN: datasets.train_datasets(cfg)[0]}
    return _open(cfg, cfg.DATASETS.TRAIN)


def _test_sets(cfg: CfgNode) -> dict[str, CocoDataset | None]:
    if cfg.DATASETS.VAL_JSON or cfg.DATASETS.VAL_IMAGES or cfg.DATASETS.TRAIN_JSON:
        return dict(zip((VAL,), datasets.test_datasets(cfg).values()))
    return _open(cfg, cfg.DATASETS.TEST)


def _open(cfg: CfgNode, names: Sequence[str]) -> dict[str, CocoDataset | None]:
    """The sets by name; None for those that we do not read."""
    known = {*DATASETS, *DatasetCatalog.list()}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"DATASETS names '{name}', which neither se_det nor Detectron2 knows.{suggestion(name, known)}"
            )
    sets = {
        name: open_dataset(name, absolute_file_names=cfg.DATASETS.ABSOLUTE_FILE_NAMES)
        if name in DATASETS and DATASETS[name].open is None  # others' formats are its own to read
        else None
        for name in names
    }
    for dataset in sets.values():
        if dataset is not None:
            dataset.check_files_exist()
    return sets


def _register(name: str, dataset: CocoDataset) -> None:
    for catalog in (DatasetCatalog, MetadataCatalog):  # Detectron2 has some of the same names
        if name in catalog.list():
            catalog.remove(name)
    DatasetCatalog.register(name, lambda: records(dataset))
    MetadataCatalog.get(name).set(
        evaluator_type="coco",
        json_file=str(dataset.json_path),
        image_root=str(dataset.images_folder),
        thing_classes=list(dataset.category_names),
        thing_dataset_id_to_contiguous_id={int(c): i for i, c in enumerate(dataset.category_ids)},
    )
    layout = dataset.keypoints
    if layout is not None:
        names = layout.names
        MetadataCatalog.get(name).set(
            keypoint_names=list(names),
            keypoint_flip_map=[(names[at], names[to]) for at, to in enumerate(layout.flip) if at < to],
            keypoint_connection_rules=[(names[a], names[b], (255, 128, 0)) for a, b in layout.skeleton],
        )


def records(dataset: CocoDataset) -> list[dict[str, Any]]:
    """A data set as Detectron2's standard dicts, one for each image."""
    result = []
    for i in range(len(dataset)):
        image = dataset.image(i)
        result.append(
            {
                "file_name": str(image.path),
                "image_id": image.id,
                "height": image.height,
                "width": image.width,
                "annotations": _annotations(dataset, i, image.height, image.width),
            }
        )
    return result


def _annotations(dataset: CocoDataset, i: int, height: int, width: int) -> list[dict[str, Any]]:
    found = dataset.annotations(i, keypoints=dataset.keypoints is not None)
    result: list[dict[str, Any]] = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": category, "iscrowd": crowd}
        for box, category, crowd in zip(
            found.boxes.tolist(), found.classes.tolist(), found.crowd.astype(int).tolist(), strict=True
        )
    ]
    if found.keypoints is not None:
        for annotation, keypoints in zip(result, found.keypoints.reshape(len(result), -1).tolist(), strict=True):
            annotation["keypoints"] = keypoints
    start = 0
    for points, owner in zip(found.polygon_points.tolist(), found.polygon_owner.tolist(), strict=True):
        polygon = found.polygons[start : start + points].ravel().tolist()
        result[owner].setdefault("segmentation", []).append(polygon)
        start += points
    for runs, owner in zip(found.runs, found.runs_owner.tolist(), strict=True):
        uncompressed = {"size": [height, width], "counts": runs.tolist()}
        result[owner]["segmentation"] = mask_tools.frPyObjects(uncompressed, height, width)
    return result
