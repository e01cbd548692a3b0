"""Steps, averages, accumulation, loss scaling, a run that is killed, processes, and what memory is left."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from se_det import comm
from se_det.benchmarks.steps import TrainingSteps
from se_det.detection import build_detector
from se_det.layers.norms import get_norm
from se_det.training import build
from se_det.training.checkpoint import load_checkpoint
from se_det.training.distributed import wrap_distributed
from se_det.training.launch import free_port, spawn
from tests.detection.conftest import make_sample, small_config
from tests.training.tiny_run import TinyDetector, sample

from . import killed_run
from .comparing import apart, full_float32, largest, skip_float16

ROOT = Path(__file__).resolve().parents[2]
BOXES = [[10.0, 20, 60, 70], [50, 5, 120, 90]]


class OnDevice(nn.Module):
    """A tiny detector without randomness, whose samples are on the CPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = TinyDetector(dropout=0.0, noise=0.0).to(device, torch.float64)
        self.device = device

    def forward(self, samples):
        moved = [{k: v.to(self.device) if torch.is_tensor(v) else v for k, v in s.items()} for s in samples]
        return self.model(moved)


def test_steps_with_accumulation_clipping_and_averages(device):
    """In double precision: weights, momenta and averages are the CPU's."""
    found = {}
    for name, where in (("cpu", torch.device("cpu")), ("device", device)):
        cfg = small_config(overrides=(
            "MODEL.DEVICE", str(where), "SOLVER.ACCUMULATE", 2, "SOLVER.EMA.DECAY", 0.9,
            "SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model",
        ))  # fmt: skip
        model = OnDevice(where)
        steps = TrainingSteps(cfg, model)
        steps._train.keywords["learning_rate"] = lambda step: 0.1
        steps(iter([[sample(4 * i + j) for j in range(4)] for i in range(20)]), 10)
        averages = {f"average of {k}": v for k, v in steps._train.keywords["ema"].state_dict().items()}
        found[name] = {**model.state_dict(), **averages}
    before = OnDevice(torch.device("cpu")).state_dict()
    assert apart(found["cpu"]["model.conv.weight"], before["model.conv.weight"]) > 0.01  # they have moved
    assert largest(found["device"], found["cpu"]) < (1e-9,)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", ""])
def test_steps_of_a_detector_in_mixed_precision_lower_its_loss(device, dtype, optimizer):
    if dtype == "float16":
        skip_float16(device)
    torch.manual_seed(0)
    amp = ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", dtype] if dtype else []
    cfg = small_config(overrides=("MODEL.DEVICE", str(device), "SOLVER.OPTIMIZER", optimizer, *amp))
    model = build_detector(cfg).to(device, memory_format=torch.channels_last).train()
    precision = build.precision(cfg, device)
    stepper = build.optimizer(cfg, model, base_lr=0.01 if optimizer == "SGD" else 3e-4, scaled=precision.scaled)
    batch = [make_sample(96, 128, BOXES), make_sample(96, 128, BOXES, seed=1)]
    totals = []
    for _ in range(12):
        stepper.zero_grad()
        with precision.autocast():
            total = sum(model(batch).values())
        precision.backward(total)
        precision.step(stepper)
        totals.append(float(total.detach()))
    assert all(p.isfinite().all() for p in model.parameters())
    assert sum(totals[-3:]) / 3 < 0.98 * totals[0]
    assert bool(precision.state_dict()) == (dtype == "float16")


def test_a_step_whose_scaled_gradients_overflow_is_left_out(device):
    torch.manual_seed(0)
    cfg = small_config(overrides=("MODEL.DEVICE", str(device), "SOLVER.AMP.ENABLED", True))
    precision, model = build.precision(cfg, device), nn.Linear(4, 2).to(device)
    stepper = build.optimizer(cfg, model, base_lr=0.1, scaled=precision.scaled)
    before, scale = copy.deepcopy(model.state_dict()), None
    for factor in (1e36, 1.0):
        stepper.zero_grad()
        precision.backward(model(torch.ones(3, 4, device=device)).sum() * factor)
        precision.step(stepper)
        if scale is None:
            assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
            scale = precision.state_dict()["scale"]
            assert scale < 2.0**16
    assert not torch.equal(model.weight, before["weight"]) and model.weight.isfinite().all()


def run(folder: Path, device: torch.device, *words: str, kill_at: int | None = None) -> int:
    more = {} if kill_at is None else {"KILL_AT": str(kill_at)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.killed_run", str(folder), device.type, *words], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **more},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def test_a_killed_run_ends_as_if_it_had_not_been(device, tmp_path):
    """Bit for bit on a CPU; RoIAlign's gradients on a GPU are sums in no fixed order."""
    assert run(tmp_path / "whole", device) == 0
    assert run(tmp_path / "killed", device, kill_at=killed_run.STEPS - 1) == -9
    assert not (tmp_path / "killed" / "model_final.pth").exists()
    assert run(tmp_path / "killed", device, "resume") == 0
    first, whole, killed = (
        load_checkpoint(tmp_path / f"{name}.pth")
        for name in ("whole/model_0000003", "whole/model_final", "killed/model_final")
    )
    limit = 0.0 if device.type == "cpu" else 0.05
    for part in ("model", "ema"):
        moved = sum(float((whole[part][k] - v).double().square().sum()) for k, v in first[part].items()) ** 0.5
        differ = sum(float((whole[part][k] - v).double().square().sum()) for k, v in killed[part].items()) ** 0.5
        assert moved > 0 and differ <= limit * moved


def _alone_in_a_group(path: str, device_type: str) -> None:
    """What DistributedDataParallel and SyncBN make of one process."""
    device = torch.device(device_type)
    assert comm.is_distributed()
    with full_float32():
        torch.manual_seed(0)
        norm = get_norm("SyncBN" if device_type == "cuda" else "BN", 8)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 2, 1)).to(device)
        wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        assert wrap_distributed(model) is model  # of one process alone
        x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)).to(device)
        wrapped(x).square().mean().backward()
        total = comm.mean_over_processes(torch.ones(3, device=device))
    state = {name: p.grad.cpu() for name, p in model.named_parameters()}
    torch.save({**state, "mean": norm.running_mean.cpu(), "total": total.cpu()}, path)


def test_one_process_in_a_group_with_synchronised_norms(device, tmp_path):
    """NCCL where there is a GPU, gloo on a CPU, which has no SyncBN."""
    path, url = str(tmp_path / "found.pth"), f"tcp://127.0.0.1:{free_port()}"
    spawn(_alone_in_a_group, (path, device.type), processes=1, url=url, device=device.type)
    found = torch.load(path, weights_only=True)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), get_norm("BN", 8), nn.ReLU(), nn.Conv2d(8, 2, 1)]
    model = nn.Sequential(*layers).double()
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    model(x).square().mean().backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    assert largest(found, {**wanted, "mean": model[1].running_mean, "total": torch.ones(3)}, floor=1e-3) < (1e-3,)


def held(device: torch.device) -> int:
    """Bytes of the tensors that are alive: as the GPU's allocator counts them, or by the garbage collector's list."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    return sum(t.numel() * t.element_size() for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter))


@pytest.mark.parametrize("amp", [False, True])
def test_memory_is_back_at_its_start_after_fifty_steps(device, amp):
    keys = ("MODEL.DEVICE", str(device), "SOLVER.AMP.ENABLED", amp, "SOLVER.AMP.DTYPE", "bfloat16")
    model = build_detector(small_config(overrides=keys)).to(device, memory_format=torch.channels_last)
    steps = TrainingSteps(small_config(overrides=keys), model)
    batch = itertools.repeat([make_sample(64, 96, [[8, 8, 40, 44], [20, 4, 60, 30]])])
    steps(batch, 3)  # momentum and gradients are made
    before = held(device)
    steps(batch, 50 if device.type == "cuda" else 5)
    # Fifty blocks that the allocator rounds up would be less than a tensor of each step.
    assert held(device) - before <= (2**20 if device.type == "cuda" else 0)
