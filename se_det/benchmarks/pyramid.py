"""A detector's backbone with its pyramid beside the same network in OpenVINO: float32 and bfloat16, on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from ..allocator import keep_freed_memory
from ..config import load_config
from ..detection.build import build_detector
from ..errors import ConfigError
from ..export import pyramid, write
from ..export.networks import relative_differences
from ..layers.fuse import fuse_for_inference
from ..layers.norms import FrozenBatchNorm2d
from .timing import Comparison, time_processes_alternately

# Ours and OpenVINO's name of each precision, and how far results may be from the network's before it was fused.
PRECISIONS = {"float32": (torch.float32, "f32", 1e-3), "bfloat16": (torch.bfloat16, "bf16", 5e-2)}
OURS, THEIRS = "se_det", "OpenVINO"


def compare_pyramids(
    config_file: str, sizes: Sequence[tuple[int, int]], *, images: int, repeat: int, folder: str
) -> Iterator[Comparison]:
    """Seconds from one normalised image at a time to the pyramid's maps, each library in a process of its own.

    Our maps lie channels last in the precision that they were computed in, as our heads take them; OpenVINO's are those
    of the exported file. Of each size and precision first comes wall time, then the time of the CPU, which other work
    on a machine disturbs less.

    Args:
        sizes: (height, width) of the images, in pixels. OpenVINO's graph is compiled for the very size.
        images: how many of them are in a turn.
        folder: where the weights and the exported file are written.

    Raises:
        ConfigError: the config has no pyramid, or results differ.
        ExportError: OpenVINO is not installed.
    """
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu"])
    model = build_detector(cfg).eval().requires_grad_(False)
    if not hasattr(model.backbone, "strides"):
        raise ConfigError(f"{config_file} has no pyramid to compare.")
    _randomise_norms(model)
    network, weights = Path(folder, "pyramid.xml"), Path(folder, "pyramid.pth")
    write(pyramid(model), network)
    torch.save(model.backbone.state_dict(), weights)
    for height, width in sizes:
        x = _image(height, width)
        expected = Path(folder, f"{height}x{width}.pth")
        with torch.no_grad():
            torch.save([part.contiguous() for part in model.backbone.features(x)[0].values()], expected)
        for precision in PRECISIONS:
            given = (str(expected), (height, width), precision, images)
            ways = {OURS: (_ours, (config_file, str(weights), *given)), THEIRS: (_openvino, (str(network), *given))}
            seconds, peaks, cpu = time_processes_alternately(ways, repeat=repeat)
            title = f"pyramid, {precision}, {height} x {width}"
            yield Comparison(title, seconds, THEIRS, peaks, amount=images)
            yield Comparison(
                f"{title}, CPU time", {w: spent[-repeat:] for w, spent in cpu.items()}, THEIRS, amount=images
            )


def _randomise_norms(model: nn.Module) -> None:
    """So that nothing of a norm could be left out unseen."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.8, 1.2)
            module.bias.normal_(0, 0.1)


def _image(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def _ours(
    config_file: str, weights: str, expected: str, size: tuple[int, int], precision: str, images: int
) -> Callable[[], list[float]]:
    keep_freed_memory()
    dtype = PRECISIONS[precision][0]
    backbone = build_detector(load_config(config_file, ["MODEL.DEVICE", "cpu"])).backbone
    backbone.load_state_dict(torch.load(weights, weights_only=True))
    fuse_for_inference(backbone, dtype=dtype)
    x = _image(*size).to(dtype).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def maps() -> list[torch.Tensor]:
        return list(backbone.features(x)[0].values())

    _check_same(OURS, maps, expected, precision)
    return _timed(maps, images)


def _openvino(
    network: str, expected: str, size: tuple[int, int], precision: str, images: int
) -> Callable[[], list[float]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(network)
    model.reshape([1, 3, *size])
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision][1], "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }  # fmt: skip
    compiled = core.compile_model(model, "CPU", options)
    request, x = compiled.create_infer_request(), _image(*size).numpy()

    def maps() -> list[torch.Tensor]:
        request.infer([x], share_inputs=True, share_outputs=True)
        return [torch.from_numpy(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))]

    _check_same(THEIRS, maps, expected, precision)
    return _timed(maps, images)


def _check_same(library: str, maps: Callable[[], list[torch.Tensor]], expected: str, precision: str) -> None:
    wanted = torch.load(expected, weights_only=True)
    for _ in range(3):  # weights are laid out for a size that comes again
        found = [part.float() for part in maps()]
        names = [f"map {number}" for number in range(1, len(wanted) + 1)]
        for name, error in relative_differences(names, wanted, found).items():
            if not error <= PRECISIONS[precision][2]:
                raise ConfigError(f"{library}'s {name} in {precision} differs from the network's by {error:.1e}.")


def _timed(maps: Callable[[], object], images: int) -> Callable[[], list[float]]:
    """Runs a turn; returns the CPU seconds of every turn so far."""
    spent: list[float] = []

    def run() -> list[float]:
        start = time.process_time()
        for _ in range(images):
            maps()
        spent.append(time.process_time() - start)
        return spent

    return run
