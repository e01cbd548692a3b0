"""The keypoint head of Mask R-CNN (He et al., arXiv 1703.06870, section 5): a heat map per keypoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..layers.conv import Conv2d
from ..layers.tracing import is_traced


class KeypointHead(nn.Sequential):
    """Convolutions, a deconvolution and bilinear upsampling, each of which doubles the resolution (Detectron2's
    KRCNNConvDeconvUpsampleHead).

    Args:
        in_channels: of the pooled features.
        num_keypoints: K.
        conv_dims: widths of the convolutions.
        loss_weight: factor of the loss.
        loss_normaliser: what the loss is divided by, for each image; None: the number of keypoints that it is of.
    """

    scale = 4  # cells of a heat map for a cell of the pooled features, a side

    def __init__(
        self,
        *,
        in_channels: int,
        num_keypoints: int,
        conv_dims: Sequence[int],
        loss_weight: float = 1.0,
        loss_normaliser: float | None = None,
    ) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.loss_weight, self.loss_normaliser = loss_weight, loss_normaliser
        channels = in_channels
        for number, dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv_fcn{number}", Conv2d(channels, dim, 3, padding=1))
            self.add_module(f"conv_fcn_relu{number}", nn.ReLU(inplace=True))
            channels = dim
        self.score_lowres = nn.ConvTranspose2d(channels, num_keypoints, 4, stride=2, padding=1)
        for layer in self:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C, R, R) to logits (n, K, 4 R, 4 R), in float32 at least."""
        x = super().forward(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # An exported graph always has a box.
        if not is_traced() and len(x) == 0:
            return self._none(x)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    def _none(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(0, x.shape[1], 2 * x.shape[2], 2 * x.shape[3]) + x.sum()

    def loss(self, x: torch.Tensor, cells: torch.Tensor, at: torch.Tensor, images: int) -> dict[str, torch.Tensor]:
        """Cross-entropy over the cells of each heat map, of labelled keypoints.

        Args:
            x: (n, C, R, R) pooled features of the positive boxes; n may be 0.
            cells: (v,) the cells that the labelled keypoints are in.
            at: (v,) these keypoints, counted box by box: box * K + keypoint.
            images: of the batch.
        """
        logits = self(x)
        if len(cells) == 0:
            return {"loss_keypoint": logits.sum() * 0.0}
        total = F.cross_entropy(logits.flatten(2).flatten(0, 1)[at], cells, reduction="sum")
        normaliser = len(cells) if self.loss_normaliser is None else images * self.loss_normaliser
        return {"loss_keypoint": total / normaliser * self.loss_weight}
