"""Gates: what a block does to its residual branch U, (N, C, H, W), before the addition (or where
MODEL.GATE.PLACEMENT says).

SE, SP-SE and RG-SE average U over one or more grids (`squeeze`), make of the grids one factor per channel (`scale`),
and multiply. The two halves are separate so that a convolution before the gate can be folded between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..registry import Registry
from .norms import GroupNorm, get_descriptor_norm
from .tracing import is_traced
from .valid_area import ValidArea, average_grid

# Gates by name: `build(channels, *, stage, reduction, bias, norm)` makes the one of a block of `stage`.
GATES = Registry("gate")
# Side of RG-SE's grid by stage: a fixed 7 x 7 window on the 56, 28, 14 and 7 cells of a 224 px image.
RG_GRIDS = {"res2": 8, "res3": 4, "res4": 2, "res5": 1}


class Gate(nn.Module):
    """What the forms of a residual block's end need of a gate: two halves, or one whole.

    Attributes:
        grids: cells a side of each grid that U is averaged over.
        one_factor: whether the gate is U times `scale(squeeze(U))`, so that what comes before can be folded into it.
        packed: what `packed_gate` keeps.
        triton: whether the passes over U are made by our Triton kernels, see `kernels.use_triton`.
    """

    grids: tuple[int, ...] = (1,)
    one_factor = True
    packed: tuple | None = None
    triton = False

    def squeeze(self, u: torch.Tensor, area: ValidArea | None = None) -> list[torch.Tensor]:
        """The averages over each grid, (N, C, k, k) each; with `area`, over each image's own cells."""
        return [average_grid(u, k, area) for k in self.grids]

    def scale(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """The factors (N, C, 1, 1) of what `squeeze` gives."""
        raise NotImplementedError

    def forward(self, u: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        return u * self.scale(self.squeeze(u, area))

    def zero_init(self) -> None:
        """Make every factor exactly 0.5, for MODEL.GATE.INIT identity."""
        raise ConfigError(f"MODEL.GATE.INIT identity is not possible for {type(self).__name__}: use INIT paper.")


class SE(Gate):
    """Squeeze-and-Excitation (Hu, Shen, Sun, arXiv 1709.01507, section 3): U * sigmoid(FC2(relu(FC1(mean(U))))).

    Args:
        channels: C.
        reduction: the hidden width is `channels // reduction`, rounded down as in the released models.
        bias: biases in both fully connected layers.
    """

    def __init__(self, channels: int, *, reduction: int = 16, bias: bool = True) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ConfigError(
                f"MODEL.GATE.REDUCTION {reduction} leaves no hidden unit for {channels} channels: give 1 to {channels}."
            )
        self.fc1 = nn.Linear(channels, channels // reduction, bias=bias)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=bias)

    def descriptor(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """One number per channel, (N, C), of the grids."""
        return grids[0].flatten(1)

    def scale(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """The factors (N, C, 1, 1), between 0 and 1."""
        hidden = F.relu(self.fc1(self.descriptor(grids)))
        return torch.sigmoid(self.fc2(hidden))[:, :, None, None]

    @property
    def hidden(self) -> int:
        """Width of the hidden layer."""
        return self.fc1.out_features

    def resize_hidden(self, hidden: int) -> None:
        """Change the width of the hidden layer: both layers are new, with initial values."""
        old = self.fc1.weight
        with torch.device(old.device):
            self.fc1 = nn.Linear(self.fc1.in_features, hidden, bias=self.fc1.bias is not None)
            self.fc2 = nn.Linear(hidden, self.fc2.out_features, bias=self.fc2.bias is not None)
        for layer in (self.fc1, self.fc2):
            layer.to(old.dtype).requires_grad_(old.requires_grad)

    def zero_init(self) -> None:
        """Zero FC2, so that every factor is exactly 0.5."""
        for parameter in self.fc2.parameters():
            nn.init.zeros_(parameter)


class SPSE(SE):
    """Spatial pyramid SE (Jin et al., Pattern Recognition 121, 2022, 108159): depthwise convolutions as large as
    their grids of 1, 2 and 4 cells a side are summed, normalised and rectified in place of the mean.

    Args:
        norm: the norm over the (N, C, 1, 1) descriptor.
    """

    grids = (1, 2, 4)

    def __init__(self, channels: int, *, reduction: int = 16, bias: bool = True, norm: str = "BN") -> None:
        super().__init__(channels, reduction=reduction, bias=bias)
        self.dw1, self.dw2, self.dw4 = (nn.Conv2d(channels, channels, k, groups=channels) for k in self.grids)
        self.norm = get_descriptor_norm(norm, channels)

    def squeeze(self, u: torch.Tensor, area: ValidArea | None = None) -> list[torch.Tensor]:
        """The averages over each grid, (N, C, k, k) each; with `area`, over each image's own cells."""
        if (area is not None and not area.covers(u)) or is_traced() or any(side % 4 for side in u.shape[-2:]):
            return super().squeeze(u, area)
        finest = average_grid(u, 4)  # whose cells are all of one size: the others are averages of it
        return [F.avg_pool2d(finest, 4), F.avg_pool2d(finest, 2), finest]

    def descriptor(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        fused = sum(_grid_conv(conv, grid) for conv, grid in zip((self.dw1, self.dw2, self.dw4), grids))
        return F.relu(self.norm(fused)).flatten(1)


def _grid_conv(conv: nn.Conv2d, grid: torch.Tensor) -> torch.Tensor:
    """A depthwise convolution as large as the grid: (N, C, k, k) to (N, C, 1, 1).

    As a product and a sum, which take a seventh of the convolution's time, forward and backward, on a CPU.
    """
    if is_traced() or grid.is_meta:  # who counts operations finds the paper's
        return conv(grid)
    out = (grid * conv.weight[:, 0].to(grid.dtype)).sum((-2, -1), keepdim=True)
    return out if conv.bias is None else out + conv.bias[:, None, None].to(grid.dtype)


class RGSE(SE):
    """Resolution-guided SE (the same paper): one depthwise convolution over a grid that halves from stage to stage.

    With one cell there is neither convolution nor norm, but the ReLU stays. The paper's grid comes from a fixed
    7 x 7 window on 224 px images; keeping the grid at other sizes is this project's reading.

    Args:
        grid: cells a side.
        norm: the norm over the (N, C, 1, 1) descriptor.
    """

    def __init__(self, channels: int, *, grid: int, reduction: int = 16, bias: bool = True, norm: str = "BN") -> None:
        super().__init__(channels, reduction=reduction, bias=bias)
        self.grids = (grid,)
        self.dw = nn.Conv2d(channels, channels, grid, groups=channels, bias=False) if grid > 1 else None
        self.norm = get_descriptor_norm(norm, channels) if grid > 1 else None

    def descriptor(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        z = grids[0] if self.dw is None else self.norm(_grid_conv(self.dw, grids[0]))
        return F.relu(z).flatten(1)


class CBAM(SE):
    """Convolutional block attention (Woo et al., arXiv 1807.06521): a channel gate whose MLP sees the mean and the
    maximum, then a spatial gate from a 7 x 7 convolution over [max, mean] of the channels.

    Args:
        norm: the norm of the one-channel spatial map. Its scale starts at 0 and, if a batch norm, has momentum 0.01.
    """

    one_factor = False

    def __init__(self, channels: int, *, reduction: int = 16, bias: bool = True, norm: str = "BN") -> None:
        super().__init__(channels, reduction=reduction, bias=bias)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = get_descriptor_norm(norm, 1, momentum=0.01)
        nn.init.zeros_(self.norm.weight)

    def squeeze(self, u: torch.Tensor, area: ValidArea | None = None) -> list[torch.Tensor]:
        """Mean and maximum, (N, C, 1, 1) each."""
        if area is None or area.covers(u):
            return [*super().squeeze(u), F.adaptive_max_pool2d(u, 1)]
        highest = u.masked_fill(~area.mask(u), -torch.inf).amax((-2, -1), keepdim=True)
        return [*super().squeeze(u, area), highest]

    def scale(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """The channel gate's factors (N, C, 1, 1)."""
        mean, highest = (self.fc2(F.relu(self.fc1(grid.flatten(1)))) for grid in grids)
        return torch.sigmoid(mean + highest)[:, :, None, None]

    def forward(self, u: torch.Tensor, area: ValidArea | None = None) -> torch.Tensor:
        u = super().forward(u, area)
        seen = torch.cat([u.amax(1, keepdim=True), u.mean(1, keepdim=True)], 1)
        # Outside an image the spatial convolution must read the zeros that lie beyond the border of an unpadded map.
        seen = self.spatial(seen if area is None else area.zero_padding(seen))
        seen = self.norm(seen, area) if isinstance(self.norm, GroupNorm) else self.norm(seen)
        return u * torch.sigmoid(seen)

    def zero_init(self) -> None:
        raise ConfigError(
            "MODEL.GATE.INIT identity is not possible for cbam, which ends in two gates, not one: use INIT paper."
        )


GATES.register(lambda channels, *, stage, norm, **common: SE(channels, **common), name="se")
GATES.register(lambda channels, *, stage, norm, **common: SPSE(channels, norm=norm, **common), name="sp_se")
GATES.register(
    lambda channels, *, stage, norm, **common: RGSE(channels, grid=RG_GRIDS[stage], norm=norm, **common), name="rg_se"
)
GATES.register(lambda channels, *, stage, norm, **common: CBAM(channels, norm=norm, **common), name="cbam")


def gate_names() -> list[str]:
    """The names that a gate of MODEL.GATE.NAME may have, "none" first."""
    return ["none", *GATES.names()]


def make_gate(
    name: str, channels: int, *, stage: str, reduction: int = 16, bias: bool = True, norm: str = "BN"
) -> Gate | None:
    """The gate called `name` for a block of `stage` ("res2" .. "res5"), or None for "none".

    Raises:
        ConfigError: the name is unknown, or the reduction leaves no hidden unit.
    """
    if name == "none":
        return None
    return GATES.get(name, "MODEL.GATE.NAME", more=("none",))(
        channels, stage=stage, reduction=reduction, bias=bias, norm=norm
    )
