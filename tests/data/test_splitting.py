"""Held-out images: stratified, the same for the same files, and no near-duplicate on the other side."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from se_det.data.near_duplicates import group_images
from se_det.data.splitting import choose_held_out, make_split
from se_det.errors import DataError


def picture(seed: int, side: int = 240) -> np.ndarray:
    """Blobs and edges, of which no two seeds share any."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(25):
        corner, size = rng.integers(0, side, 2).tolist(), rng.integers(8, 60, 2)
        end = [int(c + s) for c, s in zip(corner, size)]
        color = rng.integers(0, 256, 3).tolist()
        (cv2.rectangle if rng.random() < 0.5 else cv2.line)(image, corner, end, color, int(rng.integers(1, 6)))
    return image


VARIANTS = {
    "encoded again": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
    "cropped": lambda x: x[15:220, 30:],
    "cropped to 60 %": lambda x: x[50:210, 20:180],
    "mirrored": lambda x: x[:, ::-1],
    "smaller": lambda x: cv2.resize(x, None, fx=0.4, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda x: cv2.convertScaleAbs(x, alpha=0.8, beta=50),
    "the next frame": lambda x: np.roll(x, (3, 5), (0, 1)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """20 different pictures, and of the first each variant."""
    folder, found = tmp_path_factory.mktemp("pictures"), {}
    for name, image in [*((f"p{i:02d}", picture(i)) for i in range(20)),
                        *((name, variant(picture(0))) for name, variant in VARIANTS.items())]:  # fmt: skip
        found[name] = folder / f"{name.replace(' ', '_').replace('%', '')}.png"
        cv2.imwrite(str(found[name]), image)
    return found


def test_variants_are_grouped_and_others_are_not(files: dict[str, Path]) -> None:
    groups = dict(zip(files, group_images(list(files.values())).tolist()))
    assert {groups[name] for name in VARIANTS} == {groups["p00"]}
    assert len({groups[f"p{i:02d}"] for i in range(20)}) == 20


def test_a_watermark_does_not_make_a_group(tmp_path: Path) -> None:
    paths = []
    for i in range(6):
        image = picture(100 + i)
        cv2.putText(image, "sample.org", (20, 130), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 3)
        paths.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(paths[-1]), image)
    assert len(set(group_images(paths).tolist())) == 6


def test_copies_of_one_picture_by_name_are_grouped_and_unreadable_files_are_not(tmp_path: Path) -> None:
    paths = [tmp_path / f"cat_jpg.rf.{i:032x}.jpg" for i in range(2)] + [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for i, path in enumerate(paths[:2]):
        cv2.imwrite(str(path), picture(200 + i))
    for path in paths[2:]:
        path.write_bytes(b"")
    assert group_images(paths).tolist() == [0, 0, 2, 3]


def test_classes_are_held_out_in_their_proportion() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([2.0, 0.5, 0.1, 0.02])
    counts = rng.poisson(rates, (500, 4))
    groups = np.where(rng.random(500) < 0.2, np.maximum(np.arange(500) - 1, 0), np.arange(500))
    held_out = choose_held_out(groups, counts, [f"{i}.jpg" for i in range(500)], share=0.2)
    assert abs(held_out.mean() - 0.2) < 0.03
    shares = counts[held_out].sum(0) / counts.sum(0)
    assert (np.abs(shares[:3] - 0.2) < 0.04).all() and 0.05 < shares[3] < 0.4
    for group in np.unique(groups):
        assert len(set(held_out[groups == group])) == 1
    order = rng.permutation(500)
    relabelled = np.unique(groups[order], return_inverse=True)[1]
    again = choose_held_out(np.arange(500)[order], counts[order], [f"{i}.jpg" for i in order], share=0.2)
    assert (again == choose_held_out(np.arange(500), counts, [f"{i}.jpg" for i in range(500)], share=0.2)[order]).all()
    assert len(relabelled) == 500


def test_a_class_of_one_image_is_trained_on() -> None:
    counts = np.zeros((10, 2))
    counts[:, 0], counts[3, 1] = 1, 1
    assert not choose_held_out(np.arange(10), counts, [str(i) for i in range(10)], share=0.5)[3]


def write_coco(path: Path, images: list[Path]) -> Path:
    entries = [{"id": i + 1, "file_name": p.name, "width": 240, "height": 240, "license": 3}
               for i, p in enumerate(images)]  # fmt: skip
    for entry, image in zip(entries, images):
        entry["height"], entry["width"] = cv2.imread(str(image)).shape[:2]
    boxes = [{"id": i + 1, "image_id": i + 1, "category_id": 7, "bbox": [1, 1, 20, 30], "area": 600, "iscrowd": 0}
             for i in range(len(images))]  # fmt: skip
    categories = [{"id": 7, "name": "thing"}]
    path.write_text(json.dumps({"images": entries, "annotations": boxes, "categories": categories}))
    return path


def test_no_near_duplicate_is_on_both_sides(files: dict[str, Path], tmp_path: Path) -> None:
    source = write_coco(tmp_path / "all.json", list(files.values()))
    folder = next(iter(files.values())).parent
    split = make_split(source, folder, tmp_path / "split")
    sides = [{image["file_name"] for image in json.loads(path.read_text())["images"]}
             for path in (split.train, split.val)]  # fmt: skip
    assert len(sides[0]) == split.train_images and len(sides[1]) == split.val_images
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == len(files)
    same = {files[name].name for name in ("p00", *VARIANTS)}
    assert same <= sides[0] or same <= sides[1]
    assert split.grouped == len(VARIANTS) and not split.warning
    before = split.train.read_bytes()
    make_split(source, folder, tmp_path / "split")
    assert split.train.read_bytes() == before
    tree = json.loads(split.val.read_text())
    assert {a["image_id"] for a in tree["annotations"]} == {i["id"] for i in tree["images"]}
    assert all(image["license"] == 3 for image in tree["images"])


def test_of_one_film_the_end_is_held_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"frame_{i:03d}.png" for i in range(15)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), np.roll(picture(1), (i, 2 * i), (0, 1)))
    split = make_split(write_coco(tmp_path / "all.json", paths), tmp_path, tmp_path / "split")
    held = [image["file_name"] for image in json.loads(split.val.read_text())["images"]]
    assert held == [p.name for p in paths[-3:]] and "frames of one film" in split.warning


def test_one_image_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    with pytest.raises(DataError, match="has 1 image"):
        make_split(write_coco(tmp_path / "all.json", [tmp_path / "a.png"]), tmp_path, tmp_path / "split")


def test_objects_are_held_out_though_each_class_is_in_one_image(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), picture(300 + i))
    source = write_coco(tmp_path / "all.json", paths)
    tree = json.loads(source.read_text())
    tree["categories"] = [{"id": i, "name": f"class {i}"} for i in range(1, 11)]
    for i, annotation in enumerate(tree["annotations"], 1):
        annotation["category_id"] = i
    source.write_text(json.dumps(tree))
    split = make_split(source, tmp_path, tmp_path / "split")
    assert len(json.loads(split.val.read_text())["annotations"]) == split.val_images == 2
