"""Normalisation layers by Detectron2's names."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import ConfigError
from .convolution import convolution
from .tracing import is_traced
from .valid_area import ValidArea

NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN")
GROUPS = 32
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with fixed statistics and a fixed affine, all of them buffers.

    Its four buffers have the names of `nn.BatchNorm2d`'s parameters and statistics, so the weights of one load into
    the other. Until weights are loaded it is the identity.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, shift), each (C,), of which the layer is `x * scale + shift`."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        scale, shift = (v.to(x.dtype)[:, None, None] for v in self.affine())
        return torch.addcmul(shift, x, scale)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> FrozenBatchNorm2d:
        """The frozen copy of a batch norm."""
        frozen = cls(norm.num_features, norm.eps)
        frozen.load_state_dict({k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"})
        return frozen.to(norm.running_mean.device)


class GroupNorm(nn.GroupNorm):
    """Group normalisation whose statistics can leave out what lies outside each image of a padded batch."""

    def forward(self, x: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        """(N, C, H, W) to the same shape; with `area`, means and variances are over each image's own cells."""
        if area is None or area.covers(x):
            if is_traced():  # its own module asks how many values there are, which only a run of the graph knows
                return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
            if x.numel() == self.num_groups:  # one value is its own mean; PyTorch refuses to say so
                return (x - x) * self.weight[:, None, None] + self.bias[:, None, None]
            return super().forward(x)
        inside = area.mask(x)[:, None]
        grouped = x.unflatten(1, (self.num_groups, -1)).float()
        cells = inside.sum((-2, -1), keepdim=True) * grouped.shape[2]
        mean = torch.where(inside, grouped, 0.0).sum((2, 3, 4), keepdim=True) / cells
        centred = grouped - mean
        variance = torch.where(inside, centred, 0.0).square().sum((2, 3, 4), keepdim=True) / cells
        normalised = (centred * (variance + self.eps).rsqrt()).flatten(1, 2).to(x.dtype)
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]


def get_norm(name: str, channels: int) -> nn.Module | None:
    """The norm called `name` over `channels`, or None for "".

    Raises:
        ConfigError: the name is unknown, or GN cannot divide the channels into 32 groups.
    """
    if name == "":
        return None
    if name == "BN":
        return nn.BatchNorm2d(channels)
    if name == "SyncBN":
        return nn.SyncBatchNorm(channels)
    if name == "FrozenBN":
        return FrozenBatchNorm2d(channels)
    if name == "GN":
        if channels % GROUPS:
            raise ConfigError(f"NORM GN needs channels in multiples of {GROUPS}, got {channels}: use BN there.")
        return GroupNorm(GROUPS, channels)
    raise ConfigError(f"NORM '{name}' is unknown: use one of {', '.join(NORMS[1:])}.")


def get_descriptor_norm(name: str, channels: int, *, momentum: float = 0.1) -> nn.Module:
    """The norm inside a gate. Under GN it has one group: 32 groups over a map of one cell would give only +-1."""
    norm = GroupNorm(1, channels) if name == "GN" else get_norm(name, channels)
    if norm is None:
        raise ConfigError("MODEL.GATE.NORM must name a norm for this gate: BN, SyncBN, FrozenBN or GN.")
    if isinstance(norm, BATCH_NORMS):
        norm.momentum = momentum
    return norm


def freeze_norms(module: nn.Module) -> None:
    """Replace every batch norm below `module` by its frozen copy, in place."""
    for name, child in module.named_children():
        if isinstance(child, BATCH_NORMS):
            setattr(module, name, FrozenBatchNorm2d.from_batch_norm(child))
        else:
            freeze_norms(child)


def has_fixed_affine(conv: nn.Conv2d) -> bool:
    """Whether what follows the products with `conv.weight`, its bias and its `norm`, is the same for all values.

    Not so for a batch norm in training and for a group norm.
    """
    norm = conv.norm
    if isinstance(norm, BATCH_NORMS):
        return not norm.training and norm.track_running_stats
    return norm is None or isinstance(norm, FrozenBatchNorm2d)


def fixed_affine(conv: nn.Conv2d) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, shift), each (C,), of the bias and the norm of a convolution that `has_fixed_affine` and has a norm."""
    norm = conv.norm
    if isinstance(norm, FrozenBatchNorm2d):
        scale, shift = norm.affine()
    else:
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
    return scale, shift if conv.bias is None else shift + conv.bias * scale


def apply_frozen(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """`conv.norm(conv(x))` as one convolution, for a norm with a fixed affine: it goes into the weight and the bias.

    Equal up to rounding, to every gradient too, and the convolution's output is neither scaled in a pass of its own
    nor kept for it.
    """
    return convolution(conv, x, *affine_convolution(conv))


def affine_convolution(conv: nn.Conv2d) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of the one convolution that `conv` and its norm, which has a fixed affine, are together."""
    if conv.norm is None:
        return conv.weight, conv.bias
    scale, shift = fixed_affine(conv)
    return conv.weight * scale[:, None, None, None], shift


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Make each convolution with a norm of fixed affine one convolution with a bias, in place, for inference."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d) and getattr(conv, "norm", None) is not None and has_fixed_affine(conv):
            weight, bias = affine_convolution(conv)
            conv.weight.copy_(weight)
            conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
            conv.norm = None
