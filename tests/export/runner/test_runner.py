"""The runner's folder: what its one file reads, computes, writes and refuses."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from se_det.data.images import read_image
from se_det.export.runner import write_runner
from se_det.export.runner.folder import TEMPLATE
from se_det.inference.coco_results import to_coco_results

from ..contract_graph import BOXES, CLASSES, FOUND, KEYPOINTS, METADATA, masks, write_graph


@pytest.fixture
def runner(tmp_path: Path) -> SimpleNamespace:
    """A runner's folder and its code; `run(*words)` is the command."""
    return made(tmp_path, write_graph(tmp_path / "graph.onnx"))


def made(folder: Path, graph: Path) -> SimpleNamespace:
    write_runner(graph, folder / "runner")
    code = runpy.run_path(str(folder / "runner" / "predict.py"))
    return SimpleNamespace(
        **{name: code[name] for name in ("Detector", "read_image", "paste_mask", "encode_mask", "draw")},
        run=lambda *words: code["main"]([*map(str, words), "--output", str(folder / "out")]),
        results=lambda: json.loads((folder / "out" / "detections.json").read_text()),
        folder=folder,
    )


def photo(path: Path, size: tuple[int, int] = (48, 64), corner: tuple[int, int, int] = (204, 102, 51), **kept) -> Path:
    """A picture whose upper left is of a colour, RGB, that every format keeps."""
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    pixels[:16, :16] = corner
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels).save(path, **kept)
    return path


def expected(size: tuple[int, int], pixel: Any) -> list[dict]:
    """What se_det writes of the graph's detections in an image of `size`, whose upper left pixel is `pixel`."""
    height, width = size
    instances = {
        "pred_boxes": torch.from_numpy(BOXES * np.array([width, height] * 2, np.float32))[:FOUND],
        "scores": torch.tensor(np.asarray(pixel, np.float32) / 255),
        "pred_classes": torch.from_numpy(CLASSES)[:FOUND],
        "box_masks": torch.from_numpy(masks())[:FOUND],
        "image_size": size,
    }
    ids = [each["id"] for each in METADATA["classes"]]
    return to_coco_results(instances, image_id=1, category_ids=ids, masks=True)[0]


def test_the_json_is_that_of_se_det(runner: SimpleNamespace) -> None:
    sizes = {"a.png": (48, 64), "b.png": (48, 64), "c.png": (31, 77), "d.png": (200, 100)}
    for shade, (name, size) in enumerate(sizes.items()):
        photo(runner.folder / "photos" / name, size, (200 + shade, 100, 50))
    for batch in (1, 3):
        assert runner.run(runner.folder / "photos", "--batch", batch) == 0
        found = runner.results()
        assert len(found) == FOUND * len(sizes)
        for number, (name, size) in enumerate(sizes.items()):
            entries = found[FOUND * number : FOUND * (number + 1)]
            for entry, own in zip(entries, expected(size, (200 + number, 100, 50)), strict=True):
                where = {"file_name": str(runner.folder / "photos" / name), "image_id": number + 1}
                assert entry == {**own, **where, "bbox": pytest.approx(own["bbox"], abs=1e-4)}
    drawn = sorted(path.name for path in (runner.folder / "out").iterdir())
    assert drawn == ["a.png", "b.png", "c.png", "d.png", "detections.json"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(runner: SimpleNamespace, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = photo(runner.folder / "turned.jpg", (40, 80), exif=exif, quality=100, subsampling=0)
    pixels = read_image(path, "RGB")
    np.testing.assert_array_equal(runner.read_image(path), pixels)
    assert runner.run(path) == 0
    for entry, own in zip(runner.results(), expected(pixels.shape[:2], pixels[0, 0]), strict=True):
        assert entry["bbox"] == pytest.approx(own["bbox"], abs=1e-4)
        assert entry["score"] == own["score"] and entry["segmentation"] == own["segmentation"]


@pytest.mark.parametrize("kept", [{"format": "BMP"}, {"format": "WEBP", "lossless": True}, {"format": "TIFF"},
                                  {"format": "PNG"}, {"format": "JPEG", "quality": 90}])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_se_det(runner: SimpleNamespace, kept: dict, mode: str) -> None:
    path = photo(runner.folder / f"a.{kept['format'].lower()}", **kept)
    if mode == "L" and kept["format"] != "WEBP":
        Image.open(path).convert("L").save(path, **kept)
    np.testing.assert_array_equal(runner.read_image(path), read_image(path, "RGB"))


def test_images_of_several_sizes_are_padded_below_and_on_the_right(runner: SimpleNamespace) -> None:
    detect = runner.Detector(runner.folder / "runner" / "model.onnx")
    images = [np.full((20, 30, 3), 255, np.uint8), np.full((40, 10, 3), 51, np.uint8)]
    for found, image in zip(detect(images), images):
        assert found["boxes"].shape == (FOUND, 4) and found["masks"].shape == (FOUND, 28, 28)
        height, width = image.shape[:2]
        np.testing.assert_allclose(found["boxes"][1], [0, 0, width, height])
        np.testing.assert_allclose(found["scores"], image[0, 0] / 255, rtol=1e-6)


def test_masks_are_those_of_se_det(runner: SimpleNamespace) -> None:
    from pycocotools import mask as coco_mask

    from se_det.detection.masks import paste_masks

    random = np.random.default_rng(3)
    for _ in range(200):
        height, width = random.integers(1, 60, 2).tolist()
        low = random.uniform(-5, 50, 2)
        box = np.array([*low, *(low + random.uniform(0, 60, 2))], np.float32)
        mask = random.random((28, 28), np.float32)
        own = runner.paste_mask(mask, box, height, width)
        other = paste_masks(torch.from_numpy(mask[None]), torch.from_numpy(box[None]), height, width)[0].numpy()
        np.testing.assert_array_equal(own, other)
        encoded = coco_mask.encode(np.asfortranarray(own.astype(np.uint8)))
        assert runner.encode_mask(own) == {"size": [height, width], "counts": encoded["counts"].decode()}


def test_segments_are_those_of_se_det() -> None:
    """Of objects and regions that overlap, some too small, too unsure or hidden."""
    from se_det.detection.architectures.panoptic_fpn import combine_outputs

    combine = runpy.run_path(str(TEMPLATE / "predict.py"))["combine"]
    random = np.random.default_rng(4)
    limits = {"overlap_threshold": 0.5, "stuff_area_limit": 90, "score_threshold": 0.3}
    things = stuff = 0
    for _ in range(40):
        low = random.uniform(0, 30, (8, 2))
        found = {
            "boxes": np.hstack([low, low + random.uniform(0, 30, (8, 2))]).astype(np.float32),
            "scores": -np.sort(-random.choice([0.1, 0.3, 0.6, 0.9], 8)).astype(np.float32),
            "classes": random.integers(0, 3, 8), "masks": random.random((8, 28, 28), np.float32) ** 0.5,
            "sem_seg": np.kron(random.integers(0, 5, (4, 5)), np.ones((12, 11))).astype(np.uint8),
        }  # fmt: skip
        names = {"boxes": "pred_boxes", "masks": "box_masks", "classes": "pred_classes", "scores": "scores"}
        instances = {name: torch.from_numpy(found[own]) for own, name in names.items()}
        labels = torch.from_numpy(found["sem_seg"]).long()
        known, infos = combine_outputs({**instances, "image_size": (48, 55)}, labels, **limits)
        segments, own = combine(found, **limits)
        np.testing.assert_array_equal(segments, known.numpy())
        assert json.loads(json.dumps(own)) == infos
        things += sum(info["isthing"] for info in own)
        stuff += sum(not info["isthing"] for info in own)
    assert 100 < things < 40 * 6 and 40 < stuff < 40 * 4


def test_what_is_drawn(runner: SimpleNamespace) -> None:
    """Each class from its own score, or all from one; the last of the three is below its class's 0.75 in blue."""
    path = photo(runner.folder / "a.png", (100, 200), (204, 128, 102))

    def changed(*words: str) -> np.ndarray:
        assert runner.run(path, *words) == 0
        drawn = cv2.imread(str(runner.folder / "out" / "a.png")).astype(int)
        return np.abs(drawn - cv2.imread(str(path))).max(2) > 0

    own = changed()
    assert own[55, 70] and not own[25, 140] and not own[99, 150]  # the cat's disc; neither bird
    everything = changed("--threshold", "0.1")
    assert everything[55, 70] and everything[25, 140] and everything[99, 150]
    assert not changed("--threshold", "0.9").any()


def test_keypoints(tmp_path: Path) -> None:
    runner = made(tmp_path, write_graph(tmp_path / "graph.onnx", with_masks=False, with_keypoints=True))
    assert runner.run(photo(tmp_path / "a.png", (100, 200))) == 0
    points = KEYPOINTS * [200, 100, 1] - [0.5, 0.5, 0]
    for entry in runner.results():
        assert "segmentation" not in entry
        assert entry["keypoints"] == pytest.approx(points.flatten().tolist(), abs=1e-4)


def test_what_cannot_be_read_is_named_and_the_rest_done(runner: SimpleNamespace, capsys) -> None:
    folder = runner.folder / "photos"
    photo(folder / "good.jpg")
    whole = photo(folder / "cut.jpg", (200, 200), quality=95).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("hello")
    (folder / "empty.jpg").write_bytes(b"")
    assert runner.run(folder, runner.folder / "missing") == 1
    told = capsys.readouterr().err
    for name in ("cut.jpg", "text.png", "empty.jpg", "missing"):
        assert name in told
    assert {Path(entry["file_name"]).name for entry in runner.results()} == {"good.jpg"}


def test_a_thumbnails_end_is_not_the_pictures(runner: SimpleNamespace) -> None:
    path = photo(runner.folder / "a.jpg", (200, 200), quality=95)
    data = path.read_bytes()
    segment = b"\xff\xe1" + (2 + 6).to_bytes(2, "big") + b"\xff\xd8ab\xff\xd9"
    with_thumbnail = data[:2] + segment + data[2:]
    path.write_bytes(with_thumbnail)
    np.testing.assert_array_equal(runner.read_image(path), read_image(path, "RGB"))
    path.write_bytes(with_thumbnail[: len(data) // 2])
    with pytest.raises(ValueError, match="breaks off"):
        runner.read_image(path)


def test_names_that_meet_and_inputs_are_kept(runner: SimpleNamespace, capsys) -> None:
    for name in ("x/a.png", "y/a.webp", "z/a.jpg"):
        photo(runner.folder / name)
    files = [runner.folder / name for name in ("x/a.png", "y/a.webp", "x/a.png", "z/a.jpg")]
    assert runner.run(*files) == 0
    written = sorted(path.name for path in (runner.folder / "out").iterdir())
    assert written == ["a-2.png", "a.jpg", "a.png", "detections.json"]
    assert runner.run(runner.folder / "out" / "a.png") == 1
    assert "would be overwritten" in capsys.readouterr().err


def test_another_graph_is_refused(runner: SimpleNamespace, capsys) -> None:
    photo(runner.folder / "a.png")
    (runner.folder / "other.onnx").write_bytes(b"hello")
    assert runner.run(runner.folder / "a.png", "--model", runner.folder / "other.onnx") == 1
    assert "other.onnx cannot be used" in capsys.readouterr().err


def test_it_imports_what_its_requirements_name() -> None:
    folder = Path(write_runner.__code__.co_filename).with_name("template")
    packages = {"cv2": "opencv-python-headless", "numpy": "numpy", "onnxruntime": "onnxruntime"}
    code = (folder / "predict.py").read_text(encoding="utf-8")
    modules = set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) - {"argparse", "json", "os", "sys", "pathlib"}
    assert modules == set(packages)
    assert sorted((folder / "requirements.txt").read_text().split()) == sorted(packages.values())
