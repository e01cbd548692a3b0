"""The mask head of Mask R-CNN (He et al., arXiv 1703.06870): convolutions, upsampling, one mask per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d


class MaskHead(nn.Sequential):
    """Convolutions, a deconvolution that doubles the resolution, and a 1 x 1 predictor.

    Args:
        in_channels: of the pooled features.
        num_classes: K.
        conv_dims: widths of the convolutions, then of the deconvolution.
        norm: norm of the convolutions.
        class_agnostic: one mask for all classes.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        conv_dims: Sequence[int],
        norm: str = "",
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        channels = in_channels
        for number, dim in enumerate(conv_dims[:-1], start=1):
            self.add_module(f"mask_fcn{number}", Conv2d(channels, dim, 3, padding=1, norm=norm))
            self.add_module(f"relu{number}", nn.ReLU(inplace=True))
            channels = dim
        self.deconv = nn.ConvTranspose2d(channels, conv_dims[-1], 2, stride=2)
        self.add_module("deconv_relu", nn.ReLU(inplace=True))
        self.predictor = nn.Conv2d(conv_dims[-1], 1 if class_agnostic else num_classes, 1)
        for layer in self:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)

    def select_class(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """The masks (n, M, M) of the given classes (n,) out of logits (n, K or 1, M, M)."""
        if logits.shape[1] == 1:
            return logits[:, 0]
        side = logits.shape[-1]
        return logits.gather(1, classes[:, None, None, None].expand(-1, 1, side, side))[:, 0]

    def loss(self, x: torch.Tensor, classes: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Binary cross-entropy averaged over all cells of the positive boxes' masks.

        Args:
            x: (n, C, R, R) pooled features of the positive boxes; n may be 0.
            classes: (n,).
            targets: (n, 2 R, 2 R) of 0 and 1.
        """
        logits = self(x)
        if len(classes) == 0:
            return {"loss_mask": logits.sum() * 0.0}
        logits = self.select_class(logits, classes)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return {"loss_mask": F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))}
