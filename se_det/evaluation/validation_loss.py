"""The training's losses on data that is not trained on: where they turn upwards, the network learns by heart."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn

from .. import comm
from ..data.augmentations.resize import ResizeShortestEdge
from ..data.coco_dataset import CocoDataset
from ..data.loader import ignore_value
from ..data.samplers import contiguous_shard
from ..data.samples import TrainDataset
from ..data.tile_truth import find_windows, train_tiles
from ..data.worker_loader import Loader
from ..layers.norms import BATCH_NORMS
from ..layers.running_mean import RunningMean

SEED = 20  # with an image's position it decides which proposals its losses are computed on
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

logger = logging.getLogger(__name__)


class ValidationLoss:
    """The mean over the images of a data set of each loss, every image by itself, so that the numbers depend neither on
    the batch nor on the number of processes. Where training is on windows (INPUT.TILE), over those with objects.

    Images are resized as for detection and not augmented. Those without annotations, or with few
    keypoints, are left out where training leaves them out (DATALOADER.FILTER_EMPTY_ANNOTATIONS).
    """

    def __init__(self, cfg: CfgNode, dataset: CocoDataset) -> None:
        self._cfg = cfg
        self._dataset = dataset.drop_empty() if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS else dataset
        if cfg.MODEL.KEYPOINT_ON:
            self._dataset = self._dataset.drop_few_keypoints(cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE)
        tiles = train_tiles(cfg)
        # Every window that has objects; those without are too many to tell much.
        self._windows = None if tiles is None or not len(self._dataset) else find_windows([self._dataset], tiles)
        if 0 < len(self._dataset) < len(dataset):
            logger.info("They are left out of the validation's losses (TEST.EVAL_LOSS) alone, as training has none.")
        if not len(self._dataset):
            logger.warning("%s has no image to compute losses on (TEST.EVAL_LOSS).", dataset.json_path)

    def loader(self) -> Loader:
        """This process's share of the images with their truth, one in a list."""
        cfg, share = self._cfg, self._share()
        resize = ResizeShortestEdge(
            short_sides=cfg.INPUT.MIN_SIZE_TEST, max_size=cfg.INPUT.MAX_SIZE_TEST, method=cfg.INPUT.RESIZE
        )
        samples = TrainDataset(
            [self._dataset], augmentations=[resize], seed=SEED, format=cfg.INPUT.FORMAT, masks=cfg.MODEL.MASK_ON,
            keypoints=cfg.MODEL.KEYPOINT_ON, windows=self._windows, ignore=ignore_value(cfg),
        )  # fmt: skip
        return Loader(
            samples,
            lambda: iter([[(index, index)] for index in share]),
            num_images=len(share),
            num_workers=min(cfg.DATALOADER.NUM_WORKERS, len(share)),
            length=len(share),
        )

    def __call__(
        self,
        model: nn.Module,
        *,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        watched: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> dict[str, float]:
        """The losses of `model`, of which a copy is used. Every process calls it.

        Args:
            autocast: the arithmetic of training.
            watched: wraps the loader, as to leave it early.

        Returns:
            Each term's mean on the first process, `{}` elsewhere and without images.

        Raises:
            DataError: an image cannot be read or is not of the size that the JSON gives.
        """
        names, rows = losses_per_image(model, watched(self.loader()), self._share().start, autocast=autocast)
        parts = [part for part in comm.gather((names, rows)) if part[1]]
        if not parts:
            return {}
        means = np.array([row for _, rows in parts for row in rows]).mean(axis=0)
        return dict(zip(parts[0][0], means.tolist()))

    def _share(self) -> range:
        count = len(self._dataset) if self._windows is None else self._windows.full
        return contiguous_shard(count, comm.get_rank(), comm.get_world_size())


def losses_per_image(
    model: nn.Module,
    batches: Iterable[list[dict[str, Any]]],
    first: int = 0,
    *,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[list[str], list[list[float]]]:
    """The names of the losses, and their values for each batch; see `ValidationLoss`.

    The network is as in evaluation (statistics of norms as trained, no dropout) but for what makes losses of it, as
    RPN's number of proposals. The generators of random numbers are as before.

    Args:
        batches: of one image.
        first: the position of the first one's image, from which its proposals' seed comes.
    """
    # Channels last, as training has its weights: sums are then in the same order.
    model = in_loss_mode(copy.deepcopy(model).to(memory_format=torch.channels_last))
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    names: list[str] = []
    rows: list[torch.Tensor] = []
    with torch.random.fork_rng(devices), torch.no_grad():
        for index, samples in enumerate(batches, first):
            torch.manual_seed(image_seed(index))
            with autocast():
                losses = model(samples)
            names = list(losses)
            rows.append(torch.stack([value.float() for value in losses.values()]))
    return names, torch.stack(rows).double().tolist() if rows else []


def image_seed(index: int) -> int:
    """The seed of the random numbers for the image at a position."""
    return int(np.random.SeedSequence((SEED, index)).generate_state(1, np.uint64)[0])


def in_loss_mode(model: nn.Module) -> nn.Module:
    """`model`, put into the mode in which it gives losses and changes nothing of itself."""
    model.train()
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        backbone.eval()
    for module in model.modules():
        if isinstance(module, (*BATCH_NORMS, *DROPOUTS, RunningMean)):
            module.eval()
    return model
