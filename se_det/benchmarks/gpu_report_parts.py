"""What the report of a GPU finds out, most valuable first: its tests, detectors, gates, classifiers, loading."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from ..backbones import create_model
from ..layers.fuse import fuse_for_inference
from .gates import PLAIN, classifier_run, inference_run, training_run
from .gpu_report import Part, Record, Task
from .gpu_report_detectors import detector_inference, detector_training, loading, training_profile
from .gpu_report_turns import Run, compare, sizes_for

ROOT = Path(__file__).resolve().parents[2]


def find_data(given: Path | None, out: Path) -> Path:
    """A folder with `annotations/instances_{train,val}2017.json` and `{train,val}2017/`: given, or of drawn shapes,
    which `datasets/make_shapes.py` makes once for a user."""
    if given is not None:
        return given
    folder = Path(tempfile.gettempdir()) / f"se_det_report_{getpass.getuser()}"
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
