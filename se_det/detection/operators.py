"""torchvision's operators of detection, on any device."""

from __future__ import annotations

from torchvision import ops

from ..layers.on_cpu import on_cpu_where_missing

batched_nms = on_cpu_where_missing(ops.batched_nms)
roi_align = on_cpu_where_missing(ops.roi_align)
