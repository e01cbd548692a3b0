"""Each undocumented name taken away: the plain way gives the same results."""

from __future__ import annotations

import ast
import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from se_det.analysis.cost import measure
from se_det.backbones import create_backbone
from se_det.data.transforms import to_tensor
from se_det.errors import SeDetError
from se_det.internals import aten, group_store, mkldnn, module_hooks, temp_folder, tensor_version
from se_det.layers.conv import Conv2d
from se_det.layers.fuse import fuse_for_inference, pack_convolutions
from se_det.layers.onednn import PackedConv2d
from se_det.layers.winograd import WinogradConv2d
from se_det.training.ema import EMA

PACKAGE = Path(__file__).resolve().parents[2] / "se_det"


def without(monkeypatch: pytest.MonkeyPatch, place: str, *names: str) -> None:
    """`torch.ops.<place>` with none of `names`, and with all else."""
    real = getattr(torch.ops, place)

    class Rest:
        def __getattr__(self, name: str):
            if name in names:
                raise AttributeError(name)
            return getattr(real, name)

    monkeypatch.setattr(torch.ops, place, Rest())


def small_backbone() -> nn.Module:
    torch.manual_seed(0)
    return create_backbone("se_resnet18", norm="FrozenBN")


@torch.no_grad()
@pytest.mark.skipif(not mkldnn.is_available(), reason="needs a PyTorch with oneDNN's operators")
@pytest.mark.parametrize("name", mkldnn.OPERATORS)
def test_inference_without_onednns_operators(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    model = create_backbone("se_resnet18", norm="FrozenBN", out_features=("res3",))
    x = torch.randn(1, 3, 64, 96)
    with_them = fuse_for_inference(copy.deepcopy(model))
    assert any(conv.packed is not None for conv in with_them.modules() if isinstance(conv, Conv2d))
    want = [with_them(x) for _ in range(3)][-1]
    without(monkeypatch, "mkldnn", name)
    plain = fuse_for_inference(model)
    # Winograd's method needs none of them.
    assert not any(type(conv.packed) is PackedConv2d for conv in plain.modules() if isinstance(conv, Conv2d))
    for level, value in plain(x).items():
        torch.testing.assert_close(value, want[level], rtol=1e-4, atol=1e-4 * want[level].abs().max().item())


def test_bfloat16_is_not_supported_where_nothing_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "mkldnn", "_is_mkldnn_bf16_supported")
    assert mkldnn.supports_bfloat16() is False


def test_every_module_is_observed_where_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.ReLU()
    assert not module_hooks.is_observed(module)
    with module.register_forward_pre_hook(lambda module, given: None):
        assert module_hooks.is_observed(module)
    monkeypatch.delattr(torch.nn.modules.module, "_global_forward_hooks")
    assert module_hooks.is_observed(module)


def test_pixels_without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    shared = to_tensor(pixels, shared=True)
    assert shared.is_shared()
    [place] = [kind for kind in torch.UntypedStorage.__mro__ if "_new_shared" in vars(kind)]
    monkeypatch.delattr(place, "_new_shared")
    plain = to_tensor(pixels, shared=True)
    assert not plain.is_shared()
    assert plain.shape == (3, 5, 7) and torch.equal(plain, shared) and np.array_equal(plain.permute(1, 2, 0), pixels)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["packed", "winograd"])
def test_weights_that_change_without_a_count_of_their_changes(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    torch.manual_seed(0)
    conv = Conv2d(128, 128 if kind == "winograd" else 120, 3, padding=1).requires_grad_(False)
    run = copy.deepcopy(conv)
    pack_convolutions(run)
    assert isinstance(run.packed, WinogradConv2d) is (kind == "winograd")
    x = torch.randn(1, 128, 32, 32)
    # Of a descriptor of C only the lookup on the class can be taken away.
    monkeypatch.setattr(tensor_version, "torch", SimpleNamespace(Tensor=object))
    for factor in (1.0, 2.0, 3.0):
        run.weight.copy_(conv.weight * factor)
        for _ in range(3):
            want = nn.functional.conv2d(x, run.weight, run.bias, padding=1)
            torch.testing.assert_close(run(x), want, rtol=1e-4, atol=1e-4)


def test_averages_without_operations_on_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    one, other = EMA(model, decay=0.9), EMA(model, decay=0.9)

    def steps(ema: EMA) -> None:
        torch.manual_seed(1)
        for step in range(20):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.randn_like(parameter))
            ema.update(step)

    steps(one)
    monkeypatch.delattr(torch, "_foreach_lerp_")
    steps(other)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_costs_without_the_numbers_of_storages(monkeypatch: pytest.MonkeyPatch) -> None:
    want = measure(small_backbone(), (3, 64, 64))
    assert want.training_bytes > 0 and want.inference_bytes > 0
    real = torch.Tensor.untyped_storage

    class Storage:
        """A storage that has nothing but what is documented; one for each, as PyTorch's own."""

        made: dict[int, Storage] = {}  # noqa: RUF012

        def __init__(self, storage: torch.UntypedStorage) -> None:
            self.nbytes, self.kept = storage.nbytes, storage

    def untyped_storage(tensor: torch.Tensor) -> Storage:
        storage = real(tensor)
        return Storage.made.setdefault(id(storage), Storage(storage))

    monkeypatch.setattr(torch.Tensor, "untyped_storage", untyped_storage)
    assert measure(small_backbone(), (3, 64, 64)) == want


def test_memory_that_cannot_be_counted_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils._python_dispatch", None)
    with pytest.raises(SeDetError, match="memory of inference cannot be counted with PyTorch"):
        measure(nn.Conv2d(3, 4, 1), (3, 8, 8))


def test_every_process_tells_where_none_can_ask_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((1, 2))
    store = SimpleNamespace(add=lambda key, amount: next(counts))
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    assert [group_store.is_first() for _ in range(2)] == [True, False]
    monkeypatch.delattr(dist.distributed_c10d, "_get_default_store")
    assert [group_store.is_first() for _ in range(2)] == [True, True]


def test_a_folder_of_which_nobody_knows_whose_it_is_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temp_folder, "get_temp_dir", lambda: str(tmp_path / "sockets"))
    (tmp_path / "sockets").mkdir()
    monkeypatch.setattr(temp_folder.multiprocessing, "current_process", lambda: SimpleNamespace())
    temp_folder.OwnTempFolder().remove()
    assert (tmp_path / "sockets").exists()
    inherited = SimpleNamespace(_config={"tempdir": str(tmp_path / "sockets")})
    monkeypatch.setattr(temp_folder.multiprocessing, "current_process", lambda: inherited)
    temp_folder.OwnTempFolder().remove()
    assert (tmp_path / "sockets").exists()
    monkeypatch.setattr(temp_folder.multiprocessing, "current_process", lambda: SimpleNamespace(_config={}))
    temp_folder.OwnTempFolder().remove()
    assert not (tmp_path / "sockets").exists()


@pytest.mark.parametrize(
    "gone", ["threshold_backward", "native_batch_norm_backward", "convolution_backward", "batch_norm_update_stats"]
)
def test_kernels_of_gradients_by_their_formulas(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(2, 6, 5, 7, dtype=torch.float64), torch.randn(2, 4, 5, 7, dtype=torch.float64)
    weight = torch.randn(4, 6, 1, 1, dtype=torch.float64)

    def everything() -> list[torch.Tensor]:
        return [
            aten.relu_backward(x, (x.flip(1) - 0.3).relu()),
            *aten.channel_moments(x[:1].float()),
            *aten.channel_sums(x[:1].flip(1), x[:1]),
            *aten.pointwise_backward(grad, x, weight, (True, True, True)),
        ]

    want = everything()
    if gone == "batch_norm_update_stats":
        monkeypatch.delattr(torch, gone)
    else:
        without(monkeypatch, "aten", gone)
    found = everything()
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert not all(torch.equal(one, other) for one, other in zip(found[1:], want[1:])) or gone == "threshold_backward"
    assert list(aten.pointwise_backward(grad, x, weight, (False, False, False))) == [None] * 3


def test_a_training_step_without_kernels_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms with the batch's statistics, and fixed ones, of which the weights' gradients are made by hand."""

    torch.manual_seed(0)
    norms = ("BN", "FrozenBN")
    models = {n: create_backbone("se_resnet50", norm=n, out_features=("res2",)).double().train() for n in norms}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def gradients(norm: str) -> list[torch.Tensor]:
        weights = [p for name, p in models[norm].named_parameters() if name.startswith(("stem", "res2"))]
        return torch.autograd.grad(models[norm](x)["res2"].square().mean(), weights)

    want = {norm: gradients(norm) for norm in norms}
    without(monkeypatch, "aten", "threshold_backward", "native_batch_norm_backward", "convolution_backward")
    monkeypatch.delattr(torch, "batch_norm_update_stats")
    for norm, values in want.items():
        for one, other in zip(gradients(norm), values, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_nothing_else_uses_private_names_of_pytorch() -> None:
    """`torch._x`, `from torch._x import y`, a private name below `torch.` or `dist.`, and those listed here."""
    known = {"_version", "_new_shared", "_config", "_cdata"}
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "internals":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                whole = text.split(".")
                if whole[0] in ("torch", "nn", "dist", "mp", "multiprocessing"):
                    names = whole[1:]
                elif node.attr in known and whole[0] != "self":
                    names = [node.attr]
            elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("torch"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names if alias.name.startswith("torch") for part in
                         alias.name.split(".")]  # fmt: skip
            private = [name for name in names if name.startswith("_") and not name.startswith("__")]
            assert not private, f"{path}:{node.lineno}: {private[0]} belongs into se_det/internals"
