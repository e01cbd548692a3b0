"""What every gate costs beside the same network without one: time and memory, in inference and in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from ..backbones import blocks, create_backbone, create_model
from ..layers.gated_sum import gated_sum, plain_sum
from ..layers.gates import SE
from ..layers.inference import fuse_for_inference
from ..layers.norms import fold_norms
from ..memory import keep_freed_memory
from .alternate import Comparison, alternate_processes

PLAIN = "plain"
FORMULA = "se, as the formula"  # not folded: what others' gates cost
PARTS = ("inference", "training", "classifier")
# Memory format and type of the inference's networks.
LAYOUTS = {
    "as is": (torch.contiguous_format, torch.float32),
    "channels_last": (torch.channels_last, torch.float32),
    "channels_last bfloat16": (torch.channels_last, torch.bfloat16),
}


def compare_gates(
    host: str, parts: Sequence[str], *, gates: Sequence[str], repeat: int, device: str
) -> Iterator[Comparison]:
    """Time and memory of `host` with each gate over those of `host` alone.

    Inference: the trunk as a detector runs it, norms folded, one image of 800 x 1088 px. Training: a step of the trunk
    with FrozenBN, all of it trained, 2 images of 480 x 640 px. Classifier: a step with BatchNorm, 32 images of 224 px.

    Args:
        host: such as "resnet50".
        parts: of `PARTS`.
        gates: such as "se"; beside "se" its formula is measured, not folded.
    """
    names = {PLAIN: host, **{gate: f"{gate}_{host}" for gate in gates}}
    if "se" in gates:
        names[FORMULA] = f"se_{host}"
    if "inference" in parts:
        for layout in LAYOUTS:
            title = f"{host}, inference, 1 x 800 x 1088, {layout}"
            yield _compare(title, 1, names, _inference, (layout,), repeat, device)
    if "training" in parts:
        yield _compare(f"{host}, training, FrozenBN, 2 x 480 x 640", 2, names, _training, (), repeat, device)
    if "classifier" in parts:
        yield _compare(f"{host}, training, BN, 32 x 224 x 224", 32, names, _classifier, (), repeat, device)


def _compare(
    title: str, images: int, names: dict[str, str], factory: Callable, more: tuple, repeat: int, device: str
) -> Comparison:
    ways = {way: (factory, (name, way == FORMULA, device, *more)) for way, name in names.items()}
    seconds, peaks, _ = alternate_processes(ways, repeat=repeat, device=device)
    return Comparison(title, seconds, PLAIN, peaks, amount=images)


def _inference(name: str, formula: bool, device: str, layout: str) -> Callable[[], object]:
    keep_freed_memory()
    memory_format, dtype = LAYOUTS[layout]
    trunk = create_backbone(name, norm="FrozenBN").to(device).eval().requires_grad_(False)
    if memory_format == torch.channels_last:
        fuse_for_inference(trunk, dtype=dtype)
    else:
        fold_norms(trunk)
    x = torch.randn(1, 3, 800, 1088, device=device).to(dtype).contiguous(memory_format=memory_format)

    def run() -> None:
        with torch.no_grad(), _form(formula):
            trunk(x)

    return run


def _training(name: str, formula: bool, device: str) -> Callable[[], object]:
    keep_freed_memory()
    trunk = create_backbone(name, norm="FrozenBN").to(device, memory_format=torch.channels_last).train()
    x = torch.randn(2, 3, 480, 640, device=device).contiguous(memory_format=torch.channels_last)
    return _step(trunk, lambda: sum(y.square().mean() for y in trunk(x).values()), formula)


def _classifier(name: str, formula: bool, device: str) -> Callable[[], object]:
    keep_freed_memory()
    model = create_model(name, num_classes=1000).to(device, memory_format=torch.channels_last).train()
    x = torch.randn(32, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(32, device=device)
    return _step(model, lambda: torch.nn.functional.cross_entropy(model(x), labels), formula)


def _step(model: torch.nn.Module, loss: Callable[[], torch.Tensor], formula: bool) -> Callable[[], object]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def run() -> None:
        with _form(formula):
            loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


@contextmanager
def _form(formula: bool) -> Iterator[None]:
    """The papers' formula inside, where it is asked for."""

    def written_out(conv, gate: SE | None, *given) -> torch.Tensor:
        return gated_sum(conv, None, *given) if gate is None else plain_sum(conv, gate, *given)

    blocks.gated_sum = written_out if formula else gated_sum
    try:
        yield
    finally:
        blocks.gated_sum = gated_sum
