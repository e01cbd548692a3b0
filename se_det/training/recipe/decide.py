"""The recipe: what facts of data, machine and goal make of a base config. A pure function, a step for a group of keys.

Its numbers come from the trials in docs/recipe.md, unless a comment names another source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode

from ...config.loading import get_key, load_config, set_key, shipped_config
from ...config.provenance import key_source
from ...config.resolution import Decision
from ...detection.registry import model_facts
from ...weights.shipped import SHIPPED
from .anchors import fitting_anchors
from .facts import DataFacts, MachineFacts

SOURCE = "the recipe"
SMALL = "starter.yaml"  # the base config that is trained in minutes, from weights that come with se_det
SCRATCH = "quickstart.yaml"  # the same network from random weights
MEDIUM = "faster_rcnn_se_r18_fpn.yaml"  # the one that starts from ImageNet weights on a CPU
LARGE = "faster_rcnn_se_r50_fpn.yaml"  # and on an accelerator
LEAST_RECALL = 0.95  # of the anchors as they are; below, others are chosen
ENOUGH = 8000  # images to be seen before more pixels of each bring more
LARGE_OBJECTS = 32  # px
FEW_OBJECTS = 10  # in an image
SMALLEST = 11  # px: an object this size still overlaps a 16 px anchor by half
LEAST_WINDOW = 128  # px
SHORT_SIDES = {"scratch": (168, 224, 288, 352, 448), "cpu": (256, 320, 400, 512, 640), "gpu": (400, 512, 640, 800)}
IMBALANCE = 10  # commonest class over rarest, in images, from which images are repeated
SECONDS_AROUND = 25  # importing, reading and checking; a trial of a step; the report
LONGER = 1.1  # a step of the run than one that was tried: images of new sizes come up, checkpoints are written
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
# Keys that make another network of SMALL, which its weights do not fit.
NETWORK = (
    "MODEL.BACKBONE.NAME", "MODEL.RESNETS.DEPTH", "MODEL.RESNETS.NORM", "MODEL.RESNETS.STEM_OUT_CHANNELS",
    "MODEL.RESNETS.RES2_OUT_CHANNELS", "MODEL.RESNETS.NUM_GROUPS", "MODEL.RESNETS.WIDTH_PER_GROUP",
    "MODEL.RESNETS.STEM_POOL", "MODEL.RESNETS.BRANCH_RELU", "MODEL.GATE.NAME", "MODEL.GATE.REDUCTION",
    "MODEL.GATE.BIAS", "MODEL.GATE.STAGES", "MODEL.GATE.PLACEMENT", "MODEL.FPN.OUT_CHANNELS", "MODEL.FPN.NORM",
    "MODEL.ROI_BOX_HEAD.FC_DIM", "MODEL.ROI_BOX_HEAD.NUM_FC", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME",
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What the user asks for.

    Attributes:
        task: "boxes", "masks" or "keypoints".
        minutes: the whole run may take, its evaluations included; None: `epochs` counts.
        epochs: passes over the training images; None: the recipe chooses.
    """

    task: str = "boxes"
    minutes: float | None = None
    epochs: float | None = None


class Choices:
    """Decisions about a config so far; a key that the user set stays as it is."""

    def __init__(self, cfg: CfgNode) -> None:
        self.asked = cfg
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.made: list[Decision] = []

    def set(self, reason: str, **values: Any) -> None:
        """Decide keys, whose dots are written as double underscores."""
        for name, value in values.items():
            key = name.replace("__", ".")
            if key_source(self.asked, key) is not None:
                continue
            set_key(self.cfg, key, value)
            self.made = [d for d in self.made if d.key != key]
            self.made.append(Decision(key, value, SOURCE, reason))

    def forget(self, *keys: str) -> None:
        """Take decisions about keys back."""
        for key in keys:
            set_key(self.cfg, key, get_key(self.asked, key))
        self.made = [d for d in self.made if d.key not in keys]

    def get(self, key: str) -> Any:
        return get_key(self.cfg, key)


def base_config(device: str, at_hand: Callable[[str], bool]) -> str:
    """The shipped config that a training of unknown data begins with.

    Args:
        device: its type, such as "cpu".
        at_hand: whether the weights that a config names can be had.
    """
    name = MEDIUM if device == "cpu" else LARGE
    return name if at_hand(str(load_config(shipped_config(name)).MODEL.WEIGHTS)) else SMALL


def decide(
    cfg: CfgNode,
    data: DataFacts,
    machine: MachineFacts,
    goal: Goal,
    *,
    seconds: Callable[[CfgNode], float] | None = None,
    in_windows: Callable[[CfgNode], DataFacts] | None = None,
) -> list[Decision]:
    """The keys that facts and goal decide, each with its reason.

    Args:
        cfg: the base config, with what the user set.
        seconds: how long a step of a config takes, measured; it is asked last. None: epochs give the length.
        in_windows: the facts of the data as the windows of a config's INPUT.TILE show it; None: of whole images alone.
    """
    choices = Choices(cfg)
    _decide_start(choices, machine)
    # Those that come with se_det have seen no photo: what follows is as from random weights, from a better beginning.
    weights = str(choices.get("MODEL.WEIGHTS"))
    pretrained = bool(weights) and not weights.startswith(SHIPPED)
    sides = SHORT_SIDES[("cpu" if machine.device == "cpu" else "gpu") if pretrained else "scratch"]
    if in_windows is not None and goal.task != "keypoints" and _decide_tiles(choices, data, sides):
        data = in_windows(choices.cfg)
    _decide_task(choices, data, goal, pretrained)
    needed = next((side for side in sides if data.size(0.1) * side >= SMALLEST), sides[-1])
    _decide_size(choices, data, needed, pretrained)
    _decide_network(choices, data, pretrained)
    _decide_anchors(choices, data)
    _decide_data(choices, data, machine)
    _decide_optimizer(choices, data, machine, pretrained)
    per_step = None
    if goal.minutes is not None and seconds is not None:
        per_step = seconds(choices.cfg)
        per_step *= _enlarge(choices, data, [side for side in sides if side > needed], per_step, goal, pretrained)
    _decide_length(choices, data, goal, pretrained, per_step)
    return choices.made


def _decide_start(choices: Choices, machine: MachineFacts) -> None:
    choices.set(f"the accelerator is {machine.device}", MODEL__DEVICE=machine.device)
    weights = str(choices.get("MODEL.WEIGHTS"))
    if weights.startswith(SHIPPED):
        changed = next((key for key in NETWORK if key_source(choices.asked, key) is not None), None)
        if changed is not None:
            choices.set(
                f"{changed} makes another network than the one whose weights come with se_det", MODEL__WEIGHTS=""
            )
    elif weights and not machine.weights:
        choices.set(
            "the pretrained weights are neither here nor can be fetched: everything is trained from the start",
            MODEL__WEIGHTS="", MODEL__BACKBONE__FREEZE_AT=0, MODEL__RESNETS__NORM="GN", MODEL__FPN__NORM="GN",
        )  # fmt: skip


def _decide_tiles(choices: Choices, data: DataFacts, sides: Sequence[int]) -> bool:
    """Windows, where small objects would not be found in whole images at any size that is trained at; whether there are
    any."""
    small, asked = data.size(0.1), choices.asked
    by_user = [key for key in ("INPUT.TILE.SIZE", "TEST.TILE.SIZE") if key_source(asked, key) is not None]
    if by_user == ["INPUT.TILE.SIZE"] and asked.INPUT.TILE.SIZE:
        choices.set("training is on such windows", TEST__TILE__SIZE=asked.INPUT.TILE.SIZE)
    elif not by_user and small and small * sides[-1] < SMALLEST and data.short_side > sides[-1]:
        # Resized to the middle one of the sizes, half as large again as they must be.
        side, pixels = sides[len(sides) // 2], small * data.short_side
        size = min(max(32 * round(side * pixels / (1.5 * SMALLEST) / 32), LEAST_WINDOW), data.short_side)
        choices.set(
            f"a tenth of the objects is below {pixels:.0f} px, in images of {data.short_side} px: "
            f"{small * sides[-1]:.1f} px in whole images at the largest size that is trained at, {sides[-1]} px",
            INPUT__TILE__SIZE=size, TEST__TILE__SIZE=size,
        )  # fmt: skip
    return choices.get("INPUT.TILE.SIZE") > 0


def _decide_task(choices: Choices, data: DataFacts, goal: Goal, pretrained: bool) -> None:
    if goal.task == "keypoints":
        choices.set(f"{data.keypoints:.0%} of the objects have keypoints", MODEL__KEYPOINT_ON=True)
        # What Detectron2's keypoint configs have; plain L1 costs keypoint AP.
        choices.set("keypoints are asked for", MODEL__ROI_BOX_HEAD__SMOOTH_L1_BETA=0.5)
        if not pretrained:
            choices.set(
                "trained from the start, a small head learns faster", MODEL__ROI_KEYPOINT_HEAD__CONV_DIMS=(128,) * 4
            )
    if goal.task == "masks":
        choices.set(f"{data.masks:.0%} of the objects have a mask", MODEL__MASK_ON=True)
    else:
        choices.set(f"{goal.task} are asked for" if data.masks else "no object has a mask", MODEL__MASK_ON=False)
    if data.objects > choices.get("TEST.DETECTIONS_PER_IMAGE"):
        most = math.ceil(data.objects * 1.5 / 100) * 100
        reason = f"{'a window' if data.tile else 'an image'} has {data.objects} objects"
        choices.set(reason, TEST__DETECTIONS_PER_IMAGE=most, TEST__MAX_DETS_PER_IMAGE=most)
    if data.objects_in_image is not None and data.objects_in_image > choices.get("TEST.MAX_DETS_PER_IMAGE"):
        most = math.ceil(data.objects_in_image * 1.5 / 100) * 100
        choices.set(f"an image has {data.objects_in_image} objects", TEST__MAX_DETS_PER_IMAGE=most)


def _decide_size(choices: Choices, data: DataFacts, side: int, pretrained: bool, more: str = "") -> None:
    """The shorter side at which small objects are still found, and others around it for training."""
    small = data.size(0.1)
    longest = 32 * math.ceil(side * min(max(data.elongation, 1.34), 3) / 32)
    of = "window" if data.tile else "image"
    reason = f"a tenth of the objects is below {small:.1%} of the {of}, {small * side:.0f} px then{more}"
    spread = [8 * round(side * share / 8) for share in ((0.8, 0.9, 1.0, 1.1, 1.2) if pretrained else (0.9, 1.0, 1.1))]
    choices.set(
        reason,
        INPUT__MIN_SIZE_TEST=side,
        INPUT__MAX_SIZE_TEST=longest,
        INPUT__MIN_SIZE_TRAIN=tuple(spread),
        INPUT__MAX_SIZE_TRAIN=32 * math.ceil(longest * spread[-1] / side / 32),
    )


def _enlarge(
    choices: Choices, data: DataFacts, sides: Sequence[int], per_step: float, goal: Goal, pretrained: bool
) -> float:
    """Take larger images where the time allows to see enough of them; how much longer a step is by it, at most."""
    before = choices.get("INPUT.MIN_SIZE_TEST")
    images = goal.minutes * 60 / per_step * choices.get("SOLVER.IMS_PER_BATCH")
    affordable = [side for side in sides if images * (before / side) ** 2 >= ENOUGH and side <= data.short_side]
    if not affordable or key_source(choices.asked, "INPUT.MIN_SIZE_TEST") is not None:
        return 1.0
    _decide_size(choices, data, affordable[-1], pretrained, more="; the time allows for it")
    choices.forget("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
    _decide_network(choices, data, pretrained)
    _decide_anchors(choices, data)
    return (affordable[-1] / before) ** 2


def _decide_network(choices: Choices, data: DataFacts, pretrained: bool) -> None:
    """What of a small network's pyramid and heads is worth its time."""
    if not model_facts(choices.cfg).two_stage or pretrained or (
        choices.get("MODEL.FPN.IN_FEATURES") != ["res2", "res3", "res4", "res5"]
    ):  # fmt: skip
        return
    small = data.size(0.1) * choices.get("INPUT.MIN_SIZE_TEST")
    if small >= LARGE_OBJECTS:
        # 7 x 7 bins of such an object are a cell of p3 and more.
        choices.set(
            f"nine tenths of the objects have {small:.0f} px and more: p2 is finer than their boxes are cut into",
            MODEL__RESNETS__OUT_FEATURES=["res3", "res4", "res5"],
            MODEL__FPN__IN_FEATURES=["res3", "res4", "res5"],
            MODEL__ROI_HEADS__IN_FEATURES=["p3", "p4", "p5"],
        )
    if data.objects <= FEW_OBJECTS:
        choices.set(
            f"an image has {data.objects} objects at most",
            MODEL__RPN__PRE_NMS_TOPK_TRAIN=200,
            MODEL__RPN__POST_NMS_TOPK_TRAIN=100,
            MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE=32,
        )


def _decide_anchors(choices: Choices, data: DataFacts) -> None:
    sizes, (ratios, *_) = (
        choices.get("MODEL.ANCHOR_GENERATOR.SIZES"),
        choices.get("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
    )
    maps = model_facts(choices.cfg).anchor_maps
    strides = [STRIDES.get(name, 0) for name in choices.get(maps)] if maps else []
    if len(sizes) == 1:
        sizes = list(sizes) * len(strides)
    if not strides or not all(strides) or len(sizes) != len(strides):
        return  # a network that is not ours to know
    boxes = data.boxes * choices.get("INPUT.MIN_SIZE_TEST")
    fitting, shapes, recall = fitting_anchors(boxes, sizes, ratios, strides, LEAST_RECALL)
    if [list(level) for level in fitting] != [list(level) for level in sizes] or shapes != sorted(ratios):
        choices.set(
            f"with these, {recall:.0%} of the objects have an anchor that overlaps by half",
            MODEL__ANCHOR_GENERATOR__SIZES=[[round(size, 1) for size in level] for level in fitting],
            MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS=[shapes],
        )


def _decide_data(choices: Choices, data: DataFacts, machine: MachineFacts) -> None:
    if data.negatives:
        reason = f"{data.negatives:.0%} of the images have no object, and show what none is"
        choices.set(reason, DATALOADER__FILTER_EMPTY_ANNOTATIONS=False)
    counts = [count for count in data.class_images if count]
    if len(counts) > 1 and max(counts) > IMBALANCE * min(counts):
        # LVIS's threshold (Gupta et al., 2019, section 4) for its rarest classes, here relative to these images.
        choices.set(
            f"a class is in {min(counts)} {'windows' if data.tile else 'images'}, another in {max(counts)}",
            DATALOADER__SAMPLER_TRAIN="RepeatFactorTrainingSampler",
            DATALOADER__REPEAT_THRESHOLD=round(min(0.1, max(counts) / IMBALANCE / data.images), 4),
        )
    workers = 0 if machine.cores < 4 else min(machine.cores - 1, 8)
    choices.set(f"this process has {machine.cores} cores", DATALOADER__NUM_WORKERS=workers)


def _decide_optimizer(choices: Choices, data: DataFacts, machine: MachineFacts, pretrained: bool) -> None:
    batch = min(8 if pretrained else 4, 1 << int(math.log2(data.images)))
    reason = (
        "in the same time, more steps of fewer images learn more"
        if batch == 4
        else f"for {data.images} {'windows' if data.tile else 'images'}"
    )
    choices.set(reason, SOLVER__IMS_PER_BATCH=batch)
    batch = choices.get("SOLVER.IMS_PER_BATCH")
    if not pretrained and model_facts(choices.cfg).two_stage:
        # Of 256 anchors a few are on objects, and the loss is divided by all: proposals would be learned slowly.
        choices.set("so that objects count in the proposals' losses", MODEL__RPN__BATCH_SIZE_PER_IMAGE=32)
    common = {"SOLVER__OPTIMIZER": "AdamW", "SOLVER__LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER__WEIGHT_DECAY": 0.05,
              "SOLVER__REFERENCE_BATCH": 0}  # fmt: skip
    rate = 1e-4 * math.sqrt(batch / 8) if pretrained else 1e-3 * math.sqrt(batch / 4)
    choices.set(
        "fine-tuning of pretrained weights" if pretrained else "training from random weights",
        SOLVER__BASE_LR=float(f"{rate:.2g}"), **common,
    )  # fmt: skip
    choices.set(
        "gradients of few images vary",
        SOLVER__CLIP_GRADIENTS__ENABLED=True,
        SOLVER__CLIP_GRADIENTS__CLIP_TYPE="full_model",
        SOLVER__CLIP_GRADIENTS__CLIP_VALUE=1.0,
    )
    if machine.bfloat16:
        choices.set("this device is faster in it", SOLVER__AMP__ENABLED=True, SOLVER__AMP__DTYPE="bfloat16")


def _decide_length(choices: Choices, data: DataFacts, goal: Goal, pretrained: bool, per_step: float | None) -> None:
    batch = choices.get("SOLVER.IMS_PER_BATCH")
    if per_step is not None:
        # An image is evaluated in about a third of the time that it is trained on.
        evaluation = data.val_images * per_step / batch / 3
        left = goal.minutes * 60 - SECONDS_AROUND - 2 * evaluation
        steps = max(int(left / (per_step * LONGER)), 20)
        reason = f"{goal.minutes:g} minutes in steps of {per_step:.3g} s, measured"
    else:
        epochs = goal.epochs if goal.epochs is not None else default_epochs(data.images, pretrained)
        steps = max(math.ceil(epochs * data.images / batch), 20)
        reason = f"{epochs:g} passes over {data.images} {'windows' if data.tile else 'images'}"
    choices.set(reason, SOLVER__MAX_ITER=steps)
    steps = choices.get("SOLVER.MAX_ITER")
    choices.set(f"a twentieth of {steps} steps", SOLVER__WARMUP_ITERS=min(max(steps // 20, 10), steps // 2, 1000))
    # The average reaches over a twentieth of the run.
    decay = round(1 - 20 / max(steps, 200), 5)
    choices.set(f"an average over a twentieth of {steps} steps", SOLVER__EMA__DECAY=min(decay, 0.9998))
    period = max(steps // 4, 1) if steps >= 2000 else 0
    choices.set(f"of {steps} steps", TEST__EVAL_PERIOD=period, SOLVER__CHECKPOINT_PERIOD=max(math.ceil(steps / 5), 20))


def default_epochs(images: int, pretrained: bool) -> int:
    """How often to see each image where nobody says: as many steps for few images as for some thousands."""
    samples = 12_000 if pretrained else 40_000
    return int(min(max(math.ceil(samples / max(images, 1)), 12 if pretrained else 36), 300))
