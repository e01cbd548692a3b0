"""The zoo's trained detectors: their configs, and the names and shapes of their weights, against Detectron2's own."""

from __future__ import annotations

import json
import logging
import lzma
import shutil
import warnings
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY_DETECTOR

from se_det.cli.main import main
from se_det.config import get_cfg, load_config
from se_det.config.loading import flatten
from se_det.config.resolution import Decision, Resolution, plain
from se_det.detection import build_detector
from se_det.detection.build import check_model
from se_det.errors import ConfigError, WeightsError
from se_det.inference import Predictor
from se_det.weights import (
    config_of_checkpoint,
    get_entry,
    identify,
    load_weights,
    loading,
    open_configured_weights,
    resolve_weights,
    zoo,
)
from se_det.weights.families.conversion import to_ours
from se_det.weights.families.detectron2 import DETECTRON2
from se_det.weights.loading import load_tensors
from se_det.weights.reading import WeightFile
from se_det.weights.zoo import detector_entries, read_entries

ENTRIES = detector_entries()
# What Detectron2's configs say of training only, which an entry leaves to whoever trains.
OF_TRAINING = ("SOLVER.", "DATALOADER.", "DATASETS.TRAIN", "DATASETS.PROPOSAL_FILES_TRAIN", "INPUT.CROP.", "TEST.EVAL",
               "TEST.PRECISE_BN", "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.COLOR", "INPUT.MASK_FORMAT",
               "MODEL.WEIGHTS")  # fmt: skip
SIZES = {
    key: value
    for key, value in TINY_DETECTOR.items()
    if not key.startswith(("MODEL.BACKBONE", "DATASETS", "MODEL.MASK_ON"))
}


@cache
def detectron2_models() -> dict:
    """See make_detectron2_keys.py."""
    return json.loads(lzma.decompress(Path(__file__).with_name("detectron2_keys.json.xz").read_bytes()))


def config_or_skip(entry):
    """The entry's config, if the builtin engine has its parts by now."""
    try:
        cfg = config_of_checkpoint(f"zoo://{entry.name}")
        check_model(cfg)
    except ConfigError as error:
        pytest.skip(f"not in the builtin engine: {error}")
    return cfg


def test_every_published_checkpoint_has_an_entry():
    assert {entry.path for entry in ENTRIES} == set(detectron2_models()) and len(ENTRIES) == 70
    assert len({entry.file_name for entry in ENTRIES}) == 70  # so that a file's name tells its entry
    for entry in ENTRIES:
        assert entry.url.endswith(f"_{entry.md5}.pkl") and f"/{entry.path}/" in entry.url
        assert get_entry(f"zoo://{entry.path}.yaml") is entry and entry.reported


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_the_config_is_detectron2s(entry):
    theirs = detectron2_models()[entry.path]["config"]
    if theirs is None:  # a lazy config, which is no tree of keys: its parts are those of a YAML config
        like = detectron2_models()["Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn"]["config"]
        theirs = {**like, "MODEL.RPN.CONV_DIMS": [-1, -1]}
        del theirs["MODEL.RESNETS.STRIDE_IN_1X1"]
        if "regnet" in entry.name:
            theirs["MODEL.BACKBONE.NAME"] = f"regnet{'x' if 'regnetx' in entry.name else 'y'}_4gf"
        else:
            del theirs["MODEL.PIXEL_STD"]
        if "R_101" in entry.name:
            theirs["MODEL.RESNETS.DEPTH"] = 101
    theirs = {key: value for key, value in theirs.items() if not key.startswith(OF_TRAINING)}
    defaults = dict(flatten(get_cfg()))
    ours = {key: value for key, value in entry.config.items() if plain(defaults.get(key)) != value}
    assert ours == theirs


def different_models() -> list:
    """An entry of each network: schedules make no difference."""
    networks = {json.dumps([detectron2_models()[entry.path]["keys"], dict(entry.config)]): entry for entry in ENTRIES}
    return list(networks.values())


@pytest.mark.parametrize("entry", different_models(), ids=lambda e: e.name)
def test_every_weight_of_detectron2s_model_is_loaded(entry, monkeypatch):
    cfg = config_or_skip(entry)
    monkeypatch.setattr(loading, "check_values", lambda *_: None)  # which takes its time for as many zeros
    keys = dict(detectron2_models()[entry.path]["keys"])
    with torch.device("meta"):
        model = build_detector(cfg)
    value = torch.zeros(1)
    tensors = {name: value.expand(shape) if shape else value[0] for name, shape in keys.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a copy to the meta device copies nothing
        report = load_tensors(model, identify(WeightFile(Path(entry.file_name), tensors), "detectron2"), strict=True)
    assert report.missing == report.unexpected == report.resized == []
    assert all(".gate.fc" in name for name in report.reshaped)  # RegNetY's are convolutions
    assert len(report.loaded) == len([name for name in keys if not name.endswith("num_batches_tracked")])


def test_entries_of_the_parts_that_are_here_run():
    """A part that is renamed would turn the test above into a skipped one."""
    assert [entry.name for entry in ENTRIES if not is_here(entry)] == []


def is_here(entry) -> bool:
    try:
        check_model(config_of_checkpoint(f"zoo://{entry.name}"))
    except ConfigError:
        return False
    return True


CLASSES = {7: "cat", 9: "dog", 3: "hot dog"}


def tiny_detector(add_detector, **keys) -> tuple[dict[str, torch.Tensor], bytes]:
    """An entry of random weights, with scores that differ and boxes that move; its tensors, and its file's path."""
    add_detector("tiny_rcnn", {}, CLASSES, **keys)
    torch.manual_seed(1)
    model = build_detector(config_of_checkpoint("zoo://tiny_rcnn"))
    with torch.no_grad():
        model.backbone.bottom_up.stem.conv1.weight.mul_(0.0002)  # no norm brings the features to size
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(60)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.roi_heads.mask_head.predictor.weight.mul_(300)
    tensors = dict(model.state_dict())
    # Files of 2019 have these, too.
    tensors["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    del zoo._entries()["tiny_rcnn"]
    shutil.rmtree(next(Path(add_detector.folder).glob("detector-tiny_rcnn")))
    return tensors, add_detector("tiny_rcnn", tensors, CLASSES, **keys)[0]


def test_a_name_is_all_that_a_predictor_needs(add_detector, tmp_path, caplog):
    tensors, path = tiny_detector(add_detector)
    with caplog.at_level(logging.INFO):
        predictor = Predictor("zoo://tiny_rcnn")
    assert predictor.class_names == ["cat", "dog", "hot dog"] and predictor.category_ids == [7, 9, 3]
    assert predictor.cfg.INPUT.FORMAT == "BGR" and predictor.cfg.MODEL.RESNETS.STRIDE_IN_1X1
    assert "unverified" not in caplog.text and ", 0 missing, 0 unexpected" in caplog.text
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    found = predictor(picture)
    assert len(found.boxes) > 3
    # The same weights as a plain file, with the config given by hand.
    cfg = load_config(None, flat({**TINY_DETECTOR, "MODEL.DEVICE": "cpu"}))
    del tensors["proposal_generator.anchor_generator.cell_anchors.0"]
    torch.save({"model": tensors}, tmp_path / "plain.pth")
    same = Predictor(cfg, tmp_path / "plain.pth")(picture)
    np.testing.assert_array_equal(found.boxes, same.boxes)
    np.testing.assert_array_equal(found.masks, same.masks)
    # A file that was brought by hand is known by its name.
    brought = tmp_path / Path(path).name
    brought.write_bytes(add_detector.server.files[path])
    np.testing.assert_array_equal(Predictor(brought)(picture).boxes, found.boxes)
    brought.write_bytes(brought.read_bytes() + b" ")
    with pytest.raises(WeightsError, match=r"is not the file that tiny_rcnn in the zoo names: its md5 begins with"):
        resolve_weights(brought)


def test_a_download_of_another_md5_is_refused(add_detector):
    _, path = tiny_detector(add_detector)
    add_detector.server.files[path] += b" "
    with pytest.raises(WeightsError, match=r"gave another file than it should: its md5 begins with .{6}, not "):
        resolve_weights("zoo://tiny_rcnn")


def test_the_command_takes_a_name(add_detector, tmp_path):
    tiny_detector(add_detector)
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    words = [
        "predict",
        "--weights",
        "zoo://tiny_rcnn",
        "--output",
        str(tmp_path / "out"),
        str(tmp_path / "a.png"),
        "MODEL.DEVICE=cpu",
    ]
    assert main(words) == 0
    ids = {row["category_id"] for row in json.loads((tmp_path / "out" / "detections.json").read_text())}
    assert ids and ids <= set(CLASSES)


def test_a_trained_detector_starts_one_of_other_classes(add_detector, caplog):
    """Rows of the predictors by the classes' names; what the weights need of the input where nobody chose."""
    tensors, _ = tiny_detector(add_detector)
    cfg = load_config("configs/mask_rcnn_r50_fpn.yaml", flat({**SIZES, "MODEL.WEIGHTS": "zoo://tiny_rcnn"}))
    stage = Resolution(cfg)
    file, decisions = open_configured_weights(stage.cfg)
    stage.decide(decisions)
    assert stage.cfg.INPUT.FORMAT == "BGR" and stage.cfg.MODEL.RESNETS.STRIDE_IN_1X1
    stage.decide([Decision("MODEL.ROI_HEADS.NUM_CLASSES", 2, "test")])
    torch.manual_seed(2)
    model = build_detector(stage.finish(check_model))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        report = load_weights(model, file, class_names=["Hot_Dog", "bird"])
    own = model.state_dict()
    box = "roi_heads.box_predictor"
    assert torch.equal(own[f"{box}.cls_score.weight"][[0, 2]], tensors[f"{box}.cls_score.weight"][[2, 3]])
    assert torch.equal(own[f"{box}.cls_score.weight"][1], fresh[f"{box}.cls_score.weight"][1])
    assert torch.equal(own[f"{box}.bbox_pred.weight"][:4], tensors[f"{box}.bbox_pred.weight"][8:])
    mask = "roi_heads.mask_head.predictor.weight"
    assert torch.equal(own[mask][0], tensors[mask][2]) and torch.equal(own[mask][1], fresh[mask][1])
    assert report.missing == [] and "Of the 2 classes 1 keep their rows" in caplog.text
    assert "left out are the file's 'cat', 'dog'" in caplog.text


def test_a_detector_on_another_network_is_refused_before_it_is_fetched(add_detector):
    tiny_detector(add_detector)
    add_detector.server.requests.clear()
    cfg = load_config("configs/mask_rcnn_r101_fpn.yaml", ["MODEL.WEIGHTS", "zoo://tiny_rcnn"])
    with pytest.raises(ConfigError, match=r"MODEL.RESNETS.DEPTH is 101, not 50; .*WIDTH_PER_GROUP is 64, not 4"):
        open_configured_weights(cfg)
    assert add_detector.server.requests == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("family: detectron2", "family: d2", "family 'd2' is unknown"),
        ("[a, b]", "[a, c]", "there is no part 'c'"),
        ("_0123ab.pkl", ".pkl", "6 digits of its md5"),
        ("bbox/AP: 40.2", "bbox: 40.2", "percent by task/metric"),
        ("reported:", "reportd:", "no field 'reportd'. Did you mean 'reported'"),
        ("classes: null", "clases: null", "must hold source, license"),
    ],
)
def test_an_entry_that_is_wrong_is_named(tmp_path, old, new, message):
    (tmp_path / "x.yaml").write_text(GOOD)
    entry = read_entries(tmp_path)["net"]
    assert dict(entry.config) == {"MODEL.MASK_ON": False, "MODEL.RESNETS.DEPTH": 101} and entry.path == "x/net"
    (tmp_path / "x.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_entries(tmp_path)


GOOD = """
source: https://example.org
license: MIT
family: detectron2
url: https://example.org/
classes: null
parts:
  a: {MODEL.MASK_ON: true, MODEL.RESNETS.DEPTH: 101}
  b: {MODEL.MASK_ON: false}
entries:
  net: {file: x/net/1/model_0123ab.pkl, parts: [a, b], reported: {bbox/AP: 40.2}}
"""


def test_pointrends_first_names():
    """The published PointRend files were written before its heads were moved."""
    old = ("roi_heads.mask_coarse_head.coarse_mask_fc1.weight", "roi_heads.mask_coarse_head.prediction.bias",
           "roi_heads.mask_point_head.fc1.weight", "backbone.bottom_up.stem.conv1.weight")  # fmt: skip
    new = ("roi_heads.mask_head.coarse_head.fc1.weight", "roi_heads.mask_head.coarse_head.prediction.bias",
           "roi_heads.mask_head.point_head.fc1.weight", "backbone.bottom_up.stem.conv1.weight")  # fmt: skip
    assert tuple(to_ours("x.pkl", dict.fromkeys(old, torch.zeros(1)), DETECTRON2).tensors) == new
    assert tuple(to_ours("x.pkl", dict.fromkeys(new, torch.zeros(1)), DETECTRON2).tensors) == new


def flat(keys: dict) -> list:
    return [word for pair in keys.items() for word in pair]
