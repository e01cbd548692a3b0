"""The predictor: batches of pictures, and masks that are put into the image later."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.cli.main import main
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.rcnn import paste_detections
from se_det.errors import ConfigError, DataError
from se_det.inference import Predictor
from se_det.inference.coco_results import to_coco_results
from se_det.inference.predict_files import RESULTS, predict_files
from se_det.inference.sources import find_sources
from se_det.inference.video import VideoWriter

SMALL = [
    "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0,
    "MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 8,
    "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16,
    "MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.02, "MODEL.RPN.POST_NMS_TOPK_TEST", 50,
    "INPUT.MIN_SIZE_TEST", 90,
]  # fmt: skip


def predictor(folder: Path, gate: str = "se", **keys) -> Predictor:
    """Random weights, but with scores that differ and boxes that move."""
    overrides = [*SMALL, "MODEL.GATE.NAME", gate, *(part for pair in keys.items() for part in pair)]
    cfg = load_config("configs/mask_rcnn_r50_fpn.yaml", overrides)
    torch.manual_seed(1)
    model = build_detector(cfg)
    with torch.no_grad():
        model.proposal_generator.rpn_head.objectness_logits.weight.mul_(30)
        model.roi_heads.box_predictor.cls_score.weight.mul_(25)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(30)
        model.roi_heads.mask_head.predictor.weight.mul_(300)
    torch.save({"model": model.state_dict()}, folder / "w.pth")
    return Predictor(cfg, folder / "w.pth")


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("gate", ["none", "se", "sp_se", "rg_se", "cbam"])
@pytest.mark.parametrize("padding", ["keep", "squeeze", "exact"])
def test_a_batch_finds_what_each_image_finds_alone(tmp_path: Path, gate: str, padding: str) -> None:
    keys = {"MODEL.GATE.PADDING": padding, "TEST.IMS_PER_BATCH": 3}
    detect = predictor(tmp_path, gate, **keys)
    batch = [detect.sample(pixels) for pixels in images((96, 128), (96, 128), (96, 128))]
    together, alone = detect.detect(batch), [detect.detect([sample])[0] for sample in batch]
    for one, other in zip(together, alone):
        assert len(one["scores"]) >= 10
        assert torch.equal(one["pred_classes"], other["pred_classes"])
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(one["pred_boxes"], other["pred_boxes"], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(one["box_masks"], other["box_masks"], rtol=0, atol=1e-4)


def test_images_of_one_size_that_follow_each_other_are_a_batch(tmp_path: Path, monkeypatch) -> None:
    detect = predictor(tmp_path, **{"TEST.IMS_PER_BATCH": 2})
    seen = []
    whole = detect.model.detect
    monkeypatch.setattr(detect.model, "detect", lambda batch: seen.append(len(batch)) or whole(batch))
    # The second is twice as large as the first, and of its size when resized.
    pictures = images((96, 128), (192, 256), (96, 128), (128, 96), (96, 128))
    found = detect(pictures)
    assert seen == [2, 1, 1, 1]
    for one, pixels in zip(found, pictures, strict=True):
        alone = detect(pixels)
        assert alone.keys() == one.keys() == {"boxes", "scores", "classes", "masks"}
        assert one["masks"].shape == (len(one["scores"]), *pixels.shape[:2]) and one["masks"].dtype == bool
        np.testing.assert_array_equal(one["classes"], alone["classes"])
        np.testing.assert_allclose(one["boxes"], alone["boxes"], atol=1e-3)
        assert (one["masks"] != alone["masks"]).mean() < 1e-4
    assert detect([]) == []
    with pytest.raises(DataError, match="must be"):
        detect([pictures[0], np.zeros((4, 4), np.uint8)])


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return predictor(tmp_path_factory.mktemp("weights"))


IMAGE = np.zeros((8, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "None"),
        (5, "a value of type int"),
        (b"a.jpg", "a value of type bytes"),
        ({"image": IMAGE}, "a value of type dict"),
        (torch.from_numpy(IMAGE), "a value of type Tensor"),
        ([None], "None"),
        ([IMAGE, None], "None"),
        ([b"a.jpg"], "a value of type bytes"),
        ([torch.from_numpy(IMAGE)], "a value of type Tensor"),
        (IMAGE.tolist(), "a value of type list"),
        ([IMAGE.tolist()], "a value of type list"),
        (IMAGE[:0], "an array (0, 9, 3) of uint8"),
        (IMAGE[:, :0], "an array (8, 0, 3) of uint8"),
        (IMAGE[None], "an array (1, 8, 9, 3) of uint8"),
        (IMAGE.astype(float), "an array (8, 9, 3) of float64"),
        (np.array(None), "an array () of object"),
    ],
)
def test_what_is_no_image_is_told_in_a_sentence(detector: Predictor, given: object, told: str) -> None:
    with pytest.raises(DataError) as caught:
        detector(given)
    assert str(caught.value) == (
        "An image must be the path of a file, or a NumPy array (height, width, 3) of uint8 in the order BGR with no "
        f"side of 0, got {told}."
    )


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("INPUT.MIN_SIZE_TEST", -1, "at least 0, got -1"), ("INPUT.MAX_SIZE_TEST", 0, "at least 1, got 0")],
)
def test_sizes_that_no_image_can_have_are_refused(detector: Predictor, key: str, value: int, told: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be {told}"):
        Predictor(load_config("configs/mask_rcnn_r50_fpn.yaml", [*SMALL, key, value]), detector.cfg.MODEL.WEIGHTS)


def test_masks_are_encoded_without_the_image_around_them(tmp_path: Path) -> None:
    detect = predictor(tmp_path)
    (found,) = detect.detect([detect.sample(*images((200, 300)))])
    found["pred_boxes"][0] = torch.tensor([0.0, 0, 300, 200])
    found["scores"][1] = torch.nan
    pasted = paste_detections(found)
    assert pasted["pred_masks"].any()
    results = [
        to_coco_results(instances, image_id=1, category_ids=[1, 2, 3], masks=True) for instances in (found, pasted)
    ]
    assert results[0] == results[1] and results[0][1] == 1


def test_batches_change_no_file(tmp_path: Path) -> None:
    pictures = images((96, 128), (96, 128), (128, 96), (96, 128), (96, 128))
    folder = tmp_path / "in"
    folder.mkdir()
    for number, pixels in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    (folder / "1-broken.png").write_bytes(b"nothing")
    with VideoWriter(folder / "film.mp4", 10) as film:
        for pixels in pictures[:2] * 4:
            film.write(pixels[:96, :96])
    (folder / "torn.avi").write_bytes(b"nothing")
    sources, _ = find_sources([str(folder)], tmp_path / "out")
    written = {}
    for size in (1, 3):
        output = tmp_path / str(size)
        output.mkdir()
        summary = predict_files(predictor(tmp_path, **{"TEST.IMS_PER_BATCH": size}), sources, output, limit=11)
        assert summary.images == 11 and ["broken" in summary.failures[0], len(summary.failures)] == [True, 1]
        results = json.loads((output / RESULTS).read_text())
        written[size] = [(r["image_id"], r["file_name"], r.get("frame"), r["category_id"]) for r in results]
        assert {path.name for path in output.iterdir()} == {*(f"{n}.png" for n in range(5)), "film.mp4", RESULTS}
    assert written[1] == written[3] and written[1][-1][2] == 5


def test_the_command_takes_other_values_of_keys(tmp_path: Path) -> None:
    cfg = predictor(tmp_path).cfg
    (tmp_path / "c.yaml").write_text(cfg.dump())
    cv2.imwrite(str(tmp_path / "a.png"), images((64, 64))[0])
    command = ["predict", "--config-file", str(tmp_path / "c.yaml"), "--weights", str(tmp_path / "w.pth")]
    command += ["--output", str(tmp_path / "out"), "TEST.DETECTIONS_PER_IMAGE=2"]
    assert main([*command, "INPUT.MIN_SIZE_TEST=64", str(tmp_path / "a.png")]) == 0
    assert len(json.loads((tmp_path / "out" / RESULTS).read_text())) == 2
    assert main([*command, "TEST.IMS_PER_BATCH=0", str(tmp_path / "a.png")]) == 1
