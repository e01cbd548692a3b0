"""All that there is to show of a training, gathered from its config as the training would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fvcore.common.config import CfgNode

from ...config.resolution import Resolution
from ...data.coco import CocoDataset
from ...data.loader import images_trained_on
from ...detection.build import check_model
from .. import build, datasets
from ..config_checks import check_training
from ..own_data import OwnData
from .anchors import AnchorLevel, anchor_levels
from .objects import Objects, Resized, list_objects, resizing
from .samples import Shown, draw_samples


@dataclass(frozen=True)
class Part:
    """A split: its name, what becomes of it, and what is in it."""

    name: str
    use: str
    dataset: CocoDataset
    objects: Objects


@dataclass(frozen=True)
class Preview:
    """All that is shown.

    Attributes:
        title: of the data.
        parts: the splits, those that are trained on first.
        samples: of the training with `seed`.
        trained: how many images are trained on.
        resized: how training resizes images; None where that is not one resizing: `boxes` are those of the samples.
        boxes: float64 (n, 2) width and height px at the training resolution.
        levels: the anchors, and how they fit `boxes`.
        own: the data as a labelling tool exported it, where it was given so.
    """

    title: str
    cfg: CfgNode
    parts: list[Part]
    samples: list[Shown]
    seed: int
    trained: int
    resized: Resized | None
    boxes: np.ndarray
    levels: list[AnchorLevel]
    own: OwnData | None

    @property
    def class_names(self) -> Sequence[str]:
        """A name for each class index."""
        return self.parts[0].dataset.category_names


def gather(asked: CfgNode, *, title: str, own: OwnData | None, samples: int) -> Preview:
    """What a training of `asked` would see, with so many samples.

    Raises:
        SeDetError: what the training would be refused with, as far as that does not need its weights.
    """
    stage = Resolution(asked)
    device, decisions = build.decide_device(stage.cfg)
    stage.decide(decisions)
    stage.decide(build.decide_precision(stage.cfg, device))
    check_model(stage.cfg)
    check_training(stage.cfg, 1)
    train, test = datasets.train_datasets(stage.cfg), datasets.test_datasets(stage.cfg)
    datasets.check_categories(train, test)
    stage.decide(datasets.decide_num_classes(stage.cfg, train[0]))
    stage.decide(datasets.decide_heads(stage.cfg, train[0]))
    cfg = stage.finish(check_model)
    seed = max(cfg.SEED, 0)
    drawn = draw_samples(cfg, train, seed=seed, count=samples)
    parts = _parts(train, test, own)
    resized = resizing(cfg)
    if resized is None:
        boxes = np.concatenate([one.boxes[:, 2:] - one.boxes[:, :2] for one in drawn]).astype(np.float64)
    else:
        boxes = np.concatenate([resized.boxes(part.objects) for part in parts[: len(train)]])
    return Preview(
        title=title,
        cfg=cfg,
        parts=parts,
        samples=drawn,
        seed=seed,
        trained=sum(map(len, images_trained_on(cfg, train, seed=seed))),
        resized=resized,
        boxes=boxes,
        levels=anchor_levels(cfg, boxes),
        own=own,
    )


def _parts(train: list[CocoDataset], test: dict[str, CocoDataset], own: OwnData | None) -> list[Part]:
    found = [("train" if len(train) == 1 else dataset.json_path.stem, "trained on", dataset) for dataset in train]
    found += [(name, "evaluated on", dataset) for name, dataset in test.items()]
    if own is not None:
        # What a split was made of is all in its two sides.
        used = {dataset.json_path for *_, dataset in found} | ({own.made.source} if own.made else set())
        found += [
            (name, "not used", split.read()) for name, split in own.opened.splits.items() if split.json_path not in used
        ]
    return [Part(name, use, dataset, list_objects(dataset)) for name, use, dataset in found]
