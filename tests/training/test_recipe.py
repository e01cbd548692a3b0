"""The recipe's decisions: a table of made-up facts, anchors against a search, and a trial that does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from se_det.config import load_config
from se_det.config.loading import get_key
from se_det.detection import build_detector
from se_det.errors import DataError, TrainingError, WeightsError
from se_det.training.recipe import DataFacts, Goal, MachineFacts, decide, trial
from se_det.training.recipe.anchors import best_possible_recall, fitting_anchors
from se_det.training.recipe.decide import LARGE, MEDIUM, SMALL, base_config, default_epochs
from se_det.weights import load_weights


def objects(*sides: float) -> np.ndarray:
    """Squares and 2 : 1 boxes of these sizes, in parts of the image's shorter side."""
    return np.array([(side * stretch, side / stretch) for side in sides for stretch in (1.0, 0.8, 1.25)])


PHOTOS = DataFacts(
    images=160, val_images=40, negatives=0.0, class_images=(160,), boxes=objects(0.3, 0.5, 0.7), elongation=1.33,
    short_side=480, objects=3, masks=0.0,
)  # fmt: skip
CPU = MachineFacts(device="cpu", cores=2, bfloat16=False, weights=False)
GPU = MachineFacts(device="cuda", cores=16, bfloat16=True, weights=True)

# name: (base config, facts of the data, of the machine, goal, the keys that are decided)
TABLE = {
    "photos on a CPU": (SMALL, PHOTOS, CPU, Goal(), {
        "MODEL.DEVICE": "cpu", "MODEL.MASK_ON": False, "INPUT.MIN_SIZE_TEST": 168, "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.MAX_ITER": 10000, "SOLVER.AMP.ENABLED": False, "DATALOADER.NUM_WORKERS": 0,
        "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"], "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32, "SOLVER.EMA.DECAY": 0.998,
        "MODEL.WEIGHTS": "shipped://shapes_se_r18_half", "MODEL.RESNETS.NORM": "BN", "SOLVER.BASE_LR": 1e-3,
    }),
    "as long as it takes to boil an egg": (SMALL, PHOTOS, CPU, Goal(minutes=4), {
        "SOLVER.MAX_ITER": 384, "SOLVER.WARMUP_ITERS": 19, "TEST.EVAL_PERIOD": 0, "INPUT.MIN_SIZE_TEST": 168,
    }),
    "a CPU of bfloat16": (SMALL, PHOTOS, replace(CPU, bfloat16=True, cores=8), Goal(), {
        "SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16", "DATALOADER.NUM_WORKERS": 7,
    }),
    "small objects": (SMALL, replace(PHOTOS, boxes=objects(0.04, 0.05, 0.06)), CPU, Goal(), {
        "INPUT.MIN_SIZE_TEST": 288, "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    }),
    "time for larger images": (SMALL, PHOTOS, CPU, Goal(minutes=60), {
        "INPUT.MIN_SIZE_TEST": 288, "SOLVER.MAX_ITER": 2205,
    }),
    "masks": (SMALL, replace(PHOTOS, masks=1.0), CPU, Goal(task="masks"), {"MODEL.MASK_ON": True}),
    "backgrounds": (SMALL, replace(PHOTOS, negatives=0.3), CPU, Goal(), {
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    }),
    "classes out of balance": (SMALL, replace(PHOTOS, images=2000, class_images=(1900, 40)), CPU, Goal(epochs=10), {
        "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD": 0.095,
        "SOLVER.MAX_ITER": 5000, "TEST.EVAL_PERIOD": 1250,
    }),
    "a crowd": (SMALL, replace(PHOTOS, objects=250), CPU, Goal(), {
        "TEST.DETECTIONS_PER_IMAGE": 400, "TEST.MAX_DETS_PER_IMAGE": 400,
    }),
    "five images": (SMALL, replace(PHOTOS, images=5), CPU, Goal(), {"SOLVER.IMS_PER_BATCH": 4}),
    "a GPU with weights": (LARGE, PHOTOS, GPU, Goal(), {
        "MODEL.DEVICE": "cuda", "INPUT.MIN_SIZE_TEST": 400, "MODEL.WEIGHTS": "zoo://se_resnet50.timm_ra2",
        "SOLVER.BASE_LR": 1e-4, "MODEL.RESNETS.NORM": "FrozenBN", "SOLVER.MAX_ITER": 1500,
    }),
    "a GPU without": (LARGE, PHOTOS, replace(GPU, weights=False), Goal(), {
        "MODEL.WEIGHTS": "", "MODEL.RESNETS.NORM": "GN", "MODEL.BACKBONE.FREEZE_AT": 0, "SOLVER.BASE_LR": 1e-3,
    }),
    "pretrained weights on a CPU": (MEDIUM, PHOTOS, replace(CPU, weights=True), Goal(), {
        "INPUT.MIN_SIZE_TEST": 256, "MODEL.WEIGHTS": "zoo://se_resnet18.timm_legacy", "SOLVER.BASE_LR": 1e-4,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_decisions(name: str) -> None:
    base, data, machine, goal, expected = TABLE[name]
    cfg = load_config(base)
    made = {d.key: d.value for d in decide(cfg, data, machine, goal, seconds=lambda cfg: 0.5)}
    assert {key: made.get(key, get_key(cfg, key)) for key in expected} == expected
    assert all(d.reason and d.source == "the recipe" for d in decide(cfg, data, machine, goal))


def test_a_key_that_the_user_set_stays() -> None:
    given = ["SOLVER.IMS_PER_BATCH", 2, "INPUT.MIN_SIZE_TEST", 333, "SOLVER.BASE_LR", 0.5]
    made = {d.key: d.value for d in decide(load_config(SMALL, given), PHOTOS, CPU, Goal(epochs=1))}
    assert not made.keys() & set(given[::2])
    assert made["SOLVER.MAX_ITER"] == 80  # 160 images in steps of the user's 2


def test_a_network_of_the_users_own_starts_from_random_weights() -> None:
    made = {d.key: d for d in decide(load_config(SMALL, ["MODEL.GATE.NAME", "cbam"]), PHOTOS, CPU, Goal())}
    assert made["MODEL.WEIGHTS"].value == "" and "MODEL.GATE.NAME" in made["MODEL.WEIGHTS"].reason


def test_shipped_weights_fit_the_small_network_with_other_classes_and_anchors() -> None:
    sizes = [[16, 24], [32], [64], [128]]
    for more in (
        [],
        ["MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ANCHOR_GENERATOR.SIZES", [[s, s + 4] for s, *_ in sizes]],
    ):
        cfg = load_config(SMALL, more)
        model = build_detector(cfg)
        report = load_weights(model, cfg.MODEL.WEIGHTS)
        fresh = ("box_predictor", "mask_head.predictor", *(["objectness_logits", "anchor_deltas"] if more else []))
        assert report.loaded and not report.unexpected
        assert all(any(part in name for part in fresh) for name in report.missing), report.missing


def test_other_shipped_weights_are_not_there() -> None:
    with pytest.raises(WeightsError, match=r"only shapes_se_r18_half\. Did you mean 'shapes_se_r18_half'\?"):
        load_weights(build_detector(load_config(SMALL)), "shipped://shapes_se_r18_haf")


def test_the_base_config_is_what_weights_and_device_allow() -> None:
    assert base_config("cpu", lambda weights: False) == base_config("cuda", lambda weights: False) == SMALL
    assert base_config("cpu", lambda weights: True) == MEDIUM
    assert base_config("cuda", lambda weights: True) == LARGE


def test_epochs_fall_with_the_number_of_images() -> None:
    found = [default_epochs(images, False) for images in (10, 100, 1000, 10_000, 1_000_000)]
    assert found == sorted(found, reverse=True) and found[0] == 300 and found[-1] == 36


def test_best_possible_recall_equals_a_search_over_anchors() -> None:
    """Boxes whose centre is a quarter of the stride from an anchor's, by torchvision's IoU."""
    import torch
    from torchvision.ops import box_iou

    boxes = np.random.default_rng(0).uniform(5, 150, (200, 2))
    sizes, ratios, strides = [[16], [32, 45], [64]], [0.5, 1.0, 2.0], [4, 8, 16]
    best = torch.zeros(len(boxes), dtype=torch.float64)
    for level, stride in zip(sizes, strides):
        for size in level:
            for ratio in ratios:
                anchor = torch.tensor([[-(w := size / ratio**0.5) / 2, -(h := size * ratio**0.5) / 2, w / 2, h / 2]])
                sides = torch.from_numpy(boxes)
                moved = torch.cat([stride / 4 - sides / 2, stride / 4 + sides / 2], dim=1)
                best = torch.maximum(best, box_iou(moved, anchor.double())[:, 0])
    assert best_possible_recall(boxes, sizes, ratios, strides) == pytest.approx(float((best >= 0.5).double().mean()))


def test_anchors_are_kept_where_they_do_and_others_are_found() -> None:
    sizes, ratios, strides = [[16], [32], [64], [128]], [0.5, 1.0, 2.0], [8, 16, 32, 64]
    ordinary = np.random.default_rng(0).uniform(20, 100, (100, 1)) * np.ones((1, 2))
    assert fitting_anchors(ordinary, sizes, ratios, strides, 0.95)[0] == sizes
    poles = np.stack([np.full(100, 12.0), np.random.default_rng(1).uniform(60, 100, 100)], axis=1)
    before = best_possible_recall(poles, sizes, ratios, strides)
    found, shapes, recall = fitting_anchors(poles, sizes, ratios, strides, 0.95)
    assert before < 0.5 and recall > before
    assert recall == best_possible_recall(poles, found, shapes, strides)


def test_a_trial_that_does_not_fit_ends_in_more_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def step(cfg):
        tried.append(cfg.SOLVER.ACCUMULATE)
        if cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATE > 2:
            raise trial.TrialOutOfMemory("the process was killed")
        return 3.0

    monkeypatch.setattr(trial, "run_trial", step)
    cfg = load_config(SMALL, ["SOLVER.IMS_PER_BATCH", 8])
    seconds, decisions = trial.fit_batch(cfg)
    assert tried == [1, 2, 4] and seconds == 3.0 and cfg.SOLVER.ACCUMULATE == 1
    assert [(d.key, d.value) for d in decisions] == [("SOLVER.ACCUMULATE", 4)]
    cfg.SOLVER.IMS_PER_BATCH = 2
    monkeypatch.setattr(trial, "run_trial", lambda cfg: (_ for _ in ()).throw(trial.TrialOutOfMemory("no memory")))
    with pytest.raises(TrainingError, match="Even 1 images at a time do not fit into memory"):
        trial.fit_batch(cfg)


def killed(cfg, threads, answer) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def allocating(cfg, threads, answer) -> None:
    """As `_trial`, where a step asks for more memory than there is."""
    import torch

    trial._time_steps = lambda cfg: torch.zeros(1 << 60)
    REAL(cfg, threads, answer)


REAL = trial._trial


def refused(cfg, threads, answer) -> None:
    trial._time_steps = lambda cfg: (_ for _ in ()).throw(DataError("x.json is not there."))
    REAL(cfg, threads, answer)


@pytest.mark.parametrize(
    ("child", "error", "told"),
    [(allocating, trial.TrialOutOfMemory, "memory"),
     pytest.param(killed, trial.TrialOutOfMemory, "was killed", marks=pytest.mark.slow),
     pytest.param(refused, DataError, "x.json is not there", marks=pytest.mark.slow)],
)  # fmt: skip
def test_how_a_trial_ends(monkeypatch: pytest.MonkeyPatch, child, error, told) -> None:
    monkeypatch.setattr(trial, "_trial", child)
    with pytest.raises(error, match=told):
        trial.run_trial(load_config(SMALL))


def test_windows_where_small_objects_would_not_be_found() -> None:
    """A tenth of the objects has 16 px in images of 4,000: 1.8 at the largest size, 448 px. In windows of 288 px, as
    large as the middle one of the sizes, they keep nearly theirs."""
    aerial = replace(PHOTOS, boxes=objects(0.004, 0.006), short_side=4000, objects=500)
    in_windows = replace(aerial, boxes=aerial.boxes * 4000 / 288, short_side=288, objects=30, images=700,
                         elongation=1.0, tile=288, objects_in_image=500)  # fmt: skip
    asked = []

    def measured(cfg):
        asked.append(cfg.INPUT.TILE.SIZE)
        return in_windows

    found = decide(load_config(SMALL), aerial, CPU, Goal(epochs=10), in_windows=measured)
    made = {d.key: d.value for d in found}
    assert asked == [288]
    assert made["INPUT.TILE.SIZE"] == made["TEST.TILE.SIZE"] == 288
    assert made["INPUT.MIN_SIZE_TEST"] == 224  # 16 / 288 of it are 12 px, of 168 only 9
    assert "TEST.DETECTIONS_PER_IMAGE" not in made and made["TEST.MAX_DETS_PER_IMAGE"] == 800
    assert made["SOLVER.MAX_ITER"] == 1750  # 700 windows in steps of 4
    reason = next(d.reason for d in found if d.key == "INPUT.TILE.SIZE")
    assert "below 16 px" in reason and "1.8 px" in reason
    # Whole images where they do, or where the user says so.
    for keys, data in (([], PHOTOS), (["INPUT.TILE.SIZE", 0], aerial), ([], replace(aerial, short_side=400))):
        made = {d.key for d in decide(load_config(SMALL, keys), data, CPU, Goal(epochs=1), in_windows=measured)}
        assert not any("TILE" in key for key in made)
    made = {d.key: d.value for d in decide(load_config(SMALL, ["INPUT.TILE.SIZE", 512]), aerial, CPU, Goal(epochs=1),
                                           in_windows=measured)}  # fmt: skip
    assert made["TEST.TILE.SIZE"] == asked[-1] == 512


def test_facts_in_windows(tmp_path) -> None:
    """Two images of 400 x 200 px, each with two boxes of 20 px, one in each half."""
    import json

    from PIL import Image

    from se_det.data.coco import read_coco
    from se_det.data.tile_truth import TrainTiles
    from se_det.data.tiles import Tiling
    from se_det.training.recipe.facts import measure_data, measure_in_windows

    for name in ("1.png", "2.png"):
        Image.new("RGB", (400, 200)).save(tmp_path / name)
    annotations = [
        {"id": 2 * image + at, "image_id": image, "category_id": 1 + at, "bbox": [50 + 200 * at, 50, 20, 20],
         "area": 400, "iscrowd": 0}
        for image in (1, 2) for at in (0, 1)
    ]  # fmt: skip
    content = {"images": [{"id": i, "file_name": f"{i}.png", "height": 200, "width": 400} for i in (1, 2)],
               "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "annotations": annotations}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    train = read_coco(tmp_path / "a.json", tmp_path)
    whole = measure_data(train, train)
    assert whole.size(0.5) == pytest.approx(0.1) and whole.objects == 2
    found = measure_in_windows(whole, train, train, TrainTiles(Tiling(100, 0.0), 0.25, 0.2))
    # Of 2 x 8 windows, 4 have an object and 12 none, of which one joins them in an epoch.
    assert (found.images, found.val_images, found.objects, found.objects_in_image) == (5, 16, 1, 2)
    assert found.class_images == (2, 2) and found.tile == found.short_side == 100
    assert found.size(0.5) == pytest.approx(0.2) and found.elongation == 1.0
