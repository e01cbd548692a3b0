"""The recipes: their learning rates against the papers' formulas, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from se_det import comm
from se_det.classification.build import build_classifier, check_recipe, epochs_to_steps
from se_det.classification.defaults import load_recipe
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import ConfigError
from se_det.training.build import learning_rate

IMAGENET = 1_281_167
RECIPES = ("se_paper", "rg_se_paper", "modern")


def by_ten(base: float, epoch: float) -> float:
    return base / 10 ** sum(epoch >= e for e in (30, 60, 90))


def cosine(epoch: float, *, base: float = 0.5, warmup: float = 5.0, last: float = 120.0) -> float:
    """A cosine over the whole run, to which the rate rises in a line from a hundredth of its start."""
    if epoch >= warmup:
        return base * 0.5 * (1 + math.cos(math.pi * epoch / last))
    top = cosine(warmup, base=base, warmup=0.0, last=last)
    return top * epoch / warmup + 0.01 * base * (1 - epoch / warmup)


# By recipe: images a step, epochs, the rate by epoch.
FORMULAS = {
    "se_paper": (1024, 100, lambda epoch: by_ten(0.6, epoch)),
    "rg_se_paper": (256, 100, lambda epoch: by_ten(0.1, epoch)),
    "modern": (1024, 120, cosine),
}


def test_learning_rates_are_the_formulas(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4))
    for axis, (name, (batch, epochs, formula)) in zip(axes, FORMULAS.items()):
        cfg = load_recipe(name)
        assert batch == cfg.SOLVER.IMS_PER_BATCH
        settled = epochs_to_steps(cfg, IMAGENET)
        steps = settled.SOLVER.MAX_ITER
        assert steps == round(epochs * IMAGENET / batch)
        rate = learning_rate(settled)
        # A corner lies on a step, so the formula is asked in the middle of each.
        at = [step for step in range(0, steps, 97) if not any(abs(step - s) <= 1 for s in settled.SOLVER.STEPS)]
        ours = [rate(step) for step in at]
        expected = [formula(step * batch / IMAGENET) for step in at]
        assert ours == pytest.approx(expected, rel=2e-3, abs=1e-8)
        axis.plot([step * batch / IMAGENET for step in at], ours, label="schedule", linewidth=4, alpha=0.4)
        axis.plot([step * batch / IMAGENET for step in at], expected, "k--", label="formula")
        axis.set(title=name, xlabel="epoch", ylabel="learning rate", yscale="log" if "paper" in name else "linear")
        axis.legend()
    figure.savefig(tmp_path / "learning_rates.png")
    pyplot.close(figure)
    assert (tmp_path / "learning_rates.png").stat().st_size > 10_000


def test_the_linear_rule() -> None:
    for batch in (256, 1024, 4096):
        cfg = load_recipe("rg_se_paper", ["SOLVER.IMS_PER_BATCH", batch])
        assert learning_rate(epochs_to_steps(cfg, IMAGENET))(0) == pytest.approx(0.1 * batch / 256)
    as_it_is = load_recipe("rg_se_paper", ["SOLVER.IMS_PER_BATCH", 512, "SOLVER.REFERENCE_BATCH", 0])
    assert learning_rate(epochs_to_steps(as_it_is, IMAGENET))(0) == 0.1


def test_steps_that_are_given_stand() -> None:
    keys = ["SOLVER.MAX_ITER", 50, "SOLVER.STEPS", [30], "SOLVER.WARMUP_ITERS", 7, "SOLVER.CHECKPOINT_PERIOD", 9]
    settled = epochs_to_steps(load_recipe("modern", keys), 1024)
    assert (settled.SOLVER.MAX_ITER, list(settled.SOLVER.STEPS), settled.SOLVER.WARMUP_ITERS) == (50, [30], 7)
    assert (settled.SOLVER.CHECKPOINT_PERIOD, settled.TEST.EVAL_PERIOD) == (9, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_pass_their_own_check(name: str) -> None:
    check_recipe(load_recipe(name))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (["SOLVER.EPOCHS", 0], "SOLVER.EPOCHS must be above 0"),
        (["SOLVER.IMS_PER_BATCH", 10, "SOLVER.ACCUMULATE", 3], "IMS_PER_BATCH 10 cannot be divided"),
        (["SOLVER.IMS_PER_BATCH", 2, "SOLVER.ACCUMULATE", 2], "leaves BN one image at a time"),
        (["MODEL.RESNETS.NORM", "FrozenBN"], "MODEL.RESNETS.NORM 'FrozenBN' cannot be trained"),
        (["MODEL.RESNETS.NORM", "SyncBN", "MODEL.DEVICE", "cpu"], "SyncBN works on GPUs only"),
        (["INPUT.AUGMENT_ON", "gpu"], "INPUT.AUGMENT_ON 'gpu' is unknown"),
        (["INPUT.SIZES", [1, 2]], "INPUT.SIZES"),
        (["INPUT.SCALE", [0.5]], "INPUT.SCALE"),
        (["INPUT.RATIO", [2.0, 1.0]], "INPUT.RATIO"),
        (["INPUT.FLIP", 2.0], "INPUT.FLIP must be between 0 and 1"),
        (["SOLVER.EMA.DECAY", 1.0], "SOLVER.EMA.DECAY"),
        (["SOLVER.LOSS", "MSE"], "SOLVER.LOSS"),
        (["MODEL.NAME", "se_resnet51"], "There is no model 'se_resnet51'. Did you mean 'se_resnet50'"),
        (["INPUT.MIXUP", -1.0], "INPUT.MIXUP must be at least 0"),
    ],
)
def test_recipes_that_cannot_train_are_refused(keys: list, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        check_recipe(load_recipe("rg_se_paper", keys))


def test_recipes_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config file .*moden.yaml.*Did you mean 'modern.yaml'"):
        load_recipe("moden")
    (tmp_path / "mine.yaml").write_text("SOLVER: {EPOCH: 3}\n")
    with pytest.raises(ConfigError, match="no key SOLVER.EPOCH.*Did you mean 'SOLVER.EPOCHS'"):
        load_recipe(tmp_path / "mine.yaml")
    assert comm.get_world_size() == 1


@pytest.mark.parametrize("gate", ["none", "se"])
def test_a_narrow_classifier_is_the_trunk_of_a_detector_with_the_same_keys(gate: str) -> None:
    widths = ["MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32]
    name = "resnet18" if gate == "none" else f"{gate}_resnet18"
    classifier = build_classifier(load_recipe("small", ["MODEL.NAME", name, "MODEL.NUM_CLASSES", 10, *widths]))
    keys = ["MODEL.WEIGHTS", "", "MODEL.GATE.NAME", gate]
    detector = build_detector(load_config("configs/mask_rcnn_se_r18_fpn.yaml", [*keys, *widths]))
    trunk = detector.backbone.bottom_up.state_dict()
    assert {name: tensor.shape for name, tensor in classifier.trunk.state_dict().items()}.items() >= {
        name: tensor.shape for name, tensor in trunk.items() if "num_batches" not in name
    }.items()
    assert classifier.linear.in_features == 256


def test_hosts_without_these_channels_refuse_them() -> None:
    recipe = load_recipe("small", ["MODEL.NAME", "se_mobilenet_v1", "MODEL.NUM_CLASSES", 10,
                                   "MODEL.RESNETS.RES2_OUT_CHANNELS", 32])  # fmt: skip
    with pytest.raises(ConfigError, match="MODEL.NAME se_mobilenet_v1 does not have what the recipe asks for"):
        build_classifier(recipe)
    recipe.MODEL.RESNETS.RES2_OUT_CHANNELS = -1
    with pytest.raises(ConfigError, match="MODEL.RESNETS.RES2_OUT_CHANNELS"):
        check_recipe(recipe)
