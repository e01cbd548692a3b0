"""The semantic head of Panoptic FPN (Kirillov et al., arXiv 1901.02446), with Detectron2's parameter names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..layers.conv import Conv2d
from ..layers.valid_area import ValidArea

Areas = Mapping[str, ValidArea | None]


class SemSegFPNHead(nn.Module):
    """Each map goes through 3 x 3 convolutions and doublings to a common stride; their sum is classified.

    Args:
        in_features: name of each map to its (channels, stride).
        num_classes: K.
        conv_dims: width of the convolutions.
        common_stride: of the sum.
        norm: of the convolutions, "" for none.
        loss_weight: multiplies the loss.
        ignore_value: label of pixels without a loss.

    Raises:
        ConfigError: there is no map, or one is finer than the common stride or not a power of two coarser.
    """

    def __init__(
        self,
        *,
        in_features: Mapping[str, tuple[int, int]],
        num_classes: int,
        conv_dims: int = 128,
        common_stride: int = 4,
        norm: str = "GN",
        loss_weight: float = 1.0,
        ignore_value: int = 255,
    ) -> None:
        super().__init__()
        doublings = {name: math.log2(stride / common_stride) for name, (_, stride) in in_features.items()}
        if not in_features or any(times < 0 or times != int(times) for times in doublings.values()):
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES {list(in_features)} have strides "
                f"{[stride for _, stride in in_features.values()]}: each must be MODEL.SEM_SEG_HEAD.COMMON_STRIDE "
                f"{common_stride} times a power of two."
            )
        self.strides = {name: stride for name, (_, stride) in sorted(in_features.items(), key=lambda item: item[1][1])}
        self.common_stride, self.loss_weight, self.ignore_value = common_stride, loss_weight, ignore_value
        self.num_classes = num_classes
        for name in self.strides:
            channels, layers = in_features[name][0], []
            for _ in range(max(1, int(doublings[name]))):
                layers.append(Conv2d(channels, conv_dims, 3, padding=1, norm=norm))
                channels = conv_dims
                if doublings[name]:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(name, nn.Sequential(*layers))
        self.predictor = nn.Conv2d(conv_dims, num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def inference_parts(self) -> list[nn.Module]:
        """All but the layer of scores."""
        return [getattr(self, name) for name in self.strides]

    def forward(self, maps: Mapping[str, torch.Tensor], areas: Areas) -> torch.Tensor:
        """Logits float32 (N, K, H, W) of the padded batch.

        Args:
            maps: (N, C, H / stride, W / stride) by name.
            areas: of each map; under padding "exact" nothing outside an image is looked at.
        """
        return self.enlarged(self.coarse(maps, areas))

    def enlarged(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits at the common stride (N, K, h, w) in the size of the batch."""
        return F.interpolate(logits, scale_factor=float(self.common_stride), mode="bilinear", align_corners=False)

    def coarse(self, maps: Mapping[str, torch.Tensor], areas: Areas) -> torch.Tensor:
        """`forward` at the common stride: (N, K, H / stride, W / stride)."""
        exact = {
            stride: areas[name]
            for name, stride in self.strides.items()
            if areas[name] is not None and areas[name].exact
        }
        total, area = None, None
        for name, stride in self.strides.items():
            x, here = self._scaled(getattr(self, name), maps[name], stride, exact)
            if total is None:
                total, area = x, here
            else:
                # A map of an odd number of cells is larger when it was halved and doubled.
                total = total + x[..., : total.shape[-2], : total.shape[-1]]
        logits = self.predictor(total.to(self.predictor.weight.dtype))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if area is None else area.replicate_edge(logits)

    def _scaled(
        self, layers: nn.Sequential, x: torch.Tensor, stride: int, exact: Mapping[int, ValidArea]
    ) -> tuple[torch.Tensor, ValidArea | None]:
        """A map at the common stride, and where each image lies on it."""
        area = exact.get(stride)
        for layer in layers:
            if isinstance(layer, Conv2d):
                x = layer.forward_relu(x, area)
                continue
            stride //= 2
            x = layer(x if area is None else area.replicate_edge(x))
            if area is not None:
                area = exact.get(stride) or area.doubled()
        return x, area

    def loss(self, logits: torch.Tensor, labels: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Cross-entropy, averaged over all labelled pixels of the batch; a zero that keeps the graph without any.

        Args:
            logits: of `forward`.
            labels: integers (h, w) of each image, `ignore_value` for none.
        """
        target = self.padded_labels(logits, labels)
        total = F.cross_entropy(logits, target, reduction="sum", ignore_index=self.ignore_value)
        count = (target != self.ignore_value).sum().clamp(min=1)
        return {"loss_sem_seg": total / count * self.loss_weight}

    def padded_labels(self, logits: torch.Tensor, labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """The labels of all images in the size of their logits (N, K, H, W): int64 (N, H, W)."""
        target = torch.full(
            (len(labels), *logits.shape[-2:]), self.ignore_value, dtype=torch.int64, device=logits.device
        )
        for row, one in zip(target, labels):
            row[: one.shape[0], : one.shape[1]] = one.to(logits.device, non_blocking=True)
        return target


def pixel_labels(sem_seg: torch.Tensor) -> torch.Tensor:
    """The class of each pixel (H, W): of logits (K, H, W), or of what an exported network has decided already."""
    return sem_seg.argmax(0) if sem_seg.ndim == 3 else sem_seg


def resize_logits(logits: torch.Tensor, size: tuple[int, int], height: int, width: int) -> torch.Tensor:
    """The logits (K, H, W) of an image of `size` (height, width), without its padding, in another size; bilinear."""
    logits = logits[None, :, : size[0], : size[1]]
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[0]
