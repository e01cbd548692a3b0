"""Any network of timm that gives feature maps, as a trunk."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, suggestion
from ..layers.norms import BATCH_NORMS, FrozenBatchNorm2d
from ..layers.valid_area import ValidArea
from .gate_insertion import STAGE_OF_STRIDE, Branch, gated_branches, insert_gates
from .trunk import STAGES

PREFIX = "timm/"
NORMS = ("FrozenBN", "BN", "SyncBN")
# Older ones leave parts of the classifier in what they prune, and give maps of fewer networks.
MIN_TIMM = (1, 0, 31)
# Arguments by which timm's transformers take images of any size; a network knows one of them or none.
ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
PROBE = (64, 96)  # height and width in px of an image that every backbone must take

logger = logging.getLogger(__name__)


class TimmTrunk(nn.Module):
    """The feature maps of a timm network at strides 4 to 32, called `res2` to `res5`.

    The network itself is `net`, with timm's own parameter names, and random weights: nothing is downloaded. What
    only serves the classifier is taken off. Of several maps of one stride the last counts.

    Args:
        name: timm's, such as "convnext_atto" or "convnext_atto.d2_in1k".
        out_features: the maps to return.
        norm: "BN" leaves batch norms as they are, "FrozenBN" and "SyncBN" convert them; other norms stay.
        gate, reduction, gate_bias, gate_norm, gate_stages, gate_init: gates on the residual branches, see
            `insert_gates`; an empty `gate_norm` follows `norm`.
        padding: "keep" only.

    Raises:
        ConfigError: timm is not installed or has no such network; the network takes one image size only, or lacks a
            map; an argument has another value.
    """

    size_divisibility = 0

    def __init__(
        self, *, name: str, out_features: Sequence[str] = STAGES, norm: str = "BN", gate: str = "none",
        reduction: int = 16, gate_bias: bool = True, gate_norm: str = "", gate_stages: Sequence[str] = STAGES,
        gate_init: str = "paper", padding: str = "keep",
    ) -> None:  # fmt: skip
        super().__init__()
        if padding != "keep":
            raise ConfigError(
                f"MODEL.GATE.PADDING {padding} is not possible for {PREFIX}{name}: timm's layers do not know where in "
                "a padded batch an image ends. Use keep, or a backbone of this package."
            )
        if norm not in NORMS:
            raise ConfigError(
                f"MODEL.RESNETS.NORM '{norm}' is not possible for {PREFIX}{name}, which has norms of its own: use BN "
                "to leave them as they are, FrozenBN to fix its batch norms, or SyncBN."
            )
        self.name = name
        self.wrong_input = ""  # set by who knows the pixels to come: how they differ from what timm's weights expect
        self.padding = padding
        self.net = _build(name)
        infos = list(self.net.feature_info)
        indices = {
            STAGE_OF_STRIDE[info["reduction"]]: i
            for i, info in enumerate(infos)
            if info["reduction"] in STAGE_OF_STRIDE
        }
        missing = [stage for stage in out_features if stage not in indices]
        if missing or not out_features:
            strides = {stage: stride for stride, stage in STAGE_OF_STRIDE.items()}
            has = ", ".join(f"{stage} (stride {strides[stage]})" for stage in sorted(indices)) or "none of them"
            lacks = ", ".join(f"{stage} (stride {strides[stage]})" if stage in strides else repr(stage)
                              for stage in missing) or "an empty list"  # fmt: skip
            raise ConfigError(
                f"{PREFIX}{name} has no feature map {lacks}; it has {has}. Set MODEL.RESNETS.OUT_FEATURES and "
                "MODEL.FPN.IN_FEATURES to what it has, or choose another network."
            )
        self.out_features = tuple(stage for stage in STAGES if stage in out_features)
        self.indices = [indices[stage] for stage in self.out_features]
        self.channels = {stage: infos[i]["num_chs"] for stage, i in zip(self.out_features, self.indices)}
        self.strides = {stage: infos[i]["reduction"] for stage, i in zip(self.out_features, self.indices)}
        # The modules that maps come out of, finest first: where the stem and the stages end, for `freeze`.
        finer = [info.get("module", "") for info in infos if info["reduction"] < min(STAGE_OF_STRIDE)]
        self._before_res2 = finer[-1] if finer else None
        self._ends = {stage: infos[i].get("module", "") for stage, i in indices.items()}
        if hasattr(self.net, "prune_intermediate_layers"):
            self.net.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        self._check_maps()
        _convert_norms(self.net, norm, name)
        if gate != "none":
            insert_gates(
                self, gate, reduction=reduction, bias=gate_bias, norm=gate_norm or norm, stages=gate_stages,
                init=gate_init,
            )  # fmt: skip

    def _check_maps(self) -> None:
        """Refuse a network that cannot take images of any size, or whose maps do not lie over the image's cells."""
        height, width = PROBE
        try:
            with torch.no_grad():
                self.net.eval()
                maps = self(torch.zeros(1, 3, height, width))
        except Exception as error:  # an assertion or a shape of timm's, wherever the network meets it first
            raise ConfigError(
                f"{PREFIX}{self.name} does not take images of {height} x {width} px, and a backbone must take any "
                f"size in multiples of 32 ({type(error).__name__}: {' '.join(str(error).split())[:100]}). Choose "
                "another network."
            ) from error
        finally:
            self.net.train()
        for stage, x in maps.items():
            stride = self.strides[stage]
            if tuple(x.shape[1:]) != (self.channels[stage], height // stride, width // stride):
                raise ConfigError(
                    f"{PREFIX}{self.name} gives {tuple(x.shape[-2:])} cells at stride {stride} for {height} x {width} "
                    "px, as it has convolutions without padding: its maps do not lie over the image as a detector "
                    "needs it. Choose another network."
                )

    def blocks(self) -> list[Branch]:
        """The residual branches that have a gate."""
        return gated_branches(self)

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer, first to last, as timm divides its networks.

        Raises:
            ConfigError: timm does not say how it divides this one.
        """
        if not hasattr(self.net, "group_matcher"):
            raise ConfigError(f"timm does not tell the layers of {PREFIX}{self.name}: set SOLVER.LAYER_DECAY to 1.")
        from timm.models import group_parameters

        names = group_parameters(self.net, self.net.group_matcher(coarse=False))
        return [[self.net.get_parameter(name) for name in names[i]] for i in sorted(names)]

    def freeze(self, freeze_at: int) -> None:
        """Fix the stem (1), what leads to `res2` too (2), `res3` (3), and so on; 0 fixes nothing.

        The stem is what comes before the first layer of `res2`: up to the last map of a finer stride where timm names
        one, else up to the module that `res2` comes out of.

        Raises:
            ConfigError: timm does not say which module a map comes out of.
        """
        if freeze_at < 1:
            return
        order = [name for name, _ in self.net.named_modules()]
        last = self._last_frozen_index(min(freeze_at, len(STAGES) + 1), order)
        for name in order[: last + 1]:
            module = self.net.get_submodule(name)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
            if isinstance(module, BATCH_NORMS):
                parent, _, own = name.rpartition(".")
                setattr(self.net.get_submodule(parent), own, FrozenBatchNormAct2d.from_batch_norm(module))

    def _last_frozen_index(self, freeze_at: int, order: list[str]) -> int:
        """Position in `order`, the modules in the order of registration, of the last one that `freeze` fixes."""

        def positions(module: str | None) -> list[int]:
            return [i for i, name in enumerate(order) if module and (name == module or name.startswith(f"{module}."))]

        if freeze_at > 1:
            stages = [stage for stage in STAGES[: freeze_at - 1] if stage in self._ends]
            inside = positions(self._ends[stages[-1]]) if stages else []
            last = inside[-1] if inside else None
        elif self._before_res2 is not None:
            inside = positions(self._before_res2)
            last = inside[-1] if inside else None
        else:
            inside = positions(self._ends[min(self._ends)])
            last = inside[0] - 1 if inside else None
        if last is None:
            raise ConfigError(
                f"MODEL.BACKBONE.FREEZE_AT {freeze_at} is not possible for {PREFIX}{self.name}: timm does not say "
                "which layers belong to that stage. Use 0."
            )
        return last

    def input_mismatch(self, *, mean: Sequence[float], std: Sequence[float], channels: str) -> str:
        """How the input that timm's weights of this network expect differs from the given one; "" if it does not.

        Args:
            mean, std: MODEL.PIXEL_MEAN and PIXEL_STD, in the order of `channels`.
            channels: INPUT.FORMAT.
        """
        cfg = self.net.pretrained_cfg
        wanted = {
            "INPUT.FORMAT": ("RGB", channels),
            "MODEL.PIXEL_MEAN": ([round(255 * x, 3) for x in cfg["mean"]], list(mean)),
            "MODEL.PIXEL_STD": ([round(255 * x, 3) for x in cfg["std"]], list(std)),
        }
        wrong = [
            f"{key} {published} (it is {given})"
            for key, (published, given) in wanted.items()
            if (published != given if key == "INPUT.FORMAT" else _differ(published, given))
        ]
        return f"timm's weights of {self.name} expect {' and '.join(wrong)}" if wrong else ""

    def marker_key(self) -> str:
        """The name that tells a file of this network's weights: its first parameter's, in timm."""
        return next(iter(self.net.state_dict()))

    def features(
        self, x: torch.Tensor, area: ValidArea | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, ValidArea | None]]:
        """The feature maps by stage, each (N, C, H / stride, W / stride), and None for the area of each."""
        maps = self.net.forward_intermediates(x, indices=self.indices, output_fmt="NCHW", intermediates_only=True)
        return dict(zip(self.out_features, maps)), dict.fromkeys(self.out_features)

    def forward(self, x: torch.Tensor, sizes: Sequence[Sequence[int]] | None = None) -> dict[str, torch.Tensor]:
        """Feature maps of (N, 3, H, W), normalised; `sizes` has no effect, as `padding` is "keep"."""
        return self.features(x)[0]


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """A frozen batch norm followed by what timm's `BatchNormAct2d` has behind it."""

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.drop: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same shape."""
        return self.act(self.drop(super().forward(x)))

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> FrozenBatchNorm2d:
        """The frozen copy of a batch norm, of the plain class where there is no activation behind it."""
        if isinstance(norm, nn.BatchNorm1d):
            raise ConfigError(
                "A batch norm over tokens (BatchNorm1d) cannot be frozen: use MODEL.RESNETS.NORM BN and "
                "MODEL.BACKBONE.FREEZE_AT 0 for this network."
            )
        frozen = cls(norm.num_features, norm.eps) if hasattr(norm, "act") else FrozenBatchNorm2d(
            norm.num_features, norm.eps
        )  # fmt: skip
        if hasattr(norm, "act"):
            frozen.drop, frozen.act = norm.drop, norm.act
        state = {name: t for name, t in norm.state_dict().items() if name != "num_batches_tracked"}
        frozen.load_state_dict(state, strict=False)  # a norm without an affine keeps 1 and 0
        return frozen.to(norm.running_mean.device)


def _differ(published: Sequence[float], given: Sequence[float]) -> bool:
    """Whether any of three values differs by more than half a grey level."""
    return any(abs(a - b) > 0.5 for a, b in zip(published, given))


def _build(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"{PREFIX}{name} needs timm, which is not installed: pip install timm.") from error
    if tuple(map(int, re.findall(r"\d+", timm.__version__)[:3])) < MIN_TIMM:
        raise ConfigError(
            f"{PREFIX}{name} needs timm {'.'.join(map(str, MIN_TIMM))} or newer, and {timm.__version__} is installed: "
            "pip install --upgrade timm."
        )
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(
            f"timm {timm.__version__} has no network '{architecture}'.{suggestion(architecture, timm.list_models())} "
            "timm.list_models() lists all."
        )
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ConfigError(
            f"timm {timm.__version__} has no weights '{tag}' of '{architecture}': leave out what follows the dot, or "
            f"use one of {', '.join(timm.list_pretrained(f'{architecture}.*')) or 'none'}."
        ) from error
    options: tuple[dict[str, Any], ...] = ANY_SIZE if published.fixed_input_size else ({},)
    for option in options:
        try:
            net = timm.create_model(name, pretrained=False, **option)
            break
        except TypeError as error:
            if next(iter(option), "") not in str(error):
                raise
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "feature_info"):
        raise ConfigError(
            f"timm {timm.__version__} gives no feature maps of '{architecture}' (forward_intermediates): choose "
            "another network."
        )
    return net


def _convert_norms(net: nn.Module, norm: str, name: str) -> None:
    if norm == "BN":
        return
    norms = [path for path, m in net.named_modules() if isinstance(m, BATCH_NORMS)]
    if not norms:
        logger.info("%s%s has no batch norm: MODEL.RESNETS.NORM %s has no effect on it.", PREFIX, name, norm)
    elif norm == "SyncBN":
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(net)
    else:
        for path in norms:
            parent, _, own = path.rpartition(".")
            holder = net.get_submodule(parent)
            setattr(holder, own, FrozenBatchNormAct2d.from_batch_norm(getattr(holder, own)))
