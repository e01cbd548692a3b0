"""A detector of ours beside Detectron2's with the same weights, on real images: inference and training steps."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ..config import load_config
from ..data.loader import build_test_loader, build_train_loader
from ..detection import build_detector
from ..detection.inference import prepare_for_inference
from ..errors import ConfigError
from ..memory import keep_freed_memory
from ..training import data_sets, settings
from ..weights import load_weights, settle_weights
from .alternate import Comparison, alternate_processes

OURS, BFLOAT16 = "se_det", "se_det, bfloat16"
THEIRS, THEIRS_KEEPING = "detectron2", "detectron2, memory kept"


def compare_detectors(
    config_file: str, overrides: Sequence[Any], parts: Sequence[str], *, images: int, repeat: int, state: str
) -> Iterator[Comparison]:
    """Seconds and memory of both engines; ours alone where Detectron2 is not installed.

    Inference: `images` images of the test data one after another, from resized pixels to boxes (and masks) in the
    original size, in float32 and bfloat16. Training: one step of SOLVER.IMS_PER_BATCH images of the training data, from
    samples to updated weights. Loading is not part of either. "memory kept" gives Detectron2 our allocator's setting.

    Args:
        overrides: keys and values; without MODEL.WEIGHTS the weights are random, with scores spread out.
        parts: "inference", "training".
        images: of inference.
        state: a file that the weights are written to, from which all load them.

    Raises:
        ConfigError: the two find different numbers of detections.
    """
    _save_state(config_file, overrides, state)
    theirs = importlib.util.find_spec("detectron2") is not None
    baseline = THEIRS if theirs else OURS
    if "inference" in parts:
        ways = {}
        if theirs:
            ways = {way: (_their_inference, (config_file, overrides, state, images, way == THEIRS_KEEPING))
                    for way in (THEIRS, THEIRS_KEEPING)}  # fmt: skip
        ways[OURS] = (_our_inference, (config_file, overrides, state, images, "float32"))
        ways[BFLOAT16] = (_our_inference, (config_file, overrides, state, images, "bfloat16"))
        seconds, peaks, found = alternate_processes(ways, repeat=repeat)
        if theirs and abs(found[OURS] - found[THEIRS]) > 0.01 * found[THEIRS]:
            raise ConfigError(f"{OURS} finds {found[OURS]} objects and {THEIRS} {found[THEIRS]}.")
        counts = ", ".join(f"{way} {count}" for way, count in found.items())
        yield Comparison(f"{config_file}, inference (found: {counts})", seconds, baseline, peaks, amount=images)
    if "training" in parts:
        ways = {OURS: (_our_training, (config_file, overrides, state))}
        if theirs:
            ways = {way: (_their_training, (config_file, overrides, state, way == THEIRS_KEEPING))
                    for way in (THEIRS, THEIRS_KEEPING)} | ways  # fmt: skip
        seconds, peaks, _ = alternate_processes(ways, repeat=repeat)
        batch = load_config(config_file, list(overrides)).SOLVER.IMS_PER_BATCH
        yield Comparison(f"{config_file}, training step", seconds, baseline, peaks, amount=batch)


def _config(config_file: str, overrides: Sequence[Any]):
    cfg = load_config(config_file, list(overrides))
    cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS if "MODEL.WEIGHTS" in overrides else ""
    cfg.MODEL.DEVICE = str(settings.settle_device(cfg))
    cfg.DATALOADER.NUM_WORKERS = 0
    sets = data_sets.test_sets(cfg)
    if not sets:
        raise ConfigError("Images to measure on are missing: give --val-json and --val-images.")
    data_sets.settle_num_classes(cfg, next(iter(sets.values())))
    return cfg, next(iter(sets.values()))


def _save_state(config_file: str, overrides: Sequence[Any], path: str) -> None:
    cfg, _ = _config(config_file, overrides)
    torch.manual_seed(0)
    file = settle_weights(cfg, trained=True) if cfg.MODEL.WEIGHTS else None
    model = build_detector(cfg)
    if file is not None:
        load_weights(model, file, whole=True)
    else:
        with torch.no_grad():  # so that some boxes are found
            model.proposal_generator.rpn_head.objectness_logits.weight.mul_(10)
            model.roi_heads.box_predictor.cls_score.weight.mul_(10)
    torch.save(model.state_dict(), path)


def _samples(cfg, dataset, count: int) -> list[dict[str, Any]]:
    samples = []
    for batch in build_test_loader(cfg, dataset):
        samples += batch
        if len(samples) >= count:
            break
    return samples[:count]


def _training_batch(cfg) -> list[dict[str, Any]]:
    return next(iter(build_train_loader(cfg, data_sets.training_sets(cfg), seed=0)))


def _our_inference(
    config_file: str, overrides: Sequence[Any], state: str, images: int, precision: str
) -> Callable[[], int]:  # fmt: skip
    keep_freed_memory()
    cfg, dataset = _config(config_file, overrides)
    model = build_detector(cfg)
    model.load_state_dict(torch.load(state, weights_only=True))
    model = prepare_for_inference(model.to(cfg.MODEL.DEVICE), precision=precision)
    samples = _samples(cfg, dataset, images)

    def run() -> int:
        with torch.no_grad():
            return sum(len(model([sample])[0]["instances"]["scores"]) for sample in samples)

    return run


def _their_inference(
    config_file: str, overrides: Sequence[Any], state: str, images: int, keeping: bool
) -> Callable[[], int]:  # fmt: skip
    from ..integrations.detectron2_peer import build_peer, to_detectron2

    if keeping:
        keep_freed_memory()
    cfg, dataset = _config(config_file, overrides)
    more = ["MODEL.DEVICE", cfg.MODEL.DEVICE, "MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES]
    model = build_peer(config_file, [*overrides, *more], torch.load(state, weights_only=True)).eval()
    samples = [to_detectron2(sample) for sample in _samples(cfg, dataset, images)]

    def run() -> int:
        with torch.no_grad():
            return sum(len(model([sample])[0]["instances"]) for sample in samples)

    return run


def _our_training(config_file: str, overrides: Sequence[Any], state: str) -> Callable[[], object]:
    keep_freed_memory()
    cfg, _ = _config(config_file, overrides)
    model = build_detector(cfg)
    model.load_state_dict(torch.load(state, weights_only=True))
    model.to(cfg.MODEL.DEVICE, memory_format=torch.channels_last).train()
    precision = settings.precision(cfg, torch.device(cfg.MODEL.DEVICE))
    optimizer = settings.optimizer(cfg, model, base_lr=1e-6, scaled=precision.scaled)
    batch = _training_batch(cfg)

    def run() -> None:
        with precision.autocast():
            loss = sum(model(batch).values())
        precision.backward(loss)
        precision.step(optimizer)
        optimizer.zero_grad()

    return run


def _their_training(config_file: str, overrides: Sequence[Any], state: str, keeping: bool) -> Callable[[], object]:
    from ..integrations.detectron2_peer import build_peer, peer_optimizer, to_detectron2

    if keeping:
        keep_freed_memory()
    cfg, _ = _config(config_file, overrides)
    more = [*overrides, "MODEL.DEVICE", cfg.MODEL.DEVICE, "MODEL.ROI_HEADS.NUM_CLASSES",
            cfg.MODEL.ROI_HEADS.NUM_CLASSES, "SOLVER.BASE_LR", 1e-6]  # fmt: skip
    model = build_peer(config_file, more, torch.load(state, weights_only=True)).train()
    optimizer = peer_optimizer(config_file, more, model)
    batch = [to_detectron2(sample) for sample in _training_batch(cfg)]

    def run() -> None:
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run
