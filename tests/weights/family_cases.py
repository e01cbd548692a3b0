"""Networks of other libraries with random weights and statistics, and the networks of ours that are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from se_det.backbones import create_model
from se_det.weights import load_weights
from se_det.weights.reading import WeightFile

CAFFE = {"stride_in_1x1": True, "stem_pool": "ceil"}
CAFFE_NEXT = {"stem_pool": "ceil"}
CAFFE_BASIC = {"stem_pool": "ceil", "branch_relu": True}
SIZES = ((224, 224), (157, 203))


def with_random_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in evaluation mode; each norm has an affine and statistics of its own, as after training.

    With larger scales the maps of 100 and more layers grow until rounding decides what comes out: 101 layers with
    scales of 0.5 to 1.5 differ by 1e-4 from themselves in float64.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data.uniform_(0.5, 1.1, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, nn.Linear) and module.out_features == 1000:
            module.weight.data.normal_(0, 0.05, generator=generator)
            module.bias.data.normal_(0, 0.05, generator=generator)
    return model.eval()


def as_file(tensors: dict[str, torch.Tensor], name: str = "theirs.pth", **extra) -> WeightFile:
    """What `read_weights` gives for a file of these tensors."""
    return WeightFile(Path(name), {k.removeprefix("module."): v for k, v in tensors.items()}, extra)


@torch.no_grad()
def largest_difference(ours: nn.Module, theirs: nn.Module, size: tuple[int, int]) -> float:
    """Of the logits of two images, relative to the largest logit."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    x[1] = 2 * x[1] + 1
    expected = theirs(x)
    largest = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.02 * largest  # the images matter, not only the biases
    return float((ours(x) - expected).abs().max() / largest)


def ours_with(file: WeightFile, name: str, **options) -> nn.Module:
    """Our network with the weights of another library's."""
    model = create_model(name, **options).eval()
    report = load_weights(model, file)
    assert not report.missing and not report.unexpected
    return model


def drawn(shapes: dict[str, torch.Size], seed: int) -> dict[str, torch.Tensor]:
    """Weights that depend on nothing but names, shapes and the seed (NumPy keeps `RandomState` as it is for ever)."""
    random = np.random.RandomState(seed)
    tensors = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1)
            continue
        values = random.standard_normal(shape).astype(np.float32)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif name.endswith("running_mean") or name.endswith("bias"):
            values *= 0.1
        elif len(shape) == 1:  # a norm's scale
            values = 0.8 + 0.1 * values
        else:
            values *= (2 / np.prod(shape[1:])) ** 0.5
        tensors[name] = torch.from_numpy(np.asarray(values))
    return tensors


def drawn_image(side: int = 224) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(7).standard_normal((1, 3, side, side)).astype(np.float32))
