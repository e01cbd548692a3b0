"""Which data a run has: named sets or one's own files, their categories, the number of classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from .. import comm
from ..config.provenance import key_source
from ..config.resolution import Decision
from ..data.catalog import open_dataset
from ..data.check.result_cache import log_summary, summary_at_start
from ..data.coco import CocoDataset, compare_categories
from ..data.loader import LABEL_PIXELS, check_labels
from ..data.proposals import read_proposals
from ..detection.registry import model_facts
from ..errors import ConfigError, DataError, SeDetError
from .own_files import dataset_from_files, has_own_files

logger = logging.getLogger(__name__)


def train_datasets(cfg: CfgNode) -> list[CocoDataset]:
    """DATASETS.TRAIN_JSON with its images, or the sets that DATASETS.TRAIN names.

    Raises:
        ConfigError: neither is given, or a JSON without its folder.
        DataError: they cannot be used, images among them, or do not agree in their categories.
    """
    own = dataset_from_files(cfg, "TRAIN")
    sets = [own] if own else [_named_set(cfg, name) for name in cfg.DATASETS.TRAIN]
    if not sets:
        raise ConfigError(
            "There is no training data: give --train-json and --train-images (DATASETS.TRAIN_JSON and "
            "DATASETS.TRAIN_IMAGES), or name a data set in DATASETS.TRAIN."
        )
    for other in sets[1:]:
        compare_categories(sets[0], other)
    for dataset in sets:
        _check_images(cfg, dataset, tolerated=cfg.DATALOADER.SKIP_BAD_IMAGES)
    return _with_proposals(cfg, "TRAIN", sets)


def test_datasets(cfg: CfgNode) -> dict[str, CocoDataset]:
    """DATASETS.VAL_JSON with its images, or the sets that DATASETS.TEST names, by name.

    One's own training data takes the place of DATASETS.TEST too: its categories are others than those of the named
    sets, so without DATASETS.VAL_JSON there is nothing to evaluate on.

    Raises:
        ConfigError: a JSON without its folder.
        DataError: they cannot be used.
    """
    own = dataset_from_files(cfg, "VAL")
    if own:
        sets = {"val": own}
    elif has_own_files(cfg, "TRAIN"):
        sets = {}
    else:
        sets = {name: _named_set(cfg, name) for name in cfg.DATASETS.TEST}
    for dataset in sets.values():
        _check_images(cfg, dataset)
    return dict(zip(sets, _with_proposals(cfg, "TEST", list(sets.values()))))


def check_categories(train: list[CocoDataset], test: dict[str, CocoDataset]) -> None:
    """Refuse test data of other categories than the training data's.

    Raises:
        DataError: naming the ids and names that differ.
    """
    for dataset in test.values():
        compare_categories(train[0], dataset)


def warn_no_annotations(cfg: CfgNode, test: Mapping[str, CocoDataset | None]) -> None:
    """Warn, before training, of test data that no AP can come of. What is None is not read by us."""
    metric = cfg.TEST.BEST_METRIC
    judged = next((name for name in test if metric.startswith(f"{name}/")), next(iter(test), None))
    for name, dataset in test.items():
        if dataset is None or dataset.has_annotations() or not dataset.category_ids:
            continue
        then = ""
        if name == judged:
            then = ", so no best checkpoint (model_best.pth) will be chosen" + (
                " and TEST.EARLY_STOP will not end the run" if cfg.TEST.EARLY_STOP else ""
            )
        logger.warning(
            "%s has no annotations (crowds do not count): its AP will be nan%s. Give test data with annotations.",
            dataset.json_path, then,
        )  # fmt: skip


def decide_num_classes(cfg: CfgNode, dataset: CocoDataset) -> list[Decision]:
    """The detector's number of classes is what the annotation file declares."""
    count, source = len(dataset.category_ids), str(dataset.json_path)
    if not count:  # classes of pixels alone
        return []
    return [Decision(key, count, source, "the categories that it declares") for key in model_facts(cfg).class_keys]


def decide_heads(cfg: CfgNode, dataset: CocoDataset) -> list[Decision]:
    """What other heads need to know of the data: with MODEL.KEYPOINT_ON the number of keypoints is what the annotation
    file declares, with a point head its classes.

    Raises:
        DataError: it declares none, or they cannot be used.
    """
    found, source = [], str(dataset.json_path)
    if cfg.MODEL.KEYPOINT_ON:
        count = len(dataset.check_keypoints())
        found.append(Decision("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", count, source, "the keypoints that it declares"))
    if cfg.MODEL.ROI_MASK_HEAD.get("POINT_HEAD_ON"):  # a key of Detectron2's project
        count = len(dataset.category_ids)
        found.append(Decision("MODEL.POINT_HEAD.NUM_CLASSES", count, source, "the categories that it declares"))
    return found


def decide_pixel_classes(cfg: CfgNode, sets: Sequence[CocoDataset]) -> list[Decision]:
    """MODEL.SEM_SEG_HEAD.NUM_CLASSES is how many classes the labels of pixels have.

    Raises:
        DataError: data of instances for a model that labels pixels, or the other way round.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name != "SemanticSegmentor":
        for dataset in sets:
            if not dataset.category_ids:
                raise DataError(
                    f"{dataset.json_path} has classes of pixels and no instances, which {name} "
                    "(MODEL.META_ARCHITECTURE) learns: use a semantic_fpn config, or give annotations of instances."
                )
    if name not in LABEL_PIXELS:
        return []
    check_labels(sets)
    labels = sets[0].pixel_labels
    keys = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES"]
    if cfg.MODEL.SEM_SEG_HEAD.NAME == "PointRendSemSegHead":
        keys.append("MODEL.POINT_HEAD.NUM_CLASSES")
    return [Decision(key, len(labels.names), str(labels.folder), "its classes of pixels") for key in keys]


def decide_evaluators(cfg: CfgNode, test: Mapping[str, CocoDataset]) -> list[Decision]:
    """TEST.EVALUATORS, where nobody has set it, are those of the first data set for what the model finds, as in
    Detectron2."""
    if key_source(cfg, "TEST.EVALUATORS") is not None or not test:
        return []
    dataset = next(iter(test.values()))
    name, tasks = cfg.MODEL.META_ARCHITECTURE, model_facts(cfg).tasks(cfg)
    found = ["coco"] if "box_proposals" in tasks else []
    if "bbox" in tasks:
        found.append(dataset.evaluators.get("instances", "coco"))
    if name in LABEL_PIXELS:
        found.append(dataset.evaluators.get("pixels", "sem_seg"))
    if name == "PanopticFPN" and dataset.panoptic is not None:
        found.append("panoptic")
    decided = [Decision("TEST.EVALUATORS", found, str(dataset.json_path), "what it is evaluated by")]
    if "panoptic" in found and len(test) == 1 and not cfg.TEST.BEST_METRIC:
        decided.append(Decision("TEST.BEST_METRIC", "panoptic_seg/PQ", str(dataset.json_path), "it is panoptic"))
    return decided


def pixel_classes(cfg: CfgNode, dataset: CocoDataset) -> list[dict[str, Any]]:
    """`categories` of the classes of pixels, where the model learns them; else none."""
    labels = dataset.pixel_labels
    if labels is None or cfg.MODEL.META_ARCHITECTURE not in LABEL_PIXELS:
        return []
    return [{"id": int(i), "name": str(n)} for i, n in zip(labels.category_ids, labels.names)]


def class_image_counts(sets: Sequence[CocoDataset]) -> np.ndarray:
    """int64 (K,): how many images of all sets together have each class.

    A file that declares it (`image_count` of LVIS's categories, which Detectron2 takes) is believed, as it may be a
    part of another; else they are counted, crowds too.

    Raises:
        DataError: a file declares it for some classes alone, or as something that is no number of images.
    """
    return np.sum([_image_counts(dataset) for dataset in sets], axis=0)


def _image_counts(dataset: CocoDataset) -> np.ndarray:
    declared = dataset.declared_counts
    if all(count is None for count in declared):
        return np.bincount(dataset.classes_of_images()[1], minlength=len(declared))
    for category_id, count in zip(dataset.category_ids, declared):
        if type(count) is not int or not 0 <= count < 2**53:
            raise DataError(
                f"{dataset.json_path}: category {category_id} has the image_count {count!r}, and others have one, by "
                "which classes are drawn (MODEL.ROI_BOX_HEAD.USE_FED_LOSS). Give each category the number of images "
                "that have it, or none of them, so that they are counted."
            )
    return np.array(declared, np.int64)


def categories(dataset: CocoDataset, *, keypoints: bool = False) -> list[dict[str, Any]]:
    """`[{"id": ..., "name": ...}, ...]` in the order of the classes, as a checkpoint keeps them; with `keypoints`
    those, too, as in COCO's categories."""
    layout, points = dataset.keypoints, {}
    if keypoints and layout is not None:
        points = {"keypoints": list(layout.names), "skeleton": [[a + 1, b + 1] for a, b in layout.skeleton]}
    return [{"id": int(i), "name": str(n), **points} for i, n in zip(dataset.category_ids, dataset.category_names)]


def _check_images(cfg: CfgNode, dataset: CocoDataset, *, tolerated: int = 0) -> None:
    """Refuse images that a run would end at, where that is known or soon found. One process looks, all hear."""
    dataset.check_files_exist()
    if dataset.json_path.is_dir():  # of labels: there is no annotation file to check
        return
    place = dataset.json_path, dataset.images_folder
    fault = None
    if comm.is_main_process():
        try:
            absolute = cfg.DATASETS.ABSOLUTE_FILE_NAMES
            verdict = summary_at_start(*place, dataset.file_names, absolute_file_names=absolute)
            log_summary(verdict, *place, tolerated=tolerated)
        except SeDetError as error:
            fault = str(error)
    fault = comm.broadcast_object(fault)
    if fault:
        raise DataError(fault)


def _with_proposals(cfg: CfgNode, part: str, sets: list[CocoDataset]) -> list[CocoDataset]:
    """With MODEL.LOAD_PROPOSALS, the sets with the proposals of DATASETS.PROPOSAL_FILES_*, a file each.

    Raises:
        ConfigError: there are more or fewer files than sets.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return sets
    files = cfg.DATASETS[f"PROPOSAL_FILES_{part}"]
    if len(files) != len(sets):
        raise ConfigError(
            f"DATASETS.PROPOSAL_FILES_{part} names {len(files)} files of proposals for {len(sets)} data sets: with "
            "MODEL.LOAD_PROPOSALS True give one for each, in their order."
        )
    return [dataset.with_proposals(read_proposals(file, dataset)) for dataset, file in zip(sets, files)]


def _named_set(cfg: CfgNode, name: str) -> CocoDataset:
    return open_dataset(name, absolute_file_names=cfg.DATASETS.ABSOLUTE_FILE_NAMES)
