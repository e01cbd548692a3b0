"""Which device a name selects, on machines that have it and that do not."""

from __future__ import annotations

import pytest
import torch

from se_det import device as module
from se_det.cli import doctor
from se_det.config import get_cfg
from se_det.device import count_devices, reads_pinned_memory, select_device
from se_det.errors import ConfigError
from se_det.training.build import decide_device, set_backend_flags


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(cuda=2, xpu=1, mps=1)`: what PyTorch says that there is; returns the devices that were chosen."""

    def pretend(**counts: int) -> list:
        chosen: list = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: counts.get("cuda", 0) > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: counts.get("mps", 0) > 0)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: counts.get("xpu", 0) > 0)
        for kind in ("cuda", "xpu"):
            monkeypatch.setattr(getattr(torch, kind), "device_count", lambda kind=kind: counts.get(kind, 0))
            monkeypatch.setattr(getattr(torch, kind), "set_device", chosen.append)
        return chosen

    return pretend


def test_each_kind_is_taken_where_it_is(machine):
    chosen = machine(cuda=2, xpu=3, mps=1)
    assert select_device("cuda") == torch.device("cuda", 0)
    assert select_device("cuda:1") == torch.device("cuda", 1)
    assert select_device("xpu:2") == torch.device("xpu", 2)
    assert select_device("mps") == torch.device("mps", 0)
    assert select_device("cpu") == torch.device("cpu")
    assert chosen == [torch.device("cuda", 0), torch.device("cuda", 1), torch.device("xpu", 2)]
    assert [count_devices(name) for name in ("cuda", "xpu:1", "mps", "cpu")] == [2, 3, 1, 0]


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps"])
def test_it_is_the_cpu_where_there_is_none_and_the_reason_is_kept(machine, name):
    machine(**{other: 1 for other in ("cuda", "xpu", "mps") if other != name})
    assert select_device(name) == torch.device("cpu")
    cfg = get_cfg()
    cfg.MODEL.DEVICE = name
    _, (decided,) = decide_device(cfg)
    assert (decided.key, decided.value) == ("MODEL.DEVICE", "cpu")
    assert decided.reason == ("there is no GPU" if name == "cuda" else f"there is no {name} device")


@pytest.mark.parametrize(
    "name, message",
    [("tpu", "'tpu' is unknown: use cuda, .*mps, xpu"), ("meta", "'meta' is not supported"),
     ("xpu:3", "there are 1 GPUs, counted from 0"), ("cuda:1", "there are 1 GPUs"), ("mps:1", "for one process")],
)  # fmt: skip
def test_others_are_refused(machine, name, message):
    machine(cuda=1, xpu=1, mps=1)
    with pytest.raises(ConfigError, match=message):
        select_device(name)


def test_processes_have_a_device_each_and_mps_is_for_one(machine, monkeypatch):
    machine(xpu=2, mps=1)
    monkeypatch.setattr(module.comm, "is_distributed", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device("xpu") == torch.device("xpu", 1)
    with pytest.raises(ConfigError, match="one such device, for one process"):
        select_device("mps")


def test_the_doctor_sees_them(machine):
    machine(xpu=2)
    lines: list[tuple[str, str]] = []
    doctor._devices(lines)
    assert ("xpu devices", "2") in lines and ("GPUs", "none: MODEL.DEVICE cuda becomes cpu") in lines
    assert not any(name == "mps devices" for name, _ in lines)


def test_who_copies_from_page_locked_memory():
    assert [reads_pinned_memory(torch.device(name)) for name in ("cuda", "xpu", "mps", "cpu")] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "device, key, matmul, convolutions",
    [("cuda", "", "high", True), ("cuda", "highest", "highest", False), ("cuda:1", "medium", "medium", True),
     ("cpu", "", "highest", "as it was"), ("cpu", "high", "high", "as it was")],
)  # fmt: skip
def test_float32_is_tf32_on_gpus_unless_the_key_says_otherwise(device, key, matmul, convolutions, monkeypatch):
    seen = {"matmul": "highest"}
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda value: seen.update(matmul=value))
    before = torch.backends.cudnn.allow_tf32
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.FLOAT32_PRECISION = device, key
    try:
        set_backend_flags(cfg)
        assert seen["matmul"] == matmul
        assert torch.backends.cudnn.allow_tf32 == (before if convolutions == "as it was" else convolutions)
    finally:
        torch.backends.cudnn.allow_tf32 = before
