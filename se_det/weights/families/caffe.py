"""The SENet authors' Caffe networks, and their MatConvNet port (mcnSENets).

Caffe keeps a batch normalisation as two layers, `<conv>/bn` (mean, variance, and a factor to divide both by) and
`<conv>/bn/scale` (gamma, beta). MatConvNet has the same layers with `_` for `/`, moments as mean and
sqrt(variance + eps), and kernels as height x width x in x out.

The blobs of a Caffe layer have no names, only numbers: `<layer>.<number>` is what is read here, and written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from ...errors import WeightsError
from .conventions import WeightConventions
from .family import Family, Tensors
from .rules import AS_CONVOLUTION, Change, Rule

EPS = 1e-5  # of both programs' batch normalisation; the released prototxts do not set another
CAFFE_CONVENTIONS = WeightConventions(None, "ceil", None, "BGR", (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "caffe")
# MatConvNet's importer turned the first kernels around: images are RGB there.
MATCONVNET_CONVENTIONS = replace(CAFFE_CONVENTIONS, input_format="RGB", pixel_mean=(123.0, 117.0, 104.0))

# SE-BN-Inception's modules, by the stage of ours that they are in.
MODULES = (("res3", "{m3}"), ("res4", "{m4}"), ("res5", "{m5}"))

# (layer of ours, layer of theirs, only for a stem of so many convolutions)
LAYERS = (
    ("stem.conv1", "conv1/7x7_s2", 1),
    ("stem.conv1", "conv1_1/3x3_s2", 3),
    ("stem.conv2", "conv1_2/3x3", 3),
    ("stem.conv3", "conv1_3/3x3", 3),
    ("res{s}.{b}.conv1", "conv{s}_{n}_1x1_reduce", None),
    ("res{s}.{b}.conv2", "conv{s}_{n}_3x3", None),
    ("res{s}.{b}.conv3", "conv{s}_{n}_1x1_increase", None),
    ("res{s}.{b}.shortcut", "conv{s}_{n}_1x1_proj", None),
    ("res2.conv2.{layer}", "conv2/{layer}", None),
    *((f"{stage}.inception_{module}.{{layer}}", f"inception_{module}/{{layer}}", None) for stage, module in MODULES),
)
GATES = tuple(
    (f"{block}.gate.{ours}", f"{layer}_1x1_{theirs}")
    for block, layer in (
        ("res{s}.{b}", "conv{s}_{n}"),
        *((f"{stage}.inception_{module}", f"inception_{module}") for stage, module in MODULES),
    )
    for ours, theirs in (("fc1", "down"), ("fc2", "up"))
)


def _rules(separator: str, weight: str, bias: str, kernel: Change | None, gate: Change, head: Change | None) -> tuple:
    """The key map; `weight` and `bias` are the ends of the keys of a convolution."""
    rules = []
    for ours, theirs, stem in LAYERS:
        theirs = theirs.replace("/", separator)
        rules.append(Rule(f"{ours}.weight", theirs + weight, kernel, stem))
        rules.append(Rule(f"{ours}.norm.{{stat}}", f"{theirs}{separator}bn.{{stat}}", None, stem))
    for ours, theirs, change in (*((*pair, gate) for pair in GATES), ("linear", "classifier", head)):
        rules.append(Rule(f"{ours}.weight", theirs + weight, change))
        rules.append(Rule(f"{ours}.bias", theirs + bias, _COLUMN if bias == "_bias" else None))
    return tuple(rules)


@dataclass(frozen=True)
class _Norm:
    """A batch normalisation being put together."""

    mean: torch.Tensor
    variance: torch.Tensor
    gamma: torch.Tensor
    beta: torch.Tensor

    def tensors(self, layer: str) -> Tensors:
        values = {"weight": self.gamma, "bias": self.beta, "running_mean": self.mean, "running_var": self.variance}
        return {f"{layer}.{name}": value.reshape(-1).float() for name, value in values.items()}


BLOB = re.compile(r"(?P<layer>.+)[./](?P<number>[0-2])")


def _unpack_caffe(tensors: Tensors) -> Tensors:
    """`<layer>.<number>` to `<layer>.weight` and `.bias`, and the two layers of a norm to one."""
    layers: dict[str, dict[int, torch.Tensor]] = {}
    unpacked: Tensors = {}
    for key, tensor in tensors.items():
        match = BLOB.fullmatch(key)
        if match:
            layers.setdefault(match["layer"], {})[int(match["number"])] = tensor
        else:
            unpacked[key] = tensor
    for layer, blobs in layers.items():
        scale = layers.get(f"{layer}/scale", {})
        if layer.endswith("/bn") and {0, 1, 2} <= set(blobs) and {0, 1} <= set(scale):
            factor = blobs[2].double().reshape(-1)
            if len(factor) != 1 or factor.item() == 0:
                raise WeightsError(f"{layer}.2 must be one number other than 0, to divide mean and variance by.")
            norm = _Norm(blobs[0].double() / factor, blobs[1].double() / factor, scale[0], scale[1])
            unpacked |= norm.tensors(layer)
        elif not layer.endswith(("/bn", "/bn/scale")):
            unpacked |= {f"{layer}.{('weight', 'bias', '2')[number]}": blob for number, blob in blobs.items()}
    return unpacked


def _pack_caffe(tensors: Tensors) -> Tensors:
    packed: Tensors = {}
    for key, tensor in tensors.items():
        layer, _, end = key.rpartition(".")
        if layer.endswith("/bn"):
            place = {"weight": f"{layer}/scale.0", "bias": f"{layer}/scale.1", "running_mean": f"{layer}.0",
                     "running_var": f"{layer}.1"}  # fmt: skip
            if end not in place:
                continue  # Caffe does not count batches
            packed[place[end]] = tensor
            packed[f"{layer}.2"] = torch.ones(1)
        else:
            packed[f"{layer}.{('weight', 'bias').index(end)}"] = tensor
    return packed


def _unpack_matconvnet(tensors: Tensors) -> Tensors:
    unpacked = {key: tensor for key, tensor in tensors.items() if not re.search(r"_bn(_scale)?_\w+$", key)}
    for key, moments in tensors.items():
        if not key.endswith("_bn_moments"):
            continue
        layer = key.removesuffix("_moments")
        mean, deviation = moments.double().reshape(-1, 2).unbind(1)
        parts = {}
        for name, default in (("mult", 1.0), ("bias", 0.0)):
            for step in ("", "_scale"):
                found = tensors.get(f"{layer}{step}_{name}")
                parts[name + step] = torch.full_like(mean, default) if found is None else found.double().reshape(-1)
        # The importer leaves gamma and beta in a layer of their own, or multiplies them in; together they are this.
        gamma = parts["mult"] * parts["mult_scale"]
        beta = parts["bias"] * parts["mult_scale"] + parts["bias_scale"]
        unpacked |= _Norm(mean, deviation.square() - EPS, gamma, beta).tensors(layer)
    return unpacked


def _pack_matconvnet(tensors: Tensors) -> Tensors:
    packed: Tensors = {}
    for key, tensor in tensors.items():
        layer, _, end = key.rpartition(".")
        if not layer.endswith("_bn"):
            packed[key] = tensor
        elif end == "running_mean":
            deviation = (tensors[f"{layer}.running_var"].double() + EPS).sqrt().float()
            packed[f"{layer}_mult"] = torch.ones(len(tensor), 1)
            packed[f"{layer}_bias"] = torch.zeros(len(tensor), 1)
            packed[f"{layer}_moments"] = torch.stack([tensor, deviation], 1)
            packed[f"{layer}_scale_mult"] = tensors[f"{layer}.weight"].reshape(1, 1, -1)
            packed[f"{layer}_scale_bias"] = tensors[f"{layer}.bias"].reshape(1, 1, -1)
    return packed


def _out_first(tensor: torch.Tensor) -> torch.Tensor:
    """(height, width, in, out) to (out, in, height, width); MATLAB leaves out trailing sides of 1."""
    return tensor.reshape(*tensor.shape, *[1] * (4 - tensor.ndim)).permute(3, 2, 0, 1).contiguous()


def _out_last(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor if tensor.ndim == 4 else tensor[:, :, None, None]
    return tensor.permute(2, 3, 1, 0).contiguous()


_KERNEL = Change(_out_first, _out_last)
_KERNEL_2D = Change(lambda t: _out_first(t).flatten(1), _out_last)
_COLUMN = Change(lambda t: t.reshape(-1), lambda t: t.reshape(-1, 1))


def _by_stride(facts: WeightConventions, grouped: bool | None) -> WeightConventions:
    # SE-ResNet has the stride in the first 1 x 1, SE-ResNeXt and SENet-154 in the 3 x 3.
    return replace(facts, stride_in_1x1=None if grouped is None else not grouped)


CAFFE = Family(
    name="caffe",
    about="the SENet authors' Caffe networks, their blobs as `<layer>.<number>`",
    marker_keys=(r"^(conv2_1_1x1_reduce|inception_3a/1x1)[./]0$",),
    rules=_rules("/", ".weight", ".bias", None, AS_CONVOLUTION, None),
    facts=lambda grouped: _by_stride(CAFFE_CONVENTIONS, grouped),
    trunk=r"conv\d|inception",
    unpack=_unpack_caffe,
    pack=_pack_caffe,
)

MATCONVNET = Family(
    name="matconvnet",
    about="the MatConvNet port of the SENet authors' networks (mcnSENets)",
    marker_keys=(r"^(conv2_1_1x1_reduce|inception_3a_1x1)_filter$",),
    rules=_rules("_", "_filter", "_bias", _KERNEL, _KERNEL_2D, _KERNEL_2D),
    facts=lambda grouped: _by_stride(MATCONVNET_CONVENTIONS, grouped),
    trunk=r"conv\d|inception",
    unpack=_unpack_matconvnet,
    pack=_pack_matconvnet,
)
