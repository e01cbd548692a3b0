"""A detector of ours beside Detectron2's with the same weights, and torchvision's, on real images: inference and
training steps."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..allocator import keep_freed_memory
from ..config import load_config
from ..config.loading import get_key
from ..config.resolution import Decision, Resolution
from ..data.coco import CocoDataset
from ..data.loader import build_test_loader, build_train_loader
from ..detection import build_detector
from ..detection.fuse import prepare_for_inference
from ..detection.rcnn import Detector
from ..detection.registry import model_facts
from ..errors import ConfigError
from ..training import build, datasets
from ..weights import load_weights, open_configured_weights
from .steps import LEARNING_RATE, TrainingSteps
from .timing import Comparison, time_processes_alternately
from .torchvision_peer import AsOurs, build_torchvision, has_counterpart, score_layers, to_torchvision

OURS, BFLOAT16 = "se_det", "se_det, bfloat16"
THEIRS, THEIRS_KEEPING = "detectron2", "detectron2, memory kept"
MOST_DOUBLINGS = 10


def compare_detectors(
    config_file: str, overrides: Sequence[Any], parts: Sequence[str], *, images: int, repeat: int, state: str
) -> Iterator[Comparison]:
    """Seconds and memory of both engines and of torchvision; without Detectron2 where it is not installed.

    Inference: `images` images of the test data one after another, from resized pixels to boxes (and masks) in the
    original size, in float32 and bfloat16; torchvision's resizing is part of its model. Training: one step of
    SOLVER.IMS_PER_BATCH images of the training data, from samples to updated weights, ours and torchvision's in our
    loop. Loading is not part of either. "memory kept" gives Detectron2 our allocator's setting.

    Args:
        overrides: keys and values; without MODEL.WEIGHTS the weights are random, with scores spread out.
        parts: "inference", "training".
        images: of inference.
        state: a file that the weights are written to, from which both engines load them.

    Raises:
        ConfigError: the two engines find different numbers of detections, or random weights find none.
    """
    cfg = _save_state(config_file, overrides, state)
    theirs = (THEIRS, THEIRS_KEEPING) if importlib.util.find_spec("detectron2") is not None else ()
    others = f"torchvision (another network: ResNet-{cfg.MODEL.RESNETS.DEPTH} without gates)"
    baseline = THEIRS if theirs else OURS
    given = (config_file, overrides)
    if "inference" in parts:
        ways = {way: (_their_inference, (*given, state, images, way == THEIRS_KEEPING)) for way in theirs}
        ways[OURS] = (_our_inference, (*given, state, images, "float32"))
        ways[BFLOAT16] = (_our_inference, (*given, state, images, "bfloat16"))
        if has_counterpart(cfg):
            ways[others] = (_torchvision_inference, (*given, images))
        seconds, peaks, found = time_processes_alternately(ways, repeat=repeat, device=cfg.MODEL.DEVICE)
        if theirs and abs(found[OURS] - found[THEIRS]) > 0.01 * found[THEIRS]:
            raise ConfigError(f"{OURS} finds {found[OURS]} objects and {THEIRS} {found[THEIRS]}.")
        counts = ", ".join(f"{way.partition(' (')[0]} {count}" for way, count in found.items())
        yield Comparison(f"{config_file}, inference (found: {counts})", seconds, baseline, peaks, amount=images)
    if "training" in parts:
        ways = {way: (_their_training, (*given, state, way == THEIRS_KEEPING)) for way in theirs}
        ways[OURS] = (_our_training, (*given, state))
        if has_counterpart(cfg):
            ways[others] = (_torchvision_training, given)
        seconds, peaks, _ = time_processes_alternately(ways, repeat=repeat, device=cfg.MODEL.DEVICE)
        batch = cfg.SOLVER.IMS_PER_BATCH
        yield Comparison(f"{config_file}, training step", seconds, baseline, peaks, amount=batch)


def measured_config(config_file: str, overrides: Sequence[Any]) -> tuple[CfgNode, CocoDataset]:
    """The config on its device, and the data whose images are detected in; it loads in this process.

    Raises:
        ConfigError: there are no test data.
    """
    cfg = load_config(config_file, list(overrides))
    cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS if "MODEL.WEIGHTS" in overrides else ""
    stage = Resolution(cfg)
    stage.decide(build.decide_device(stage.cfg)[1])
    stage.decide([Decision("DATALOADER.NUM_WORKERS", 0, "the benchmark")])
    sets = datasets.test_datasets(stage.cfg)
    if not sets:
        raise ConfigError("Images to measure on are missing: give --val-json and --val-images.")
    dataset = next(iter(sets.values()))
    stage.decide(datasets.decide_num_classes(stage.cfg, dataset))
    stage.decide(datasets.decide_heads(stage.cfg, dataset))
    return stage.cfg, dataset


def decided_keys(cfg: CfgNode) -> list[Any]:
    """`[key, value, ...]`: what the machine and the data decided."""
    return [x for key in ("MODEL.DEVICE", *model_facts(cfg).class_keys) for x in (key, get_key(cfg, key))]


def _save_state(config_file: str, overrides: Sequence[Any], path: str) -> CfgNode:
    cfg, dataset = measured_config(config_file, overrides)
    torch.manual_seed(0)
    stage = Resolution(cfg)
    class_keys = model_facts(cfg).class_keys
    file, decisions = open_configured_weights(cfg, trained=bool(cfg.MODEL.WEIGHTS), class_keys=class_keys)
    stage.decide(decisions)
    cfg = stage.cfg
    model = build_detector(cfg)
    if file is not None:
        load_weights(model, file, strict=True)
    else:
        _spread_scores(model, first_samples(cfg, dataset, 1))
    torch.save(model.state_dict(), path)
    return cfg


@torch.no_grad()
def _spread_scores(model: Detector, samples: list[dict[str, Any]]) -> None:
    """Scale random weights until something is found in the samples: a one-stage detector begins with scores below its
    threshold."""
    scale_score_layers(*model.score_layers())
    model.eval()
    for _ in range(MOST_DOUBLINGS):
        if _count(model(samples)[0]):
            return
        for layer in model.score_layers():
            layer.weight.mul_(2)
    raise ConfigError("Random weights find nothing in the first image: give MODEL.WEIGHTS.")


@torch.no_grad()
def scale_score_layers(*layers: nn.Module) -> None:
    """So that random weights find some boxes."""
    for layer in layers:
        layer.weight.mul_(10)


def first_samples(cfg: CfgNode, dataset: CocoDataset, count: int) -> list[dict[str, Any]]:
    """The first images."""
    samples = []
    for batch in build_test_loader(cfg, dataset):
        samples += batch
        if len(samples) >= count:
            break
    return samples[:count]


def training_batch(cfg: CfgNode) -> list[dict[str, Any]]:
    """The first batch."""
    return next(iter(build_train_loader(cfg, datasets.train_datasets(cfg), seed=0)))


def _our_inference(
    config_file: str, overrides: Sequence[Any], state: str, images: int, precision: str
) -> Callable[[], int]:  # fmt: skip
    keep_freed_memory()
    cfg, dataset = measured_config(config_file, overrides)
    model = build_detector(cfg)
    model.load_state_dict(torch.load(state, weights_only=True))
    model = prepare_for_inference(model.to(cfg.MODEL.DEVICE), precision=precision)
    samples = first_samples(cfg, dataset, images)

    def run() -> int:
        with torch.no_grad():
            return sum(_count(model([sample])[0]) for sample in samples)

    return run


def _count(output: dict[str, Any]) -> int:
    """How many objects were found."""
    found = output["instances"]["scores"] if "instances" in output else output["proposals"]["objectness_logits"]
    return len(found)


def _their_inference(
    config_file: str, overrides: Sequence[Any], state: str, images: int, keeping: bool
) -> Callable[[], int]:  # fmt: skip
    from ..integrations.detectron2_peer import build_peer, to_detectron2

    if keeping:
        keep_freed_memory()
    cfg, dataset = measured_config(config_file, overrides)
    model = build_peer(config_file, [*overrides, *decided_keys(cfg)], torch.load(state, weights_only=True)).eval()
    samples = [to_detectron2(sample) for sample in first_samples(cfg, dataset, images)]

    def run() -> int:
        with torch.no_grad():
            return sum(len(next(iter(model([sample])[0].values()))) for sample in samples)

    return run


def _our_training(config_file: str, overrides: Sequence[Any], state: str) -> Callable[[], object]:
    keep_freed_memory()
    cfg, _ = measured_config(config_file, overrides)
    model = build_detector(cfg)
    model.load_state_dict(torch.load(state, weights_only=True))
    model.to(cfg.MODEL.DEVICE, memory_format=torch.channels_last).train()
    return partial(TrainingSteps(cfg, model), itertools.repeat(training_batch(cfg)))


def _their_training(config_file: str, overrides: Sequence[Any], state: str, keeping: bool) -> Callable[[], object]:
    from ..integrations.detectron2_peer import build_peer, peer_optimizer, peer_step, to_detectron2

    if keeping:
        keep_freed_memory()
    cfg, _ = measured_config(config_file, overrides)
    more = [*overrides, *decided_keys(cfg), "SOLVER.BASE_LR", LEARNING_RATE]
    model = build_peer(config_file, more, torch.load(state, weights_only=True)).train()
    optimizer = peer_optimizer(config_file, more, model)
    batch = [to_detectron2(sample) for sample in training_batch(cfg)]
    return partial(peer_step, model, batch, optimizer)


def _torchvision_inference(config_file: str, overrides: Sequence[Any], images: int) -> Callable[[], int]:
    cfg, dataset = measured_config(config_file, overrides)
    model = random_torchvision(cfg, training=False).eval()
    samples = [to_torchvision(sample, cfg) for sample in first_samples(cfg, dataset, images)]

    def run() -> int:
        with torch.no_grad():
            return sum(len(model([sample["image"]])[0]["scores"]) for sample in samples)

    return run


def _torchvision_training(config_file: str, overrides: Sequence[Any]) -> Callable[[], object]:
    cfg, _ = measured_config(config_file, overrides)
    batch = [to_torchvision(sample, cfg) for sample in training_batch(cfg)]
    return partial(TrainingSteps(cfg, AsOurs(random_torchvision(cfg, training=True))), itertools.repeat(batch))


def random_torchvision(cfg: CfgNode, *, training: bool) -> nn.Module:
    """See `build_torchvision`; random weights that find some boxes."""
    torch.manual_seed(0)
    model = build_torchvision(cfg, training=training)
    scale_score_layers(*score_layers(model))
    return model
