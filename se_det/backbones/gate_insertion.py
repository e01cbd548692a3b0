"""Gates for networks that come without them: where the residual branch of a known block ends, as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet as torchvision_resnet

from ..errors import ConfigError
from ..layers.gates import GATES, SE, make_gate
from .blocks import GatedBlock, ResidualBlock
from .trunk import STAGES

STAGE_OF_STRIDE = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
PROBE = 64  # side in px of the image that tells the blocks' strides: two cells at stride 32


@dataclass(frozen=True)
class BranchEnd:
    """Where a class of blocks has the end of its residual branch.

    Args:
        last: layers or parameters that the branch's output is proportional to, the first that the block has counts.
            "*" is the last module of the sequence so far.
        slot: attribute that the block calls on the branch's output, and that may be None or an identity.
        sequence: attribute, a `nn.Sequential`, that is the whole branch.
        gated: class that the block becomes, with the gate as its attribute `gate`.
        when: attribute that is false (or None) in blocks of this class that add nothing.
    """

    last: tuple[str, ...]
    slot: str = ""
    sequence: str = ""
    gated: type[nn.Module] | None = None
    when: str = ""


class GatedBasicBlock(torchvision_resnet.BasicBlock):
    """torchvision's block with `gate` on its branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.gate(self.bn2(self.conv2(x))) + shortcut)


class GatedBottleneck(torchvision_resnet.Bottleneck):
    """torchvision's block with `gate` on its branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.gate(self.bn3(self.conv3(x))) + shortcut)


# By module and name of the class, so that timm need not be there.
BRANCH_ENDS = {
    "torchvision.models.resnet.BasicBlock": BranchEnd(("bn2",), gated=GatedBasicBlock),
    "torchvision.models.resnet.Bottleneck": BranchEnd(("bn3",), gated=GatedBottleneck),
    "torchvision.models.regnet.ResBottleneckBlock": BranchEnd(("c.1",), sequence="f"),
    "torchvision.models.convnext.CNBlock": BranchEnd(("layer_scale",), slot="stochastic_depth"),
    "torchvision.models.mobilenetv2.InvertedResidual": BranchEnd(("*",), sequence="conv", when="use_res_connect"),
    "torchvision.models.mobilenetv3.InvertedResidual": BranchEnd(("*.1",), sequence="block", when="use_res_connect"),
    "torchvision.models.efficientnet.MBConv": BranchEnd(("*.1",), sequence="block", when="use_res_connect"),
    "timm.models.resnet.BasicBlock": BranchEnd(("bn2",), slot="se"),
    "timm.models.resnet.Bottleneck": BranchEnd(("bn3",), slot="se"),
    "timm.models.regnet.Bottleneck": BranchEnd(("conv3.bn",), slot="drop_path", when="downsample"),
    "timm.models.convnext.ConvNeXtBlock": BranchEnd(("gamma", "mlp.fc2"), slot="drop_path"),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": BranchEnd(("bn2",), slot="drop_path", when="has_skip"),
    "timm.models._efficientnet_blocks.InvertedResidual": BranchEnd(("bn3",), slot="drop_path", when="has_skip"),
    "timm.models._efficientnet_blocks.EdgeResidual": BranchEnd(("bn2",), slot="drop_path", when="has_skip"),
}
GATED = {end.gated: end for end in BRANCH_ENDS.values() if end.gated}


class GatedSlot(nn.Module):
    """`gate`, then what the slot held before (`then`), such as stochastic depth."""

    def __init__(self, *, gate: SE, then: nn.Module | None) -> None:
        super().__init__()
        self.gate = gate
        self.then = then

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        u = self.gate(u)
        return u if self.then is None else self.then(u)


class Branch:
    """The residual branch of one block: its gate, and the layer before it.

    Args:
        name: of the block in its network.
        block: a `GatedBlock` of ours, or one of the classes in `BRANCH_ENDS`.
        end: None for ours.
    """

    def __init__(self, name: str, block: nn.Module, end: BranchEnd | None) -> None:
        self.name = name
        self.block = block
        self.end = end

    @property
    def gate_name(self) -> str:
        """The gate's name in the network."""
        path = "gate" if self.end is None or self.end.gated else f"{self.end.slot or self.end.sequence}.gate"
        return f"{self.name}.{path}" if self.name else path

    @property
    def gate(self) -> SE | None:
        """The gate, or None."""
        holder = self.block
        if self.end is not None and not self.end.gated:
            holder = getattr(self.block, self.end.slot or self.end.sequence)
        return getattr(holder, "gate", None)

    @property
    def is_occupied(self) -> bool:
        """Whether something, not necessarily of ours, recalibrates this branch."""
        own = self.end is not None and self.end.slot == "se" and self.block.se is not None
        return own or self.gate is not None

    @property
    def can_preserve_function(self) -> bool:
        """Whether `preserve_function` is possible."""
        if self.end is None:
            return self.gate is not None and self.block.can_preserve_function
        return self.gate is not None and self.gate.one_factor

    def last(self) -> nn.Module | torch.Tensor:
        """The layer, or the parameter, that the branch's output is proportional to."""
        if self.end is None:
            return self.block.last.norm
        holder = getattr(self.block, self.end.sequence) if self.end.sequence else self.block
        for path in self.end.last:
            found = holder
            for part in path.split("."):
                if part == "*":
                    found = [child for name, child in found.named_children() if name != "gate"][-1]
                else:
                    found = found[int(part)] if part.isdigit() else getattr(found, part, None)
            if found is not None:
                return found
        raise AssertionError(f"{type(self.block)} has none of {self.end.last}")

    def channels(self) -> int:
        """Channels of the branch's output."""
        last = self.last()
        return (last if isinstance(last, torch.Tensor) else last.weight).shape[0]

    def attach(self, gate: SE) -> None:
        """Put `gate` at the end."""
        block, end = self.block, self.end
        if end is None:
            block.gate = gate
        elif end.gated:
            block.gate = gate
            block.__class__ = end.gated
        elif end.slot:
            setattr(block, end.slot, GatedSlot(gate=gate, then=getattr(block, end.slot)))
        else:
            getattr(block, end.sequence).add_module("gate", gate)

    def preserve_function(self) -> None:
        """Give the gate the factor 0.5 and double the layer before it: the block computes what it did without."""
        if self.end is None:
            self.block.preserve_function()
            return
        self.gate.zero_init()
        last = self.last()
        with torch.no_grad():
            for part in (last,) if isinstance(last, torch.Tensor) else (last.weight, last.bias):
                if part is not None:
                    part.mul_(2)


def branches(model: nn.Module) -> Iterator[Branch]:
    """The residual branches of all blocks of a known class, in the order of registration."""
    for name, module in model.named_modules():
        end = GATED.get(type(module)) or BRANCH_ENDS.get(f"{type(module).__module__}.{type(module).__qualname__}")
        # Others of our blocks are built with the place for a gate, or without.
        if isinstance(module, ResidualBlock) or (isinstance(module, GatedBlock) and module.gate is not None):
            yield Branch(name, module, None)
        elif end is not None and (not end.when or getattr(module, end.when) not in (None, False)):
            yield Branch(name, module, end)


def gated_branches(model: nn.Module) -> list[Branch]:
    """Those of `branches` that have a gate of ours."""
    return [branch for branch in branches(model) if branch.gate is not None]


def insert_gates(
    model: nn.Module,
    gate: str = "se",
    *,
    reduction: int = 16,
    bias: bool = True,
    norm: str = "BN",
    stages: Sequence[str] = STAGES,
    init: str = "identity",
) -> list[str]:
    """Put a gate at the end of the residual branches of a network that has none, in place.

    The gate multiplies what the branch gives, before the addition: after the last norm (after the layer scale in
    ConvNeXt). A block belongs to the stage of its stride: `res2` is 4, `res5` 32; others get no gate. RG-SE's grid
    follows from the stage. A gate that a network has inside its branch (RegNetY, EfficientNet) stays.

    Args:
        model: a network of torchvision, timm or this package; or a module that contains one and takes an image.
        gate: "se", "sp_se", "rg_se" or "cbam".
        reduction, bias, norm: see `layers.gates`.
        stages: the stages whose blocks get a gate.
        init: "identity" leaves the network's function unchanged, with gates that can be trained away from it;
            "paper" leaves the gates at their initial values, about 0.5.

    Returns:
        The names of the gates, for `model.get_submodule`.

    Raises:
        ConfigError: an argument is unknown, the network has no block of a known class, or its branches have gates.
    """
    GATES.get(gate)
    if init not in ("identity", "paper"):
        raise ConfigError(f"The initial values '{init}' of a gate are unknown: use identity or paper.")
    wrong = [stage for stage in stages if stage not in STAGES]
    if wrong:
        raise ConfigError(f"There is no stage '{wrong[0]}' to insert gates in: use {', '.join(STAGES)}.")
    found = list(branches(model))
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no residual block of a class whose branch is known to end somewhere. Known "
            f"are {', '.join(BRANCH_ENDS)} and this package's own."
        )
    occupied = [branch.name for branch in found if branch.is_occupied]
    if occupied:
        raise ConfigError(
            f"{type(model).__name__} has a gate on its residual branches already (in {occupied[0]} and "
            f"{len(occupied) - 1} more): insert gates in the network without them."
        )
    strides = block_strides(model, [branch.block for branch in found])
    planned = []
    for branch, stride in zip(found, strides):
        stage = STAGE_OF_STRIDE.get(stride)
        if stage in stages:
            new = make_gate(gate, branch.channels(), stage=stage, reduction=reduction, bias=bias, norm=norm)
            if init == "identity":
                new.zero_init()  # refuses here, where nothing is changed yet, what has no identity
            planned.append((branch, new))
    if not planned:
        raise ConfigError(
            f"{type(model).__name__} has no residual block in {', '.join(stages)}: its blocks have the strides "
            f"{sorted(set(strides))}."
        )
    for branch, new in planned:
        like = next(branch.block.parameters())
        branch.attach(new.to(like.device, like.dtype).train(branch.block.training))
        if init == "identity":
            branch.preserve_function()
    return [branch.gate_name for branch, _ in planned]


def block_strides(model: nn.Module, blocks: Sequence[nn.Module]) -> list[int]:
    """The stride of each block's output, seen on a blank image; 0 for a block that is not reached."""
    seen: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: tuple, output: torch.Tensor | tuple) -> None:
        output = output[0] if isinstance(output, tuple) else output
        seen[module] = PROBE // output.shape[-1]

    like = next(model.parameters())
    training = {module: module.training for module in model.modules()}
    hooks = [block.register_forward_hook(note) for block in blocks]
    try:
        with torch.no_grad():
            model.eval()(like.new_zeros(1, 3, PROBE, PROBE))
    finally:
        for hook in hooks:
            hook.remove()
        for module, flag in training.items():
            module.training = flag
    return [seen.get(block, 0) for block in blocks]
