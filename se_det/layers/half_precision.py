"""Which devices multiply in half precision."""

from __future__ import annotations

import torch

from ..internals import mkldnn
from ..system import cpu_fields, cpu_flags

# Linux's names of what makes CPUs, x86's and ARM's, multiply in these.
CPU_UNITS = {"bfloat16": {"avx512_bf16", "amx_bf16", "bf16"}, "float16": {"avx512_fp16", "amx_fp16", "asimdhp"}}


def multiplies_in(dtype: str, device: torch.device) -> bool:
    """Whether the device multiplies in "bfloat16" or "float16". A CPU that does not converts, or computes without its
    vectors: training a ResNet-18 under autocast took ten times as long as in float32 on one that has AVX2 alone."""
    if device.type == "cuda" and dtype == "bfloat16":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return True
    if dtype == "bfloat16" and not mkldnn.supports_bfloat16():
        return False
    flags = cpu_flags(cpu_fields())
    return not CPU_UNITS[dtype].isdisjoint(flags) if flags else dtype == "bfloat16"  # other systems than Linux
