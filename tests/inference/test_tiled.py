"""Detection in windows from the file to the results, with a detector that finds coloured rectangles exactly."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.config import get_cfg
from se_det.data.coco import read_coco
from se_det.data.loader import build_test_loader
from se_det.evaluation import CocoEvaluator, evaluate
from se_det.evaluation.coco_eval import detection_limit_warnings
from se_det.evaluation.tiled import TiledEvaluator
from se_det.inference import Predictor, tiled
from se_det.inference.crop_masks import crop_mask
from se_det.inference.predict_files import predict_files
from se_det.inference.sources import find_sources
from se_det.inference.tiled import build_window_sampler, detect_tiled

COLOURS = np.array([[0, 0, 250], [0, 250, 0]])  # BGR, per class
HEIGHT, WIDTH = 620, 790


class ColourDetector(torch.nn.Module):
    """Each connected area of a class's colour; masks as a plug-in's detector may give them, in the image."""

    device = torch.device("cpu")

    def __init__(self, form: str = "pred_masks") -> None:
        super().__init__()
        self.form = form

    def detect(self, samples):
        return [{"instances": self.find(sample)} for sample in samples]

    def find(self, sample):
        pixels = sample["image"].permute(1, 2, 0).numpy().astype(int)
        assert pixels.shape[:2] == (sample["height"], sample["width"])
        boxes, classes, masks = [], [], []
        for kind, colour in enumerate(COLOURS):
            near = (np.abs(pixels - colour) < 40).all(axis=2).astype(np.uint8)
            _, labels, found, _ = cv2.connectedComponentsWithStats(near)
            for at, (x, y, width, height, _) in enumerate(found.tolist()):
                if at:
                    boxes.append([x, y, x + width, y + height])
                    classes.append(kind)
                    masks.append(labels == at)
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        result = {"pred_boxes": boxes, "pred_classes": torch.tensor(classes, dtype=torch.int64),
                  "scores": torch.linspace(0.9, 0.6, len(boxes))}  # fmt: skip
        if self.form == "pred_masks":
            result["pred_masks"] = torch.from_numpy(np.array(masks, bool).reshape(-1, *pixels.shape[:2]))
        elif self.form == "box_masks":  # full rectangles
            result["box_masks"] = torch.ones(len(boxes), 28, 28)
            result["image_size"] = sample["height"], sample["width"]
        return result


class ColourPredictor(Predictor):
    def __init__(self, cfg, form: str = "pred_masks") -> None:
        self.cfg, self.reverse_channels = cfg, cfg.INPUT.FORMAT == "RGB"
        self.window_sampler = build_window_sampler(cfg)
        self.model, self.class_names, self.category_ids = ColourDetector(form), ["red", "green"], [3, 7]
        self.thresholds, self.pixel_class_names, self.skeleton = [None, None], [], ()


def config(size=200, **keys):
    cfg = get_cfg()
    cfg.TEST.TILE.SIZE = size
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.TEST.IMS_PER_BATCH = 3
    for key, value in keys.items():
        cfg.TEST.TILE[key] = value
    return cfg


def scene() -> tuple[np.ndarray, list[tuple[int, int, int, int, int]]]:
    """A grey image with rectangles apart from each other: small ones, and one over several windows."""
    pixels = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    objects, random, taken = [(150, 260, 640, 380, 1)], np.random.default_rng(2), np.zeros((HEIGHT, WIDTH), bool)
    taken[250:390, 140:650] = True
    while len(objects) < 60:
        width, height = random.integers(6, 40, 2).tolist()
        x, y = int(random.integers(0, WIDTH - width + 1)), int(random.integers(0, HEIGHT - height + 1))
        around = (slice(max(y - 3, 0), y + height + 3), slice(max(x - 3, 0), x + width + 3))
        if not taken[around].any():
            taken[around] = True
            objects.append((x, y, x + width, y + height, int(random.integers(2))))
    for x0, y0, x1, y1, kind in objects:
        pixels[y0:y1, x0:x1] = COLOURS[kind]
    return pixels, objects


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    cv2.imwrite(str(path), scene()[0])
    return path


def rows(boxes, classes):
    return sorted((*map(float, box), int(kind)) for box, kind in zip(boxes, classes))


@pytest.mark.parametrize("form", ("pred_masks", "box_masks", "none"))
@pytest.mark.parametrize("keys", ({}, {"OVERLAP": 0.0}, {"MERGE": "ios"}, {"WHOLE_IMAGE": True}))
def test_every_object_is_found_once_with_its_mask(image, form, keys):
    _, objects = scene()
    result = ColourPredictor(config(**keys), form)(image)
    assert rows(result.boxes, result.classes) == sorted(tuple(map(float, o)) for o in objects)
    if form == "none":
        assert result.masks is None
        return
    for (x0, y0, x1, y1), mask in zip(result.boxes.astype(int).tolist(), result.masks):
        expected = np.zeros((HEIGHT, WIDTH), bool)
        expected[y0:y1, x0:x1] = True
        # Pasted by bilinear sampling, a full mask lacks the corners of each part.
        assert (mask != expected).sum() <= (0 if form == "pred_masks" else 24)


def test_pixels_channels_and_windows_as_large_as_the_image(image):
    pixels, objects = scene()
    for size, format in ((200, "RGB"), (5000, "BGR")):
        cfg = config(size)
        cfg.INPUT.FORMAT = format
        predictor = ColourPredictor(cfg)
        predictor.model.find = lambda sample, find=predictor.model.find, turn=format == "RGB": find(
            {**sample, "image": sample["image"].flip(0) if turn else sample["image"]}
        )
        for given in (image, pixels):
            found = predictor(given)
            assert rows(found.boxes, found.classes) == sorted(tuple(map(float, o)) for o in objects)


def dataset_of(folder: Path, image: Path):
    _, objects = scene()
    annotations = [
        {"id": at, "image_id": 1, "category_id": (3, 7)[kind], "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0,
         "area": (x1 - x0) * (y1 - y0), "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]}
        for at, (x0, y0, x1, y1, kind) in enumerate(objects, 1)
    ]  # fmt: skip
    content = {"images": [{"id": 1, "file_name": image.name, "height": HEIGHT, "width": WIDTH}],
               "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}],
               "annotations": annotations}  # fmt: skip
    (folder / "a.json").write_text(json.dumps(content))
    return read_coco(folder / "a.json", image.parent)


@pytest.mark.parametrize("form", ("pred_masks", "box_masks"))
def test_evaluation_in_windows_is_perfect_and_writes_what_prediction_does(image, form, tmp_path):
    cfg = config()
    dataset = dataset_of(tmp_path, image)
    sampler = build_window_sampler(cfg)
    evaluator = CocoEvaluator(dataset, ("bbox", "segm"), tmp_path)
    loader = build_test_loader(cfg, dataset, sampler=sampler)
    model = ColourDetector(form)
    metrics = evaluate(model, loader, TiledEvaluator(evaluator, cfg, sampler), infer=model.detect, unit="window")
    assert metrics["bbox"]["AP"] == pytest.approx(100) and metrics["segm"]["AP"] == pytest.approx(100)
    written = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    output = tmp_path / "out"
    output.mkdir()
    sources, _ = find_sources([str(image)], output)
    summary = predict_files(ColourPredictor(cfg, form), sources, output)
    predicted = json.loads((output / "detections.json").read_text())
    assert not summary.failures and summary.images == 1 and summary.detections == len(written)
    for one, other in zip(predicted, written):
        assert {**other, "file_name": str(image)} == one


def test_a_large_image_is_drawn_smaller(image, tmp_path, monkeypatch):
    monkeypatch.setattr(tiled, "OVERVIEW", 200)
    for keys in ({}, {"WHOLE_IMAGE": True}, {"OVERLAP": 0.0}):
        predictor = ColourPredictor(config(**keys))
        found = detect_tiled(predictor, image, overview=True)
        assert found.factor == 4 and found.overview.shape == (155, 198, 3)
        expected = cv2.imread(str(image))[:, : 4 * 197].reshape(155, 4, 197, 4, 3).mean(axis=(1, 3))
        assert np.abs(found.overview[:, :197] - expected).max() <= 1
        shown = found.in_overview(found.instances)
        torch.testing.assert_close(shown["pred_boxes"] * 4, found.instances["pred_boxes"])
    output = tmp_path / "out"
    output.mkdir()
    predict_files(predictor, find_sources([str(image)], output)[0], output, classes=[0], score_threshold=0.0)
    drawn = cv2.imread(str(output / "scene.png"))
    assert drawn.shape[0] >= 155
    entries = json.loads((output / "detections.json").read_text())
    assert {entry["category_id"] for entry in entries} == {3}
    assert max(entry["bbox"][0] for entry in entries) > 200  # px of the image, not of the drawing


def test_a_file_that_cannot_be_read_leaves_the_others(image, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(image.read_bytes()[:500])
    output = tmp_path / "out"
    output.mkdir()
    summary = predict_files(ColourPredictor(config()), find_sources([str(bad), str(image)], output)[0], output)
    assert len(summary.failures) == 1 and "bad.png" in summary.failures[0] and summary.images == 1


def test_shrunk_masks_are_every_so_manyth_pixel():
    mask = np.random.default_rng(0).random((37, 41)) < 0.5
    whole = np.zeros((80, 90), bool)
    whole[13:50, 22:63] = mask
    small = crop_mask(mask, 22, 13).shrunk(4)
    expected = whole[::4, ::4]
    found = np.zeros_like(expected)
    pixels = small.pixels()
    found[small.top : small.top + pixels.shape[0], small.left : small.left + pixels.shape[1]] = pixels
    np.testing.assert_array_equal(found, expected)


def test_masks_larger_than_memory_are_refused_with_a_remedy(image, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(tiled, "paste_crop_masks", no_memory)
    with pytest.raises(Exception, match="se-det predict"):
        ColourPredictor(config())(image)


def test_limits_are_told_of_windows(image, tmp_path):
    dataset = dataset_of(tmp_path, image)
    plan = build_window_sampler(config()).tiles
    assert detection_limit_warnings(dataset, 20, 100, plan) == []
    assert "an image has 60 objects" in detection_limit_warnings(dataset, 20, 100)[0]
    assert "a window of an image has" in detection_limit_warnings(dataset, 2, 100, plan)[0]


def test_what_cannot_be_put_together_is_refused(image):
    from se_det.detection.build import check_model
    from se_det.errors import ConfigError

    cfg = config()
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    with pytest.raises(ConfigError, match="TEST.TILE.SIZE is 200"):
        check_model(cfg)
    predictor = ColourPredictor(config())
    find = predictor.model.find
    predictor.model.find = lambda sample: {**find(sample), "pred_keypoints": torch.zeros(0)}
    with pytest.raises(ConfigError, match="pred_keypoints.*TEST.TILE.SIZE 0"):
        predictor(image)
