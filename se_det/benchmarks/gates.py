"""What every gate costs beside the same network without one: time and memory, in inference and in training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..allocator import keep_freed_memory
from ..backbones import blocks, create_backbone, create_model
from ..config import get_cfg
from ..layers.fuse import fuse_for_inference
from ..layers.gated_sum import gated_sum, plain_sum
from ..layers.gates import SE
from ..layers.norms import fold_norms
from .steps import TrainingSteps, pretraining_steps, random_batch, recipe
from .timing import Comparison, time_processes_alternately

PLAIN = "plain"
FORMULA = "se, as the formula"  # not folded: what others' gates cost
# Images, height and width of each part.
PARTS = {"inference": (1, 800, 1088), "training": (2, 480, 640), "classifier": (32, 224, 224)}
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
    Each gate takes turns with the plain network alone, so that there is memory for two of them at a time.

    Args:
        host: such as "resnet50".
        parts: of `PARTS`.
        gates: such as "se"; beside "se" its formula is measured, not folded.
    """
    names = {gate: f"{gate}_{host}" for gate in gates}
    if "se" in gates:
        names[FORMULA] = f"se_{host}"
    measured = [("inference", f"inference, {layout}", inference_run, (layout,)) for layout in LAYOUTS]
    measured += [
        ("training", "training, FrozenBN", training_run, ()),
        ("classifier", "training, BN", classifier_run, ()),
    ]
    for part, title, factory, more in measured:
        if part not in parts:
            continue
        shape = PARTS[part]
        for way, name in names.items():
            given = {PLAIN: (host, False), way: (name, way == FORMULA)}
            ways = {way: (factory, (*network, device, shape, *more)) for way, network in given.items()}
            seconds, peaks, _ = time_processes_alternately(ways, repeat=repeat, device=device)
            size = " x ".join(map(str, shape))
            yield Comparison(f"{host} and {way}: {title}, {size}", seconds, PLAIN, peaks, amount=shape[0])


def inference_run(
    name: str, formula: bool, device: str, shape: tuple[int, int, int], layout: str
) -> Callable[[], object]:
    """Computes the trunk's maps, prepared for inference."""
    keep_freed_memory()
    memory_format, dtype = LAYOUTS[layout]
    trunk = create_backbone(name, norm="FrozenBN").to(device).eval().requires_grad_(False)
    if memory_format == torch.channels_last:
        fuse_for_inference(trunk, dtype=dtype)
    else:
        fold_norms(trunk)
    images, height, width = shape
    x = torch.randn(images, 3, height, width, device=device).to(dtype).contiguous(memory_format=memory_format)

    def run() -> None:
        with torch.no_grad(), _form(formula):
            trunk(x)

    return run


def training_run(
    name: str, formula: bool, device: str, shape: tuple[int, int, int], bfloat16: bool = False
) -> Callable[[], object]:
    """Makes a step of the trunk with fixed norms."""
    keep_freed_memory()
    cfg = get_cfg()
    cfg.MODEL.DEVICE = device
    trunk = create_backbone(name, norm="FrozenBN").to(device, memory_format=torch.channels_last)
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = bfloat16, "bfloat16"
    images, height, width = shape
    batch = [{"image": image} for image in torch.randn(images, 3, height, width, device=device)]
    return _time_steps(TrainingSteps(cfg, _MeanSquare(trunk)), batch, formula)


def classifier_run(
    name: str, formula: bool, device: str, shape: tuple[int, int, int], bfloat16: bool = False
) -> Callable[[], object]:
    """Makes a step of the classifier with norms of the batch."""
    keep_freed_memory()
    cfg = recipe(batch=shape[0], size=shape[1], device=device, bfloat16=bfloat16)
    return _time_steps(pretraining_steps(cfg, create_model(name, num_classes=1000)), random_batch(cfg), formula)


class _MeanSquare(nn.Module):
    """In place of a detector's heads, which would hide what the trunk costs."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        x = torch.stack([sample["image"] for sample in samples]).contiguous(memory_format=torch.channels_last)
        return {"loss": sum(y.square().mean() for y in self.trunk(x).values())}


def _time_steps(steps: TrainingSteps, batch: Sequence, formula: bool) -> Callable[[], object]:
    batches = itertools.repeat(batch)

    def run() -> None:
        with _form(formula):
            steps(batches)

    return run


@contextmanager
def _form(formula: bool) -> Iterator[None]:
    """The papers' formula inside, where it is asked for."""

    def written_out(conv, gate: SE | None, *given, overwrite: bool) -> torch.Tensor:
        return gated_sum(conv, None, *given, overwrite=overwrite) if gate is None else plain_sum(conv, gate, *given)

    blocks.gated_sum = written_out if formula else gated_sum
    try:
        yield
    finally:
        blocks.gated_sum = gated_sum
