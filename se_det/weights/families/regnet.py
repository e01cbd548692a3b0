"""RegNets of Detectron2 and of torchvision."""

from __future__ import annotations

from dataclasses import replace

from .family import Family
from .pytorch import HEAD, MODERN
from .rules import AS_CONVOLUTION, Rule

# A block's layers: ours, and theirs with their norms.
_DETECTRON2 = {"conv1": ("f.a", "f.a_bn"), "conv2": ("f.b", "f.b_bn"), "conv3": ("f.c", "f.c_bn"),
               "shortcut": ("proj", "bn")}  # fmt: skip
_TORCHVISION = {"conv1": ("f.a.0", "f.a.1"), "conv2": ("f.b.0", "f.b.1"), "conv3": ("f.c.0", "f.c.1"),
                "shortcut": ("proj.0", "proj.1")}  # fmt: skip


def _regnet(
    block: str, layers: dict[str, tuple[str, str]], gate: tuple[str, str], stem: tuple[str, str], prefix: str = ""
) -> tuple[Rule, ...]:
    """A trunk that both have under `prefix`; `block` is theirs, `gate` and `stem` the layers of these."""
    ours = f"{prefix}res{{s}}.{{b}}."
    return (
        Rule(f"{prefix}stem.conv1.weight", f"{prefix}{stem[0]}.weight"),
        Rule(f"{prefix}stem.conv1.norm.{{stat}}", f"{prefix}{stem[1]}.{{stat}}"),
        *(Rule(f"{ours}{mine}.weight", f"{prefix}{block}{conv}.weight") for mine, (conv, _) in layers.items()),
        *(Rule(f"{ours}{mine}.norm.{{stat}}", f"{prefix}{block}{norm}.{{stat}}") for mine, (_, norm) in layers.items()),
        *(
            Rule(
                f"{ours}gate.{mine}.{end}",
                f"{prefix}{block}{theirs}.{end}",
                AS_CONVOLUTION if end == "weight" else None,
            )
            for mine, theirs in zip(("fc1", "fc2"), gate)
            for end in ("weight", "bias")
        ),
    )


DETECTRON2_REGNET = Family(
    name="detectron2_regnet",
    about="Detectron2's RegNets, alone or in a detector, and pycls's, whose names they are",
    marker_keys=(r"(^|\.)stem\.conv\.weight$", r"(^|\.)s1\.b1\.f\.a\.weight$"),
    rules=(
        *(
            rule
            for prefix in ("", "backbone.bottom_up.")
            for rule in _regnet(
                "s{i}.b{n}.", _DETECTRON2, ("f.se.f_ex.0", "f.se.f_ex.2"), ("stem.conv", "stem.bn"), prefix
            )
        ),
        Rule("linear.{wb}", "head.fc.{wb}"),
    ),
    trunk=r"(backbone\.bottom_up\.)?(stem|s\d)\b",
)
TORCHVISION_REGNET = Family(
    name="torchvision_regnet",
    about="torchvision's RegNets",
    marker_keys=(r"^stem\.0\.weight$", r"^trunk_output\.block1\.block1-0\.f\.a\.0\.weight$"),
    rules=(
        *_regnet("trunk_output.block{i}.block{i}-{b}.", _TORCHVISION, ("f.se.fc1", "f.se.fc2"), ("stem.0", "stem.1")),
        HEAD,
    ),
    facts=lambda grouped: replace(MODERN, stride_in_1x1=None, stem_pool=None, branch_relu=None),
    trunk=r"(stem|trunk_output)\b",
)
