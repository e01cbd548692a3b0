"""Families of PyTorch programs: residual networks whose keys differ in spelling only."""

from __future__ import annotations

from dataclasses import replace

from .conventions import RGB_MEAN, RGB_STD, WeightConventions
from .family import Family, Tensors
from .rules import AS_CONVOLUTION, Change, Rule

MODERN = WeightConventions(False, "pad1", False, "RGB", RGB_MEAN, RGB_STD, "standard")


def _modern(grouped: bool | None) -> WeightConventions:
    return MODERN


def _cadene(grouped: bool | None) -> WeightConventions:
    # SE-ResNet has the stride in the first 1 x 1, SE-ResNeXt and SENet-154 in the 3 x 3. timm's networks of basic
    # blocks have a ReLU that no other has.
    stride = None if grouped is None else not grouped
    return replace(MODERN, stride_in_1x1=stride, stem_pool="ceil", branch_relu=grouped is None)


def _trunk(before: str = "") -> tuple[Rule, ...]:
    """The trunk as torchvision names it."""
    block = f"{before}layer{{i}}.{{b}}."
    return (
        Rule("res{s}.{b}.conv{k}.weight", block + "conv{k}.weight"),
        Rule("res{s}.{b}.conv{k}.norm.{stat}", block + "bn{k}.{stat}"),
        Rule("res{s}.{b}.shortcut.weight", block + "downsample.0.weight"),
        Rule("res{s}.{b}.shortcut.norm.{stat}", block + "downsample.1.{stat}"),
    )


def _gate(first: str, second: str, *, convolutions: bool) -> tuple[Rule, ...]:
    """An SE gate whose layers are `first` and `second` below the block."""
    change = AS_CONVOLUTION if convolutions else None
    return tuple(
        Rule(f"res{{s}}.{{b}}.gate.{ours}.{end}", f"{theirs}.{end}", change if end == "weight" else None)
        for ours, theirs in (("fc1", first), ("fc2", second))
        for end in ("weight", "bias")
    )


TRUNK = r"(conv1|bn1|layer\d|features)\b"
STEM = (
    Rule("stem.conv1.weight", "conv1.weight", stem=1),
    Rule("stem.conv1.norm.{stat}", "bn1.{stat}", stem=1),
)
HEAD = Rule("linear.{wb}", "fc.{wb}")


def _vgg() -> tuple[Rule, ...]:
    """The convolutions of VGG-16 with their biases and norms, as torchvision and timm number them."""
    layers = [f"stem.conv{k}" for k in (1, 2, 3, 4)] + [f"{stage}.conv{k}" for stage in VGG_STAGES for k in (1, 2, 3)]
    rules = []
    for ours, place in zip(layers, (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)):
        rules.append(Rule(f"{ours}.{{wb}}", f"features.{place}.{{wb}}", stem=4))
        rules.append(Rule(f"{ours}.norm.{{stat}}", f"features.{place + 1}.{{stat}}", stem=4))
    return tuple(rules)


VGG_STAGES = ("res2", "res3", "res4")
VGG_TRUNK = _vgg()
SEVEN_BY_SEVEN = Change(lambda t: t.flatten(1), lambda t: t.reshape(len(t), -1, 7, 7))
AVERAGED_SHORTCUT = (r"\.downsample\.2\.", "shortcuts with an average pooling (ResNet-D)")
# Whatever a block of a plain network does not have.
PLAIN_ONLY = (r"^layer\d\.\d+\.(?!conv[123]\.|bn[123]\.|downsample\.)",)

TORCHVISION = Family(
    name="torchvision",
    about="torchvision's ResNet, ResNeXt and VGG-16, and whatever has their keys (timm's plain ones)",
    marker_keys=(r"^(conv1|features\.0)\.weight$", r"^layer1\.0\.conv1\.weight$|^classifier\.6\.weight$"),
    forbidden_keys=(*PLAIN_ONLY, r"\.downsample\.2\."),
    rules=(
        *STEM,
        *_trunk(),
        *VGG_TRUNK,
        Rule("hidden1.{wb}", "classifier.0.{wb}", stem=4),
        Rule("hidden2.{wb}", "classifier.3.{wb}", stem=4),
        Rule("linear.{wb}", "classifier.6.{wb}", stem=4),
        HEAD,
    ),
    facts=_modern,
    trunk=TRUNK,
)

TIMM = Family(
    name="timm",
    about="timm's ResNet, ResNeXt, SE-ResNet and SE-ResNeXt (resnet.py), and VGG-16",
    marker_keys=(
        r"^layer1\.0\.conv1\.weight$|^features\.0\.weight$",
        r"\.se\.fc1\.|^conv1\.0\.weight$|\.downsample\.2\.|^pre_logits\.fc1\.weight$",
    ),
    forbidden_keys=(r"\.se\.fc\.0\.", r"^layer0\."),
    rules=(
        *STEM,
        Rule("stem.conv1.weight", "conv1.0.weight", stem=3),
        Rule("stem.conv1.norm.{stat}", "conv1.1.{stat}", stem=3),
        Rule("stem.conv2.weight", "conv1.3.weight", stem=3),
        Rule("stem.conv2.norm.{stat}", "conv1.4.{stat}", stem=3),
        Rule("stem.conv3.weight", "conv1.6.weight", stem=3),
        Rule("stem.conv3.norm.{stat}", "bn1.{stat}", stem=3),
        *_trunk(),
        *_gate("layer{i}.{b}.se.fc1", "layer{i}.{b}.se.fc2", convolutions=True),
        *VGG_TRUNK,
        Rule("hidden1.weight", "pre_logits.fc1.weight", SEVEN_BY_SEVEN, 4),
        Rule("hidden1.bias", "pre_logits.fc1.bias", stem=4),
        Rule("hidden2.weight", "pre_logits.fc2.weight", AS_CONVOLUTION, 4),
        Rule("hidden2.bias", "pre_logits.fc2.bias", stem=4),
        Rule("linear.{wb}", "head.fc.{wb}", stem=4),
        HEAD,
    ),
    facts=_modern,
    trunk=TRUNK,
    foreign=(AVERAGED_SHORTCUT,),
    like=("torchvision",),
)

PYTORCHINSIGHT = Family(
    name="pytorchinsight",
    about="PytorchInsight's SE-ResNet",
    marker_keys=(r"^conv1\.weight$", r"\.se\.fc\.0\.weight$"),
    rules=(*STEM, *_trunk(), *_gate("layer{i}.{b}.se.fc.0", "layer{i}.{b}.se.fc.2", convolutions=False), HEAD),
    facts=_modern,
    prefix="module.",
    like=("torchvision",),
)

CADENE = Family(
    name="cadene",
    about="Cadene's pretrainedmodels: SE-ResNet, SE-ResNeXt, SENet-154",
    marker_keys=(r"^layer0\.conv1\.weight$", r"^layer1\.0\.conv3\.weight$"),
    rules=(
        Rule("stem.conv{k}.weight", "layer0.conv{k}.weight"),
        Rule("stem.conv{k}.norm.{stat}", "layer0.bn{k}.{stat}"),
        *_trunk(),
        *_gate("layer{i}.{b}.se_module.fc1", "layer{i}.{b}.se_module.fc2", convolutions=True),
        Rule("linear.{wb}", "last_linear.{wb}"),
    ),
    facts=_cadene,
    trunk=r"layer\d\b",
    like=("timm_legacy",),
)

# The same code: timm took it over, and added the networks of basic blocks.
TIMM_LEGACY = replace(
    CADENE,
    name="timm_legacy",
    about="timm's legacy_seresnet*, legacy_seresnext*, legacy_senet154 (senet.py)",
    marker_keys=(r"^layer0\.conv1\.weight$", r"^layer1\.0\.conv1\.weight$"),
    forbidden_keys=(r"^layer1\.0\.conv3\.weight$",),
    like=("cadene",),
)

MMPRETRAIN = Family(
    name="mmpretrain",
    about="mmpretrain's (mmcls') ResNet, ResNeXt and SE-ResNet in the style pytorch",
    marker_keys=(r"^backbone\.conv1\.weight$", r"^backbone\.layer1\.0\.conv1\.weight$"),
    forbidden_keys=(r"^neck\.lateral_convs\.",),  # mmdetection's
    rules=(
        Rule("stem.conv1.weight", "backbone.conv1.weight"),
        Rule("stem.conv1.norm.{stat}", "backbone.bn1.{stat}"),
        *_trunk("backbone."),
        *_gate(
            "backbone.layer{i}.{b}.se_layer.conv1.conv", "backbone.layer{i}.{b}.se_layer.conv2.conv", convolutions=True
        ),
        Rule("linear.{wb}", "head.fc.{wb}"),
    ),
    facts=_modern,
    trunk=r"backbone\.(conv1|bn1|layer\d)\b",
    foreign=(AVERAGED_SHORTCUT,),
)


def _name_sp_norms(tensors: Tensors) -> Tensors:
    """The norm of a gate is `fc_spatial.bn_spatial` in RG-SE and `fc_bn` in SP-SE, which has three convolutions."""
    named = {}
    for key, tensor in tensors.items():
        block = key.split("fc_spatial.bn_spatial.")[0]
        named[key.replace("fc_spatial.bn_spatial.", "fc_bn.") if block + "fc_spatial1.weight" in tensors else key] = (
            tensor
        )
    return named


_SP_RG = "layer{i}.layer{i}_block_{b}."
SP_RG = Family(
    name="sp_rg",
    about="the script of the authors of SP-SE and RG-SE",
    marker_keys=(r"^layer1\.layer1_block_0\.conv_conv1\.weight$",),
    rules=(
        *STEM,
        Rule("res{s}.{b}.conv{k}.weight", _SP_RG + "conv_conv{k}.weight"),
        Rule("res{s}.{b}.conv{k}.norm.{stat}", _SP_RG + "bn_bn{k}.{stat}"),
        Rule("res{s}.{b}.shortcut.weight", _SP_RG + "shortcut.shortcut_conv.weight"),
        Rule("res{s}.{b}.shortcut.norm.{stat}", _SP_RG + "shortcut.shortcut_bn.{stat}"),
        Rule("res{s}.{b}.gate.fc1.{wb}", _SP_RG + "fc_reduction.{wb}"),
        Rule("res{s}.{b}.gate.fc2.{wb}", _SP_RG + "fc_extention.{wb}"),
        Rule("res{s}.{b}.gate.dw.weight", _SP_RG + "fc_spatial.fc_spatial.weight"),
        Rule("res{s}.{b}.gate.dw1.{wb}", _SP_RG + "fc_spatial1.{wb}"),
        Rule("res{s}.{b}.gate.dw2.{wb}", _SP_RG + "fc_spatial2.{wb}"),
        Rule("res{s}.{b}.gate.dw4.{wb}", _SP_RG + "fc_spatial4.{wb}"),
        Rule("res{s}.{b}.gate.norm.{stat}", _SP_RG + "fc_spatial.bn_spatial.{stat}"),
        Rule("res{s}.{b}.gate.norm.{stat}", _SP_RG + "fc_bn.{stat}"),
        HEAD,
    ),
    facts=_modern,
    prefix="module.",
    pack=_name_sp_norms,
)
