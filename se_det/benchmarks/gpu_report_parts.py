"""What the report of a GPU finds out, most valuable first.

Ways are measured in one process, in turns: starting one for each would take a third of the time there is. A way's peak
memory is the most that was taken while it alone was made and run.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from ..backbones import create_model
from ..data.loader import build_train_loader
from ..detection import build_detector
from ..detection.fuse import prepare_for_inference
from ..device import reads_pinned_memory, wait_for
from ..layers.fuse import fuse_for_inference
from ..training import build, datasets
from .detector import first_samples, measured_config, random_torchvision, scale_score_layers, training_batch
from .gates import PLAIN, classifier_run, inference_run, training_run
from .gpu_report import Part, Record, Task
from .loader import compare_loaders
from .step_profile import profile_step
from .steps import TrainingSteps
from .timing import Comparison, time_alternately
from .torchvision_peer import AsOurs, to_torchvision

ROOT = Path(__file__).resolve().parents[2]
TURN = 0.3  # seconds that a turn should last at least, of as many calls as that takes
Run = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """How large everything is, and how often it is done."""

    host: str
    maps: tuple[int, int]
    inference: tuple[int, ...]
    training: int
    classifier: tuple[int, int]
    config: str
    batch: int
    image: tuple[int, int]
    repeat: int
    loaded: int
    tests: tuple[str, ...]


GPU = Sizes(
    host="resnet50", maps=(800, 1088), inference=(1, 8), training=8, classifier=(256, 224), config="r50", batch=16,
    image=(800, 1333), repeat=5, loaded=200, tests=(),
)  # fmt: skip
# What shows on a CPU that the report itself works; its figures mean nothing.
CPU = Sizes(
    host="resnet18", maps=(64, 96), inference=(1, 2), training=2, classifier=(4, 64), config="r18", batch=2,
    image=(96, 128), repeat=1, loaded=4, tests=("-k", "areas or sampling or overflow or matching"),
)  # fmt: skip


def sizes_for(device: str) -> Sizes:
    """Large ones for GPUs."""
    return CPU if device == "cpu" else GPU


def find_data(given: Path | None, out: Path) -> Path:
    """A folder with `annotations/instances_{train,val}2017.json` and `{train,val}2017/`: given, or of drawn shapes.

    Raises:
        CalledProcessError: they could not be drawn.
    """
    if given is not None:
        return given
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"se_det_report_{os.getuid()}"
    if not (folder / "annotations").exists():
        command = [sys.executable, str(ROOT / "datasets/make_shapes.py"), "--root", str(folder), "--train", "48",
                   "--val", "16"]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / "annotations").mkdir()
        for part in ("train", "val"):
            os.symlink(
                folder / f"shapes/annotations/instances_{part}.json", folder / f"annotations/instances_{part}2017.json"
            )
            os.symlink(folder / "shapes" / part, folder / f"{part}2017")
    return folder


def compare(
    title: str, ways: Mapping[str, Callable[[], Run]], *, device: str, repeat: int, amount: float, baseline: str
) -> Iterator[Record]:
    """Seconds of each way's call, and its memory; a way that fails is told of, and the others go on without it.

    Args:
        ways: each makes what is then called again and again.
        amount: images of a call.
    """
    where, runs, peaks, calls = torch.device(device), {}, {}, {}
    for way, make in ways.items():
        try:
            before = _held(where)
            run = make()
            for _ in range(1 if where.type == "cpu" else 3):  # what is chosen or made in the first calls
                run()
            wait_for(where)
            start = time.perf_counter()
            _forget_peak(where)
            run()
            wait_for(where)
            taken = time.perf_counter() - start
            calls[way] = 1 if where.type == "cpu" else max(1, min(50, round(TURN / taken)))
            if where.type == "cuda":
                peaks[way] = (torch.cuda.max_memory_allocated(where) - before) / 2**20
            runs[way] = run
        except Exception as error:
            yield {"measured": title, "way": way, "error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    if not runs:
        return
    turns = {way: _repeated(run, calls[way]) for way, run in runs.items()}
    seconds = time_alternately(turns, repeat=repeat, device=where)
    each = {way: [taken / calls[way] for taken in values] for way, values in seconds.items()}
    first = baseline if baseline in each else next(iter(each))
    yield from Comparison(title, each, first, peaks, amount=amount).rows()


def _repeated(run: Run, count: int) -> Run:
    def turn() -> None:
        for _ in range(count):
            run()

    return turn


def _held(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def tests(task: Task) -> Iterator[Record]:
    """tests/gpu, and what of it failed; with the counts so far when its time is over."""
    folder = ROOT / "tests" / "gpu"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(folder), "--durations=5",
               *sizes_for(task.device).tests]  # fmt: skip
    where = {**os.environ, "PYTHONPATH": str(ROOT), **({"SE_DET_GPU_TESTS": "cpu"} if task.device == "cpu" else {})}
    process = subprocess.Popen(
        command, cwd=ROOT, env=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    counts: Counter[str] = Counter()
    failed: list[str] = []
    end, told = time.monotonic() + task.seconds - 5, False
    for line in process.stdout:
        print(line, end="", flush=True)
        words = line.split()
        if len(words) > 1 and "::" in words[0] and words[1] in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
            counts[words[1].lower()] += 1
            if words[1] in ("FAILED", "ERROR"):
                failed.append(words[0])
        if time.monotonic() > end and not told:
            told = True
            yield {"tests": "ended early", **counts, "failures": failed}
    process.wait()
    yield {"tests": "all done", **counts, "failures": failed}


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
    scale_score_layers(model.proposal_generator.rpn_head.objectness_logits, model.roi_heads.box_predictor.cls_score)
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


def _use_tf32(task: Task) -> None:
    """As a run has it on a GPU, for what is measured outside of one."""
    if task.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True


def gates(task: Task) -> Iterator[Record]:
    """Each gate's network over the plain one."""
    sizes, device = sizes_for(task.device), task.device
    _use_tf32(task)
    height, width = sizes.maps
    names = {PLAIN: sizes.host, **{gate: f"{gate}_{sizes.host}" for gate in ("se", "sp_se", "rg_se", "cbam")}}
    layouts = (("channels_last bfloat16", "bfloat16"), ("channels_last", "TF32"))
    for layout, label in layouts[: 1 if device == "cpu" else 2]:
        for count in sizes.inference:
            ways = {
                way: lambda name=name, count=count, layout=layout: inference_run(
                    name, False, device, (count, height, width), layout
                )
                for way, name in names.items()
            }
            yield from _ratios(task, f"{sizes.host}, inference, {count} x {height} x {width}, {label}", ways, count)
    for bfloat16, label in ((True, "bfloat16"), (False, "TF32"))[: 1 if device == "cpu" else 2]:
        for title, factory, shape in (
            ("training, fixed norms", training_run, (sizes.training, height, width)),
            ("training, norms of the batch", classifier_run, (*sizes.classifier, sizes.classifier[1])),
        ):
            ways = {
                way: lambda name=name, factory=factory, shape=shape, bfloat16=bfloat16: factory(
                    name, False, device, shape, bfloat16
                )
                for way, name in names.items()
            }
            size = " x ".join(map(str, shape))
            yield from _ratios(task, f"{sizes.host}, {title}, {size}, {label}", ways, shape[0])


def _ratios(task: Task, title: str, ways: Mapping[str, Callable[[], Run]], amount: int) -> Iterator[Record]:
    repeat = sizes_for(task.device).repeat
    return compare(title, ways, device=task.device, repeat=repeat, amount=amount, baseline=PLAIN)


def timm(task: Task) -> Iterator[Record]:
    """The same classifiers in both libraries, in channels_last and bfloat16."""
    import timm as theirs

    _use_tf32(task)
    sizes, device = sizes_for(task.device), torch.device(task.device)
    count, side = sizes.classifier
    x = torch.randn(count, 3, side, side, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)

    def inference(make: Callable[[], nn.Module], ours: bool) -> Run:
        model = make().to(device).eval().requires_grad_(False)
        if ours:
            fuse_for_inference(model, dtype=torch.bfloat16)
        else:
            model.to(torch.bfloat16).to(memory_format=torch.channels_last)
        return torch.no_grad()(lambda: model(x))

    ways = {
        "timm": lambda: inference(lambda: theirs.create_model(f"se{sizes.host}"), False),
        "se_det": lambda: inference(lambda: create_model(f"se_{sizes.host}", num_classes=1000), True),
    }
    title = f"se_{sizes.host}, inference, {count} x {side}, bfloat16"
    yield from compare(
        title, ways, device=task.device, repeat=sizes.repeat, amount=count, baseline="timm"
    )  # fmt: skip


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


# Most valuable first.
PARTS = {
    "tests": Part("Tests on the device", tests, seconds=200),
    "profile": Part("A training step's profile", training_profile, seconds=60),
    "training": Part("Detectors, training", detector_training, seconds=100),
    "inference": Part("Detectors, inference", detector_inference, seconds=60),
    "gates": Part("Gates over the plain network", gates, seconds=150),
    "timm": Part("Beside timm", timm, seconds=30),
    "loading": Part("Loading", loading, seconds=45),
}
