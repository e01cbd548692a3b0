"""Of the report of a GPU: detectors' training, inference, a step's profile, and how fast images are loaded."""

from __future__ import annotations

import importlib.util
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..data.loader import build_train_loader
from ..detection import build_detector
from ..detection.fuse import prepare_for_inference
from ..device import reads_pinned_memory
from ..training import build, datasets
from .detector import first_samples, measured_config, random_torchvision, scale_score_layers, training_batch
from .gpu_report import Record, Task
from .gpu_report_turns import Run, compare, sizes_for
from .loader import compare_loaders
from .step_profile import profile_step
from .steps import TrainingSteps
from .torchvision_peer import AsOurs, to_torchvision


def _config(task: Task, name: str, *overrides: Any) -> tuple[CfgNode, Any, str, list[Any]]:
    """The config, its test data, its file and what overrides it."""
    sizes, data = sizes_for(task.device), task.data
    file = f"configs/{name}_rcnn_se_{sizes.config}_fpn.yaml"
    keys = [
        "DATASETS.TRAIN_JSON", f"{data}/annotations/instances_train2017.json",
        "DATASETS.TRAIN_IMAGES", f"{data}/train2017",
        "DATASETS.VAL_JSON", f"{data}/annotations/instances_val2017.json",
        "DATASETS.VAL_IMAGES", f"{data}/val2017",
        "MODEL.DEVICE", task.device, "SOLVER.IMS_PER_BATCH", sizes.batch, "CUDNN_BENCHMARK", True,
        "INPUT.MIN_SIZE_TRAIN", (sizes.image[0],), "INPUT.MAX_SIZE_TRAIN", sizes.image[1],
        "INPUT.MIN_SIZE_TEST", sizes.image[0], "INPUT.MAX_SIZE_TEST", sizes.image[1], *overrides,
    ]  # fmt: skip
    cfg, dataset = measured_config(file, keys)
    build.set_backend_flags(cfg)
    return cfg, dataset, file, keys


BFLOAT16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16")


def _detector(cfg: CfgNode) -> nn.Module:
    """Random weights whose maps keep their size, and that find some boxes."""
    torch.manual_seed(0)
    model = build_detector(cfg)
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("conv3.norm.weight") or ("res" in name and name.endswith("conv2.norm.weight")):
                value.fill_(0.5)
    scale_score_layers(*model.score_layers())
    return model


def _our_steps(task: Task, name: str, *overrides: Any) -> Run:
    cfg, *_ = _config(task, name, *overrides)
    model = _detector(cfg).to(cfg.MODEL.DEVICE, memory_format=torch.channels_last).train()
    steps, batches = TrainingSteps(cfg, model), itertools.repeat(_pinned(training_batch(cfg), task.device))
    return lambda: steps(batches)


def _pinned(batch: Sequence[Mapping[str, Any]], device: str) -> list[dict[str, Any]]:
    """As a run's loader gives it."""
    pin = reads_pinned_memory(torch.device(device))
    return [{**sample, "image": sample["image"].pin_memory() if pin else sample["image"]} for sample in batch]


def _torchvision_steps(task: Task, name: str, *overrides: Any) -> Run:
    cfg, *_ = _config(task, name, *overrides)
    steps = TrainingSteps(cfg, AsOurs(random_torchvision(cfg, training=True)))
    batches = itertools.repeat([to_torchvision(sample, cfg) for sample in training_batch(cfg)])
    return lambda: steps(batches)


def _detectron2_steps(task: Task, name: str, *overrides: Any) -> Run:
    from ..integrations.detectron2_peer import build_peer, peer_optimizer, peer_step, to_detectron2

    cfg, _, file, keys = _config(task, name, *overrides)
    keys = [*keys, "MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES, "SOLVER.BASE_LR", 1e-6]
    model = build_peer(file, keys, _detector(cfg).state_dict()).train()
    optimizer = peer_optimizer(file, keys, model)
    batch = [to_detectron2(sample) for sample in training_batch(cfg)]

    def step() -> None:
        with torch.autocast(torch.device(task.device).type, torch.bfloat16, enabled=bool(overrides)):
            peer_step(model, batch, optimizer)

    return step


def _with_detectron2(ways: dict[str, Callable[[], Run]], way: str, make: Callable[[], Run]) -> None:
    if importlib.util.find_spec("detectron2") is not None:
        ways[way] = make


def detector_training(task: Task) -> Iterator[Record]:
    """Steps of a run's own loop, on one batch of images."""
    sizes = sizes_for(task.device)
    for name in ("mask", "faster")[: 1 if task.device == "cpu" else 2]:
        ways: dict[str, Callable[[], Run]] = {
            "se_det, bfloat16": lambda name=name: _our_steps(task, name, *BFLOAT16),
            "torchvision (without gates), bfloat16": lambda name=name: _torchvision_steps(task, name, *BFLOAT16),
        }
        _with_detectron2(
            ways, "detectron2, bfloat16", lambda name=name: _detectron2_steps(task, name, *BFLOAT16)
        )  # fmt: skip
        if task.device.startswith("cuda"):
            ways["se_det, bfloat16, Triton"] = lambda name=name: _our_steps(
                task, name, *BFLOAT16, "MODEL.KERNELS", "triton"
            )
            ways["se_det, TF32"] = lambda name=name: _our_steps(task, name)
        yield from compare(
            f"{name} R-CNN SE-{sizes.config.upper()}-FPN, training, batch {sizes.batch}, {sizes.image[0]} px", ways,
            device=task.device, repeat=sizes.repeat, amount=sizes.batch, baseline="se_det, bfloat16",
        )  # fmt: skip


def detector_inference(task: Task) -> Iterator[Record]:
    """From resized pixels to boxes in the original size."""
    sizes = sizes_for(task.device)
    for count in sizes.inference:
        ways: dict[str, Callable[[], Run]] = {
            precision: lambda count=count, precision=precision: _our_inference(task, count, precision)
            for precision in ("bfloat16", "float32")
        }
        ways["torchvision (without gates), bfloat16"] = lambda count=count: _torchvision_inference(task, count)
        _with_detectron2(ways, "detectron2, float16", lambda count=count: _detectron2_inference(task, count))
        yield from compare(
            f"faster R-CNN SE-{sizes.config.upper()}-FPN, inference, batch {count}, {sizes.image[0]} px", ways,
            device=task.device, repeat=sizes.repeat, amount=count, baseline="bfloat16",
        )  # fmt: skip


def _our_inference(task: Task, count: int, precision: str) -> Run:
    cfg, dataset, *_ = _config(task, "faster")
    model = prepare_for_inference(_detector(cfg).to(cfg.MODEL.DEVICE), precision=precision)
    samples = _pinned(first_samples(cfg, dataset, count), task.device)
    return torch.no_grad()(lambda: model(samples))


def _torchvision_inference(task: Task, count: int) -> Run:
    cfg, dataset, *_ = _config(task, "faster")
    model = random_torchvision(cfg, training=False).eval()
    images = [to_torchvision(sample, cfg)["image"] for sample in first_samples(cfg, dataset, count)]

    @torch.no_grad()
    def run() -> object:
        with torch.autocast(torch.device(task.device).type, torch.bfloat16):
            return model(images)

    return run


def _detectron2_inference(task: Task, count: int) -> Run:
    from ..integrations.detectron2_peer import build_peer, to_detectron2

    cfg, dataset, file, keys = _config(task, "faster")
    keys = [*keys, "MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES]
    model = build_peer(file, keys, _detector(cfg).state_dict()).eval()
    samples = [to_detectron2(sample) for sample in first_samples(cfg, dataset, count)]

    @torch.no_grad()
    def run() -> object:
        with torch.autocast(torch.device(task.device).type, torch.float16):
            return model(samples)

    return run


def training_profile(task: Task) -> Iterator[Record]:
    """One step of Mask R-CNN under PyTorch's profiler; the whole trace is kept beside the report."""
    for more in ((), ("MODEL.KERNELS", "triton")) if task.device.startswith("cuda") else ((),):
        run = _our_steps(task, "mask", *BFLOAT16, *more)
        for _ in range(5 if task.device != "cpu" else 1):
            run()
        trace = task.out / f"step_trace{'_triton' if more else ''}.json.gz"
        found = profile_step(run, torch.device(task.device), trace)
        yield {"profiled": "a step of Mask R-CNN in bfloat16" + (", Triton" if more else ""), **found}


def loading(task: Task) -> Iterator[Record]:
    """Images to training samples in one process, and in as many as there are cores."""
    sizes, data = sizes_for(task.device), task.data
    for compared in compare_loaders(
        f"{data}/annotations/instances_train2017.json", f"{data}/train2017", short_side=sizes.image[0],
        max_size=sizes.image[1], masks=True, count=min(sizes.loaded, 40), repeat=1,
    ):  # fmt: skip
        yield from compared.rows()
    cores = max(os.cpu_count() or 1, 1)
    for method in ("pil", "fast"):
        cfg, *_ = _config(task, "mask", "INPUT.RESIZE", method)
        cfg.DATALOADER.NUM_WORKERS = min(cores, 16) if task.device != "cpu" else 1
        batches = iter(
            build_train_loader(
                cfg, datasets.train_datasets(cfg), seed=0, pin_memory=reads_pinned_memory(torch.device(task.device))
            )
        )
        next(batches)
        start, seen = time.perf_counter(), 0
        while seen < sizes.loaded:
            seen += len(next(batches))
        rate = seen / (time.perf_counter() - start)
        yield {"loaded with": f"{cfg.DATALOADER.NUM_WORKERS} workers, INPUT.RESIZE {method}", "images per second": rate}
