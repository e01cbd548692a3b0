"""The shapes data set: what it promises (see datasets/README.md), its files, and that it never writes over anything."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


@pytest.fixture(scope="module")
def maker():
    """datasets/make_shapes.py, which is a script and not a part of the package."""
    sys.path.insert(0, str(DATASETS))
    try:
        import make_shapes
    finally:
        sys.path.remove(str(DATASETS))
    return make_shapes


@pytest.fixture(scope="module")
def root(maker, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    maker.make_shapes(root, 120, 40, seed=3)
    return root


@pytest.fixture(scope="module")
def splits(root) -> dict[str, dict]:
    return {
        split: json.loads((root / "shapes" / "annotations" / f"instances_{split}.json").read_text())
        for split in ("train", "val")
    }


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_is_what_the_readme_says(root, splits):
    for split, count in (("train", 120), ("val", 40)):
        names = {path.name for path in (root / "shapes" / split).iterdir()}
        assert names == {image["file_name"] for image in splits[split]["images"]}
        assert len(names) == count
    assert [c["name"] for c in splits["train"]["categories"]] == ["disc", "ring", "triangle", "rectangle", "cross"]
    assert splits["train"]["categories"] == splits["val"]["categories"]


def test_corners_are_visible_pixels_of_their_shape_or_hidden_ones(splits):
    names = ["top_left", "top_right", "bottom_right", "bottom_left"]
    assert all(category["keypoints"] == names for category in splits["train"]["categories"])
    seen, hidden = 0, 0
    for annotation in splits["train"]["annotations"]:
        points = np.array(annotation["keypoints"]).reshape(4, 3)
        assert annotation["num_keypoints"] == (points[:, 2] > 0).sum() == (4 if annotation["category_id"] > 2 else 0)
        if annotation["num_keypoints"]:
            x, y, width, height = annotation["bbox"]
            shown = points[points[:, 2] == 2]
            assert ((shown[:, :2] >= (x, y)) & (shown[:, :2] < (x + width, y + height))).all()
            left, right = points[[0, 3], 0].sum(), points[[1, 2], 0].sum()
            assert left <= right and points[[0, 1], 1].sum() <= points[[2, 3], 1].sum()
            seen, hidden = seen + len(shown), hidden + (points[:, 2] == 1).sum()
    assert seen > 5 * hidden > 0


def test_the_same_parameters_give_the_same_bytes_and_images_do_not_depend_on_the_counts(maker, root, tmp_path):
    again = files_of(maker.make_shapes(tmp_path / "a", 5, 4, seed=3))
    assert again == files_of(maker.make_shapes(tmp_path / "b", 5, 4, seed=3))
    assert again["train/000004.jpg"] == (root / "shapes" / "train" / "000004.jpg").read_bytes()
    assert again["val/000004.jpg"] == (root / "shapes" / "val" / "000004.jpg").read_bytes()


def test_pixels_are_the_ones_written_when_the_version_was_set(maker):
    """Other bytes for the same parameters need another VERSION: figures reported for the set rest on its pixels."""
    scene = maker.Scene(np.random.Generator(np.random.PCG64(np.random.SeedSequence((1, 0, 0)))))
    pixels = scene.pixels()
    assert (maker.VERSION, pixels.shape) == (7, (225, 286, 3))
    assert (
        hashlib.sha256(pixels.tobytes() + scene.owner.astype("<i8").tobytes()).hexdigest()
        == "d8992a60a4aa6c0628fecff14deaf67c6cb378155c8d57f357d29f68b761c582"
    )


def test_outlines_lose_the_points_on_their_straight_sides_wherever_they_start(maker):
    corners = [(0, 0), (0, 40), (60, 40), (60, 0)]
    outline = [(0, 0), (0, 20), (0, 40), (30, 42), (60, 40), (60, 10), (60, 0), (30, 0)]
    for start in range(len(outline)):
        points = maker._simplified(np.roll(np.array(outline), start, axis=0))
        assert [tuple(point) for point in points.tolist()] == corners
    # 3 away from its side is too far to leave out.
    outline[3] = (30, 43)
    assert (30, 43) in map(tuple, maker._simplified(np.array(outline)).tolist())


def test_seeds_and_splits_are_different_streams(maker, root, tmp_path):
    other = maker.make_shapes(tmp_path, 3, 3, seed=4)
    first = [path.read_bytes() for path in sorted((root / "shapes" / "train").iterdir())[:3]]
    assert not set(first) & {path.read_bytes() for path in (other / "train").iterdir()}
    assert not {p.read_bytes() for p in (root / "shapes" / "train").iterdir()} & {
        p.read_bytes() for p in (root / "shapes" / "val").iterdir()
    }


def test_promised_shares_hold(splits):
    # Counted here from the file, with nothing of the generator's own.
    annotations = splits["train"]["annotations"] + splits["val"]["annotations"]
    occluded = np.mean([a["occlusion"] > 0.25 for a in annotations])
    assert occluded >= 0.30
    assert max(a["occlusion"] for a in annotations) < 0.5
    sides = np.array([a["bbox"][2:] for a in annotations])
    assert sides.min() >= 16 and sides.max() <= 200
    assert (sides.max(axis=1) < 40).mean() > 0.08 and (sides.max(axis=1) > 110).mean() > 0.08
    shares = np.bincount([a["category_id"] for a in annotations], minlength=6)[1:] / len(annotations)
    assert shares.min() > 0.13 and shares.max() < 0.27
    rle = np.mean([isinstance(a["segmentation"], dict) for a in annotations])
    assert 0.15 < rle < 0.6
    assert all(isinstance(a["segmentation"]["counts"], str) for a in annotations if isinstance(a["segmentation"], dict))
    for split in splits.values():
        counts = np.bincount([a["image_id"] for a in split["annotations"]], minlength=len(split["images"]) + 1)[1:]
        assert counts.min() >= 1 and counts.max() == 6
        sizes = np.array([(image["width"], image["height"]) for image in split["images"]])
        assert sizes.min(axis=0).tolist() >= [256, 192] and (sizes <= [320, 256]).all() and sizes[:, 0].std() > 5


def test_statistics_count_by_hand(maker):
    annotation = {"bbox": [0, 0, 20, 30], "segmentation": [[0, 0, 20, 0, 20, 30]], "occlusion": 0.2, "image_id": 1}
    coco = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}],
        "annotations": [
            {**annotation, "category_id": 1},
            {**annotation, "category_id": 1, "occlusion": 0.5, "bbox": [0, 0, 17, 40]},
            {**annotation, "category_id": 1, "occlusion": 0.25},
            {**annotation, "category_id": 2, "image_id": 2, "segmentation": {"size": [9, 9], "counts": "x"}},
        ],
    }
    assert maker.statistics(coco) == {
        "images": 2,
        "instances": 4,
        "instances_per_image": [1, 3],
        "classes": {"disc": 0.75, "ring": 0.25},
        "sides": [17, 40],
        "occluded": 0.25,
        "most_hidden": 0.5,
        "rle": 0.25,
    }


def test_boxes_areas_and_masks_are_of_the_visible_part(root, splits):
    coco = COCO(str(root / "shapes" / "annotations" / "instances_train.json"))
    worst = 1.0
    for image in splits["train"]["images"]:
        taken = np.zeros((image["height"], image["width"]), int)
        for annotation in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(annotation)
            taken += mask
            x, y, w, h = annotation["bbox"]
            assert np.abs(np.subtract(coco_mask.toBbox(coco.annToRLE(annotation)), [x, y, w, h])).max() <= 1.01
            if isinstance(annotation["segmentation"], dict):
                assert mask.sum() == annotation["area"]
            worst = min(worst, min(mask.sum(), annotation["area"]) / max(mask.sum(), annotation["area"]))
        # What two masks share is at most the rounding of their outlines.
        assert (taken > 1).sum() <= 0.02 * taken.size
    assert worst > 0.9


def test_occlusion_is_the_share_of_the_whole_shape_that_is_hidden(maker):
    rng = np.random.Generator(np.random.PCG64(0))
    scene = maker.Scene(rng)
    scene.owner[:] = 0
    scene.things.clear()
    whole = np.ones((20, 30), bool)
    for top, left in ((10, 10), (20, 25)):
        scene.things.append(type("Whole", (), {"category": 0, "pixels": 600})())
        scene._paint(whole, top, left, len(scene.things))
    # The second hides 10 x 15 of the 20 x 30 px of the first.
    assert scene.hidden() == [0.25, 0.0]


@pytest.mark.parametrize(
    ("name", "area"),
    [
        # Areas in the unit square -1..1 over that of the box, by hand; none is turned or stretched.
        ("disc", np.pi / 4),
        ("ring", np.pi * 0.8 / 4),
        ("triangle", 0.5),
        ("rectangle", 1.0),
        ("cross", (2 * 2 * 0.76 - 0.76**2) / 4),
    ],
)
def test_shapes_have_the_areas_of_their_formulas(maker, name, area):
    mask = sys.modules["shape_scenes"].shape_mask(name, 200, 0.0)
    assert max(mask.shape) == 200
    assert mask.mean() == pytest.approx(area, abs=0.006)


def test_images_decode_to_the_size_the_json_gives(root, splits):
    for image in splits["val"]["images"]:
        pixels = cv2.imread(str(root / "shapes" / "val" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)


def test_colour_does_not_tell_the_class(root, splits):
    """Mean colours of the classes differ by no more than chance lets them (a few standard errors)."""
    coco = COCO(str(root / "shapes" / "annotations" / "instances_train.json"))
    colours: dict[int, list] = {}
    for image in splits["train"]["images"]:
        pixels = cv2.imread(str(root / "shapes" / "train" / image["file_name"]))
        for annotation in coco.imgToAnns[image["id"]]:
            mean = pixels[coco.annToMask(annotation) > 0].mean(axis=0)
            colours.setdefault(annotation["category_id"], []).append(mean)
    everything = np.concatenate(list(colours.values()))
    for values in colours.values():
        error = everything.std(axis=0) / np.sqrt(len(values))
        assert (np.abs(np.mean(values, axis=0) - everything.mean(axis=0)) < 4 * error).all()


def test_a_complete_set_is_left_alone(maker, tmp_path):
    folder = maker.make_shapes(tmp_path, 2, 1, seed=5)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert maker.make_shapes(tmp_path, 2, 1, seed=5) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("what", ["foreign", "other seed", "damaged", "lost", "torn marker", "a file"])
def test_something_else_is_never_written_over(maker, tmp_path, what, capsys):
    folder = tmp_path / "shapes"
    if what == "foreign":
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    elif what == "a file":
        folder.write_text("mine")
    else:
        maker.make_shapes(tmp_path, 2, 1, seed=6 if what == "other seed" else 5)
        if what == "damaged":
            (folder / "train" / "000001.jpg").write_bytes(b"cut")
        elif what == "lost":
            (folder / "val" / "000001.jpg").unlink()
        elif what == "torn marker":
            (folder / maker.MARKER).write_text('{"parameters"')
    before = files_of(tmp_path)
    assert maker.main(["--root", str(tmp_path), "--train", "2", "--val", "1", "--seed", "5"]) == 1
    assert str(folder) in capsys.readouterr().err
    assert files_of(tmp_path) == before


def test_an_interrupted_run_leaves_nothing(maker, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(maker, "_digest", stop)
    with pytest.raises(KeyboardInterrupt):
        maker.make_shapes(tmp_path, 1, 1, seed=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--train", "0"], ["--val", "-1"], ["--seed", "-1"]])
def test_impossible_parameters_get_a_sentence(maker, tmp_path, arguments, capsys):
    assert maker.main(["--root", str(tmp_path / "new"), *arguments]) == 1
    assert arguments[1] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_every_pixel_has_a_class_and_a_segment(maker, tmp_path):
    """Things are 0 in the stuff PNGs; the panoptic ones have each instance's visible pixels, and the plain files stay
    byte for byte what they are without."""
    plain, labelled = (
        maker.make_shapes(tmp_path / "a", 3, 2, seed=3),
        maker.make_shapes(tmp_path / "b", 3, 2, seed=3, panoptic=True),
    )
    ours, more = files_of(plain), files_of(labelled)
    assert all(more[name] == data for name, data in ours.items() if name != maker.MARKER)
    content = json.loads((labelled / "annotations" / "panoptic_train.json").read_text())
    instances = json.loads((labelled / "annotations" / "instances_train.json").read_text())
    assert [c["name"] for c in content["categories"] if not c["isthing"]] == list(maker.STUFF)
    for annotation in content["annotations"]:
        name = annotation["file_name"]
        pixels = cv2.imread(str(labelled / "panoptic_train" / name)).astype(int)
        numbers = pixels[..., 2] + 256 * pixels[..., 1] + 65536 * pixels[..., 0]
        labels = cv2.imread(str(labelled / "panoptic_stuff_train" / name), cv2.IMREAD_UNCHANGED)
        infos = {info["id"]: info for info in annotation["segments_info"]}
        assert set(infos) == set(np.unique(numbers)) and all(
            info["area"] == (numbers == number).sum() for number, info in infos.items()
        )
        for number, info in infos.items():
            wanted = 0 if info["category_id"] <= 5 else info["category_id"] - 5
            assert (labels[numbers == number] == wanted).all()
        things = sorted(info["area"] for info in infos.values() if info["category_id"] <= 5)
        own = [a["area"] for a in instances["annotations"] if a["image_id"] == annotation["image_id"]]
        assert things == sorted(own)
