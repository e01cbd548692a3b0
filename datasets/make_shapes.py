"""Make the shapes data set: five classes told apart by shape alone, with masks and corners, in COCO's format.

    python datasets/make_shapes.py [--root FOLDER] [--train 1000] [--val 100] [--seed 1] [--panoptic]

writes ROOT/shapes/{train,val}/*.jpg and ROOT/shapes/annotations/instances_{train,val}.json; ROOT is DETECTRON2_DATASETS
(./datasets when that is not set). With --panoptic the textures of backgrounds are classes of stuff, and
ROOT/shapes/annotations/panoptic_{train,val}.json, panoptic_{train,val}/*.png and panoptic_stuff_{train,val}/*.png come
beside it, as Detectron2 lays out COCO's. Needs numpy, OpenCV and pycocotools, not se_det itself. The same parameters
give the same bytes on any machine; shape_scenes.py, which draws the images, says how.

    python datasets/make_shapes.py --large 4000 --train 5 --val 2

writes ROOT/shapes_large instead: square images of 4,000 px a side with small shapes (large_scenes.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from large_scenes import LargeScene
from pycocotools import mask as coco_mask
from shape_scenes import CLASSES, STUFF, Scene, box_of

VERSION = 7  # raise it whenever the same parameters would give other bytes
CORNERS = ("top_left", "top_right", "bottom_right", "bottom_left")
MARKER = "make_shapes.json"
RLE_SHARE = 0.25  # masks written as RLE although a polygon would do
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_OPTIMIZE, 0, cv2.IMWRITE_JPEG_PROGRESSIVE, 0)


def _polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Outlines of `mask` in px of the image, a quarter of a px exact; None when holes or crumbs need an RLE."""
    x, y, width, height = box_of(mask)
    fine = np.repeat(np.repeat(mask[y : y + height, x : x + width], 4, axis=0), 4, axis=1)
    contours, hierarchy = cv2.findContours(fine.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():
        return None
    polygons = []
    for contour in contours:
        points = _simplified(contour[:, 0, :].astype(np.int64))
        if len(points) < 3:
            return None
        # Contours run through the centres of the fine pixels, which lie an eighth of a px inside of the edge.
        polygons.append([float(value) for value in ((points + 0.5) / 4 + (x, y)).ravel()])
    return sorted(polygons)


def _simplified(points: np.ndarray) -> np.ndarray:
    """A closed outline with the points left out that lie within 2.5 of the line without them (Douglas and Peucker).

    In whole numbers and from a start of its own: OpenCV's approxPolyDP gives other points in other versions.
    """
    points = np.roll(points, -np.lexsort((points[:, 1], points[:, 0]))[0], axis=0)
    points = np.concatenate([points, points[:1]])
    far = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    keep, spans = {0, far}, [(0, far), (far, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        (x, y), (dx, dy) = points[first], points[last] - points[first]
        across = np.abs((points[first + 1 : last, 0] - x) * dy - (points[first + 1 : last, 1] - y) * dx)
        worst = int(across.argmax())
        if 4 * int(across[worst]) ** 2 > 25 * int(dx * dx + dy * dy):
            middle = first + 1 + worst
            keep.add(middle)
            spans += [(first, middle), (middle, last)]
    return points[sorted(keep)]


def _segmentation(mask: np.ndarray, prefer_rle: bool) -> list[list[float]] | dict:
    polygons = None if prefer_rle else _polygons(mask)
    if polygons is not None:
        decoded = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))).astype(bool)
        # Not those that would round off a sharp tip.
        apart = max(abs(a - b) for a, b in zip(box_of(decoded), box_of(mask)))
        if apart <= 1 and (decoded & mask).sum() >= 0.93 * (decoded | mask).sum():
            return polygons
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _annotations(scene: Scene) -> list[dict]:
    """COCO annotations of a scene, without their ids."""
    if isinstance(scene, LargeScene):
        return [_annotation_at(scene, i) for i in range(len(scene.things))]
    annotations = []
    for i, (thing, hidden) in enumerate(zip(scene.things, scene.hidden())):
        mask = scene.owner == i + 1
        segmentation = _segmentation(mask, scene.rng.random() < RLE_SHARE)
        annotations.append(
            {
                "category_id": thing.category + 1,
                "bbox": list(box_of(mask)),
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": segmentation,
                "occlusion": round(hidden, 4),
                **_keypoints(thing.corners, scene.owner, i + 1),
            }
        )
    return annotations


def _keypoints(corners: Sequence[tuple[int, int]], owner: np.ndarray, number: int) -> dict:
    """COCO's keypoints of the instance of that number; one without corners has none labelled."""
    values = [v for x, y in corners for v in (x, y, 2 if owner[y, x] == number else 1)]
    return {"keypoints": values or [0] * (3 * len(CORNERS)), "num_keypoints": len(corners)}


def _annotation_at(scene: LargeScene, i: int) -> dict:
    """The annotation of one shape of many, without looking at all of the image for it."""
    left, top, mask = scene.places[i]
    polygons = _segmentation(mask, scene.rng.random() < RLE_SHARE)
    if isinstance(polygons, dict):
        whole = np.zeros((scene.height, scene.width), bool)
        whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        segmentation = _segmentation(whole, True)
    else:
        segmentation = [[value + (left, top)[at % 2] for at, value in enumerate(one)] for one in polygons]
    return {
        "category_id": scene.things[i].category + 1,
        "bbox": [left, top, mask.shape[1], mask.shape[0]],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation,
        "occlusion": 0.0,
    }


def statistics(coco: dict) -> dict:
    """Counts, shares and sizes of a split: what the data set promises, computed from its annotations.

    `sides` are the smallest and largest side of the boxes of the visible parts, in px; `occluded` is the share of
    instances of which more than a quarter is hidden.
    """
    annotations = coco["annotations"]
    total = max(len(annotations), 1)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    sides = [side for annotation in annotations for side in annotation["bbox"][2:]]
    per_image = np.bincount([annotation["image_id"] for annotation in annotations], minlength=len(coco["images"]) + 1)
    return {
        "images": len(coco["images"]),
        "instances": len(annotations),
        "instances_per_image": [int(per_image[1:].min()), int(per_image[1:].max())],
        "classes": {
            name: round(sum(a["category_id"] == key for a in annotations) / total, 4) for key, name in names.items()
        },
        "sides": [min(sides, default=0), max(sides, default=0)],
        "occluded": round(sum(a["occlusion"] > 0.25 for a in annotations) / total, 4),
        "most_hidden": max((a["occlusion"] for a in annotations), default=0.0),
        "rle": round(sum(isinstance(a["segmentation"], dict) for a in annotations) / total, 4),
    }


def _segments(scene: Scene) -> tuple[np.ndarray, list[dict]]:
    """Panoptic segments of a scene: their numbers at each pixel, instances first, and what COCO says of them."""
    numbers, infos = scene.owner.copy(), []
    for kind in np.unique(scene.stuff[scene.owner == 0]).tolist():
        numbers[(scene.owner == 0) & (scene.stuff == kind)] = len(scene.things) + 1 + kind
    for number in np.unique(numbers).tolist():
        mask = numbers == number
        thing = number <= len(scene.things)
        category = scene.things[number - 1].category if thing else len(CLASSES) + number - len(scene.things) - 1
        infos.append({
            "id": number, "category_id": category + 1, "area": int(mask.sum()), "bbox": list(box_of(mask)),
            "iscrowd": 0,
        })  # fmt: skip
    return numbers, infos


def _write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3), BGR."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise OSError(f"OpenCV could not encode {path} as PNG.")
    path.write_bytes(data.tobytes())


def _write_panoptic(folder: Path, split: str, index: int, scene: Scene, panoptic: dict) -> None:
    """Write the two PNGs of an image, and add it to the panoptic annotations."""
    name = f"{index + 1:06d}.png"
    numbers, infos = _segments(scene)
    labels = np.where(scene.owner > 0, 0, scene.stuff + 1)
    _write_png(
        folder / f"panoptic_{split}" / name, np.stack([numbers * 0, numbers * 0, numbers], axis=2).astype(np.uint8)
    )
    _write_png(folder / f"panoptic_stuff_{split}" / name, labels.astype(np.uint8))
    panoptic["images"].append(
        {"id": index + 1, "file_name": f"{index + 1:06d}.jpg", "width": scene.width, "height": scene.height}
    )
    panoptic["annotations"].append({"image_id": index + 1, "file_name": name, "segments_info": infos})


def _write_split(
    folder: Path, split: str, stream: int, count: int, seed: int, large: int | None, with_panoptic: bool
) -> dict:
    """Write the images and the annotations of one split; return the annotations."""
    (folder / split).mkdir(parents=True)
    names = [*((name, "shape", 1) for name in CLASSES), *((name, "background", 0) for name in STUFF)]
    panoptic = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": i + 1, "name": name, "supercategory": above, "isthing": thing}
            for i, (name, above, thing) in enumerate(names)
        ],
    }
    for kind in ("panoptic", "panoptic_stuff") if with_panoptic else ():
        (folder / f"{kind}_{split}").mkdir()
    coco = {
        "info": {"description": f"shapes, {split}, made by make_shapes.py", "version": str(VERSION)},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [
            {
                "id": i + 1,
                "name": name,
                "supercategory": "shape",
                "keypoints": list(CORNERS),
                "skeleton": [[1, 2], [2, 3], [3, 4], [4, 1]],
            }
            for i, name in enumerate(CLASSES)
        ],
    }
    for index in range(count):
        # A stream of its own for every image: an image does not depend on how many others there are.
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream, index))))
        scene = Scene(rng) if large is None else LargeScene(rng, large)
        name = f"{index + 1:06d}.jpg"
        done, data = cv2.imencode(".jpg", scene.pixels(), JPEG)
        if not done:
            raise OSError(f"OpenCV could not encode {folder / split / name} as JPEG.")
        (folder / split / name).write_bytes(data.tobytes())
        coco["images"].append({"id": index + 1, "file_name": name, "width": scene.width, "height": scene.height})
        for annotation in _annotations(scene):
            coco["annotations"].append({"id": len(coco["annotations"]) + 1, "image_id": index + 1, **annotation})
        if with_panoptic:
            _write_panoptic(folder, split, index, scene, panoptic)
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")
    if with_panoptic:
        (folder / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(panoptic), encoding="utf-8")
    return coco


def _digest(folder: Path) -> str:
    """SHA-256 over names and bytes of all files but the marker."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MARKER):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _check_existing(folder: Path, parameters: dict) -> bool:
    """True when `folder` holds exactly this set, False when there is nothing yet.

    Raises:
        FileExistsError: it holds something else, or a set that was changed.
    """
    if (folder.is_dir() and not any(folder.iterdir())) or not os.path.lexists(folder):
        return False
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        present, digest = marker["parameters"], marker["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FileExistsError(
            f"{folder} is there and was not made by make_shapes.py (it has no readable {MARKER}); move it away or give "
            "another folder with --root."
        ) from None
    if present != parameters:
        raise FileExistsError(
            f"{folder} holds a shapes set made with other parameters ({present} instead of {parameters}); remove it, "
            "give the same parameters, or give another folder with --root."
        )
    if _digest(folder) != digest:
        raise FileExistsError(f"{folder} holds a shapes set whose files were changed or lost; remove it and run again.")
    return True


def make_shapes(
    root: str | os.PathLike,
    num_train: int = 1000,
    num_val: int = 100,
    seed: int = 1,
    large: int | None = None,
    *,
    panoptic: bool = False,
) -> Path:
    """Write the data set into `root`/shapes and return that folder; do nothing when it is there already, complete.

    It is built beside its place and renamed, so an interrupted run leaves no half of it under its name.

    Args:
        large: px of the sides of large images with small shapes, which go to `root`/shapes_large.

    Raises:
        ValueError: a count below 1, a negative seed, or large images below 256 px.
        FileExistsError: the folder holds something else, which is left as it is.
    """
    parameters = {"num_train": num_train, "num_val": num_val, "seed": seed, "version": VERSION}
    limits = [("num_train", num_train, 1), ("num_val", num_val, 1), ("seed", seed, 0)]
    if panoptic:
        parameters["panoptic"] = True
    if large is not None:
        if panoptic:
            raise ValueError("panoptic: large scenes have no classes of stuff; leave one of the two out.")
        parameters["large"] = large
        limits.append(("large", large, 256))
    for name, value, low in limits:
        if value < low:
            raise ValueError(f"{name} is {value}; it must be at least {low}.")
    root = Path(root)
    folder = root / ("shapes" if large is None else "shapes_large")
    if _check_existing(folder, parameters):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".shapes.", suffix=".tmp", dir=root))
    try:
        building.chmod(0o755)  # mkdtemp makes it private
        splits = {
            split: statistics(_write_split(building, split, stream, count, seed, large, panoptic))
            for stream, (split, count) in enumerate((("train", num_train), ("val", num_val)))
        }
        marker = {"parameters": parameters, "sha256": _digest(building), "statistics": splits}
        (building / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        try:
            os.replace(building, folder)
        except OSError:
            # Another run may have finished the same set in the meantime.
            if not _check_existing(folder, parameters):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the shapes data set (COCO format).")
    parser.add_argument(
        "--root",
        default=os.environ.get("DETECTRON2_DATASETS", "datasets"),
        help="folder to make shapes/ in (default: DETECTRON2_DATASETS, else ./datasets)",
    )
    parser.add_argument("--train", type=int, default=1000, help="number of training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="number of held-out images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--panoptic", action="store_true", help="label every pixel too: stuff and panoptic PNGs")
    parser.add_argument(
        "--large", type=int, metavar="PX", help="square images of so many px a side with small shapes (shapes_large)"
    )
    given = parser.parse_args(arguments)
    try:
        folder = make_shapes(given.root, given.train, given.val, given.seed, given.large, panoptic=given.panoptic)
    except (ValueError, OSError) as error:
        print(f"make_shapes: {error}", file=sys.stderr)
        return 1
    for split, numbers in json.loads((folder / MARKER).read_text(encoding="utf-8"))["statistics"].items():
        print(f"{folder / split}: {json.dumps(numbers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
