"""Who uses Triton kernels, and that they compute what PyTorch does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from se_det.backbones import create_backbone
from se_det.errors import ConfigError
from se_det.layers.gated_sum import gated_sum
from se_det.layers.gates import Gate
from se_det.layers.kernels import check_kernels, makes_passes, use_triton
from tests.layers.test_gated_sum import make

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["layers/interpreted_kernels.py", "detection/interpreted_kernels.py"])
def test_under_the_interpreter(file):
    """In a process of its own: Triton asks once, when it is imported, whether it interprets."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / file)], cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_nothing_imports_triton_until_it_is_asked_for():
    script = (
        "import sys, se_det.detection; print([name for name in sys.modules if 'triton_' in name and 'se_det' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_they_compile_for_a_gpu_that_is_not_here():
    """Down to Hopper's machine code, with the compiler and the assembler that Triton carries."""
    pytest.importorskip("triton", minversion="3.3")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from se_det.detection.triton_nms import SIDE, _keep, _overlaps
    from se_det.layers.triton_kernels import map_passes as passes

    maps = ("a", "b", "u", "scale", "shift", "shortcut", "out", "grad", "of_sum", "of_u")
    types = {
        **dict.fromkeys(maps, "*bf16"), **dict.fromkeys(("sums", "products", "boxes"), "*fp32"), "words": "*i64",
        **dict.fromkeys(("valid", "kept"), "*u8"), "threshold": "fp32",
    }  # fmt: skip
    constants = {
        "CELLS": 16,
        "CHANNELS": 64,
        "PRODUCTS": True,
        "SHIFTED": True,
        "SCALED": True,
        "SIDE": SIDE,
        "TILES": 32,
    }
    for kernel in (passes._cell_sums, passes._affine_relu, passes._affine_relu_backward, _overlaps, _keep):
        fixed = {name: constants[name] for name in kernel.arg_names if name in constants}
        signature = {n: "constexpr" if n in fixed else types.get(n, "i32") for n in kernel.arg_names}
        at = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=at)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert len(compiled.asm["cubin"]) > 1000


def test_gates_are_told_and_none_is_by_itself():
    trunk = create_backbone("se_resnet18")
    gates = [m for m in trunk.modules() if isinstance(m, Gate)]
    assert len(gates) == 8 and not any(gate.triton for gate in gates)
    assert all(gate.triton for gate in use_triton(trunk).modules() if isinstance(gate, Gate))


def test_on_a_cpu_the_same_gate_is_pytorchs(monkeypatch):
    """As after it was trained on a GPU and moved."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    layers = make("se", norm="FrozenBN", kernel=1).float()
    x, shortcut = torch.randn(2, 16, 6, 5), torch.randn(2, 32, 6, 5)
    expected = gated_sum(layers["conv"], layers["gate"], x, shortcut)
    assert torch.equal(gated_sum(layers["conv"], use_triton(layers)["gate"], x, shortcut), expected)
    assert makes_passes(layers["gate"], torch.empty(1, device="meta")) is False
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert makes_passes(layers["gate"], x) and not makes_passes(layers["gate"], x.double())


def test_what_cannot_be_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    check_kernels("pytorch", torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"MODEL\.KERNELS 'cuda' is unknown: use pytorch or triton"):
        check_kernels("cuda", torch.device("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed"):
        check_kernels("triton", torch.device("cuda"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    check_kernels("triton", torch.device("cuda"))
    with pytest.raises(ConfigError, match="is for GPUs, and the device is cpu"):
        check_kernels("triton", torch.device("cpu"))
