"""What weights need from the network and the input, and no key or shape tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

RGB_MEAN, RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class WeightConventions:
    """Each is None where it is not known, or does not matter.

    Attributes:
        stride_in_1x1: a strided bottleneck has its stride in the first 1 x 1 convolution, not in the 3 x 3.
        stem_pool: "pad1" or "ceil", see `BasicStem`.
        branch_relu: basic blocks have a ReLU before their gate.
        input_format: "BGR" or "RGB".
        pixel_mean, pixel_std: in the order of `input_format`, on the 0..255 scale.
        class_order: "standard" (the synsets sorted), or "caffe" (the SENet authors' order of the same classes).
    """

    stride_in_1x1: bool | None = None
    stem_pool: str | None = None
    branch_relu: bool | None = None
    input_format: str | None = None
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    class_order: str | None = None

    def plain(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items() if v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WeightConventions:
        """From what `plain` gives; keys that are not facts are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items() if k in known})


def differences(one: WeightConventions, other: WeightConventions) -> list[str]:
    """The names of the facts that both know and that differ, means and standard deviations beyond rounding."""
    return [
        field.name
        for field in fields(WeightConventions)
        if (a := getattr(one, field.name)) is not None
        and (b := getattr(other, field.name)) is not None
        and not (is_close(a, b) if isinstance(a, tuple) else a == b)
    ]


def is_close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two means or standard deviations are the same but for rounding: 104, 117, 123 is 103.53, 116.28, 123.675
    in the Caffe programs."""
    return len(one) == len(other) and all(abs(a - b) <= 1.0 + 1e-6 for a, b in zip(one, other))


def is_grouped(tensors: Mapping[str, torch.Tensor]) -> bool | None:
    """Whether bottlenecks have grouped 3 x 3 convolutions, by a trunk's tensors under our names; None without any."""
    for name, tensor in tensors.items():
        if name.endswith("res2.0.conv2.weight"):
            before = tensors.get(name.replace("conv2", "conv1"))
            if before is None or name.replace("conv2", "conv3") not in tensors:
                return None
            return tensor.shape[1] != before.shape[0]
    return None
