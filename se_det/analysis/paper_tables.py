"""The costs that papers report, as data, and a comparison with the networks here.

Multiply-adds are as the papers report them, in G at 224 x 224 px with 1000 classes; their conventions differ.
Parameters are exact counts where the authors' definitions give one, else in M with the digits printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..backbones import create_model, list_models
from .cost import count_multiply_adds

SE_PAPER = "Hu et al., arXiv 1709.01507"
SP_RG_PAPER = "Jin et al., Pattern Recognition 121 (2022) 108159"
AUTHORS_CODE = "counted from the authors' definition"
# The papers' ResNets have the stride in the first 1x1 unless they say otherwise.
IN_1X1 = {"stride_in_1x1": True}


@dataclass(frozen=True)
class ReportedCost:
    """The reported cost of a network.

    Args:
        model: name in the catalog.
        options: arguments that make the catalog's network the reported one.
        parameters: an exact count (int), or millions as printed (float).
        multiply_adds: in G, as printed.
        source: source of the multiply-adds, or of the parameters if only those are reported.
    """

    model: str
    source: str
    multiply_adds: float | None = None
    parameters: int | float | None = None
    options: dict[str, Any] = field(default_factory=dict)


def _table() -> list[ReportedCost]:
    gates = ("", "se_", "cbam_", "sp_se_", "rg_se_")
    reported = {
        "resnet50": (3.86, 3.87, 3.90, 3.88, 3.87),
        "resnet101": (7.58, 7.60, 7.64, 7.62, 7.60),
        "resnet152": (11.30, 11.32, 11.39, 11.36, 11.32),
        "resnext50_32x4d": (3.89, 3.90, 3.93, 3.91, 3.90),
        "resnext101_32x4d": (7.63, 7.65, 7.69, 7.67, 7.65),
    }
    counts = {
        "resnet50": (25_557_032, 28_088_024, 28_089_624, 28_480_728, 28_212_440),
        "resnet101": (44_549_160, 49_326_872, 49_330_172, 50_172_184, 49_555_736),
        "resnet152": (60_192_808, 66_821_848, None, 68_066_520, 67_167_448),
        "resnext50_32x4d": (25_028_904, 27_559_896, None, 27_952_600, 27_684_312),
        "resnext101_32x4d": (44_177_704, 48_955_416, None, 49_800_728, 49_184_280),
    }
    rows = [
        ReportedCost(f"{gate}{host}", SP_RG_PAPER, reported[host][i], counts[host][i], IN_1X1)
        for host in reported
        for i, gate in enumerate(gates)
    ]
    rows += [
        ReportedCost("se_resnet50", "as released, stride in the 3x3", 4.13, 28_088_024),
        ReportedCost("se_resnet101", "as released, stride in the 3x3", 7.86, 49_326_872),
        ReportedCost("resnet18", AUTHORS_CODE, parameters=11_689_512),
        ReportedCost("se_resnet18", AUTHORS_CODE, parameters=11_778_592),
        ReportedCost("resnet34", AUTHORS_CODE, parameters=21_797_672),
        ReportedCost("se_resnet34", AUTHORS_CODE, parameters=21_958_868),
        ReportedCost("senet154", AUTHORS_CODE, parameters=115_088_984),
        ReportedCost("se_bn_inception", AUTHORS_CODE, parameters=11_931_622),
    ]
    reductions = {2: 45.7, 4: 35.7, 8: 30.7, 16: 28.1, 32: 26.9}
    rows += [
        ReportedCost("se_resnet50", f"{SE_PAPER}, ablation of the reduction", parameters=millions,
                  options={"reduction": r})
        for r, millions in reductions.items()
    ]  # fmt: skip
    return rows


REPORTED_COSTS = _table()


def compare_with_papers(pattern: str = "*") -> list[dict[str, Any]]:
    """Compare each reported network whose name matches with the catalog's: a row each.

    Columns: model, options, parameters and multiply_adds (here), *_published, *_difference (of parameters: here less
    published, in M to the digit printed where millions were printed; of multiply-adds: in percent) and source.
    """
    rows = []
    for entry in REPORTED_COSTS:
        if entry.model not in list_models(pattern):
            continue
        parameters, multiply_adds = _count(entry)
        published = entry.multiply_adds
        rows.append({
            "model": entry.model,
            "options": " ".join(f"{name}={value}" for name, value in entry.options.items()),
            "parameters": parameters,
            "parameters_published": entry.parameters,
            "parameters_difference": _difference(parameters, entry.parameters),
            "multiply_adds": multiply_adds,
            "multiply_adds_published": None if published is None else round(published * 1e9),
            "multiply_adds_difference": None if published is None
            else f"{100 * (multiply_adds / published / 1e9 - 1):+.1f} %",
            "source": entry.source,
        })  # fmt: skip
    return rows


def _count(entry: ReportedCost) -> tuple[int, int]:
    with torch.device("meta"), torch.no_grad():
        model = create_model(entry.model, **entry.options).train()  # the formula as it stands: see `measure`
        multiply_adds = count_multiply_adds(model, torch.empty(2, 3, 224, 224)) // 2
    return sum(p.numel() for p in model.parameters()), multiply_adds


def _difference(here: int, published: int | float | None) -> int | float | None:
    if published is None:
        return None
    return here - published if isinstance(published, int) else round(round(here / 1e6, 1) - published, 1)
