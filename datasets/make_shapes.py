"""Make the shapes data set: five classes told apart by shape alone, with instance masks, in COCO's format.

    python datasets/make_shapes.py [--root FOLDER] [--train 1000] [--val 100] [--seed 1]

writes ROOT/shapes/{train,val}/*.jpg and ROOT/shapes/annotations/instances_{train,val}.json; ROOT is DETECTRON2_DATASETS
(./datasets when that is not set). Needs numpy, OpenCV and pycocotools, not se_det itself.

The same parameters give the same bytes everywhere: the random numbers are PCG64 integers and 53-bit fractions, angles
are rounded before use, and pixels come from single additions, products and square roots, which IEEE 754 fixes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

CLASSES = ("disc", "ring", "triangle", "rectangle", "cross")
VERSION = 2  # raise it whenever the same parameters would give other bytes
MARKER = "make_shapes.json"

SIDES = (16, 200)  # px, both sides of an instance's box, hidden parts not counted
MAX_INSTANCES = 6
MAX_HIDDEN = 0.62  # an instance with more than this behind others would be a guess
OVERLAP_SHARE = 0.68  # how often a new instance is put partly over an earlier one
BAND_SHARE = 0.2  # how often a strip of background runs over everything
RIM = (45, 90)  # grey levels by which the rim of a shape is darker or lighter than its inside
RLE_SHARE = 0.25  # masks written as RLE although a polygon would do
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_OPTIMIZE, 0, cv2.IMWRITE_JPEG_PROGRESSIVE, 0)


# ------------------------------------------------------------------------------------------------------------ shapes


def inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points (u, v) of the square -1..1 lie in the shape `name` before it is turned and stretched; bool."""
    if name == "disc":
        return u * u + v * v <= 1
    if name == "ring":
        square = u * u + v * v
        return (square <= 1) & (square >= 0.3)
    if name == "triangle":
        return (v >= -0.6) & (v <= 1 - 1.6 * np.abs(u))
    if name == "rectangle":
        return (np.abs(u) <= 0.9) & (np.abs(v) <= 0.9)
    if name == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) <= 0.32) & (np.maximum(np.abs(u), np.abs(v)) <= 1)
    raise ValueError(f"There is no shape {name!r}; the shapes are {', '.join(CLASSES)}.")


_CORNERS = {
    "triangle": ((-1, -0.6), (1, -0.6), (0, 1)),
    "rectangle": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "cross": tuple((a * x, b * y) for x, y in ((1, 0.32), (0.32, 1)) for a in (-1, 1) for b in (-1, 1)),
}


def shape_mask(name: str, size: float, angle: float, aspect: float = 1.0, shear: float = 0.0) -> np.ndarray:
    """The shape stretched by `aspect`, sheared, turned by `angle` (radians) and cut to its box; bool (h, w).

    `size` is the longer side of the box, in px.
    """
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
    # x = (a b; c d) u: turn * (1 shear; 0 aspect)
    a, b = cos, cos * shear - sin * aspect
    c, d = sin, sin * shear + cos * aspect
    if name in _CORNERS:
        xs, ys = zip(*((a * u + b * v, c * u + d * v) for u, v in _CORNERS[name]))
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    else:
        right, bottom = math.sqrt(a * a + b * b), math.sqrt(c * c + d * d)
        left, top = -right, -bottom
    scale = size / max(right - left, bottom - top)
    width, height = (max(1, round(scale * side)) for side in (right - left, bottom - top))
    x = ((np.arange(width) + 0.5) / scale + left)[None, :]
    y = ((np.arange(height) + 0.5) / scale + top)[:, None]
    determinant = a * d - b * c
    mask = inside(name, (x * d - y * b) / determinant, (y * a - x * c) / determinant)
    # A sharp tip may miss every pixel centre of the outermost row or column.
    left, top, width, height = _box(mask)
    return mask[top : top + height, left : left + width]


# ---------------------------------------------------------------------------------------------------------- textures


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    # Generator.uniform may fuse its product and sum on some processors; this does not.
    return low + (high - low) * rng.random()


def _field(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """How far each pixel is from the first colour of a texture to the second, 0..1; float64 (height, width)."""
    angle = _between(rng, 0, math.pi)
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
    x, y = np.arange(width)[None, :] - width / 2, np.arange(height)[:, None] - height / 2
    along, across = x * cos + y * sin, y * cos - x * sin
    kind = int(rng.integers(5))
    period = _between(rng, 7, max(9, min(26, 0.5 * min(height, width))))
    if kind == 0:  # stripes, soft or hard
        wave = along / period + rng.random()
        wave = np.abs(2 * (wave - np.floor(wave)) - 1)
        return wave if rng.random() < 0.5 else (wave > 0.5) * 1.0
    if kind == 1:  # checks
        return (np.floor(along / period) + np.floor(across / period)) % 2
    if kind == 2:  # a gradient with fine stripes across it
        low, high = along.min(), along.max()
        wave = across / period + rng.random()
        return 0.55 * (along - low) / max(high - low, 1.0) + 0.45 * (wave - np.floor(wave) > 0.5)
    if kind == 3:  # clouds: random values on a coarse grid, interpolated
        grid = rng.random((int(height / period) + 2, int(width / period) + 2))
        row, column = np.arange(height) / period, np.arange(width) / period
        i, j = row.astype(int), column.astype(int)
        f, g = (row - i)[:, None], (column - j)[None, :]
        upper = grid[i][:, j] * (1 - g) + grid[i][:, j + 1] * g
        lower = grid[i + 1][:, j] * (1 - g) + grid[i + 1][:, j + 1] * g
        return upper * (1 - f) + lower * f
    cell = int(rng.integers(2, 5))  # speckle
    grid = rng.random((height // cell + 1, width // cell + 1))
    return np.repeat(np.repeat(grid, cell, axis=0), cell, axis=1)[:height, :width]


def _palette(rng: np.random.Generator) -> np.ndarray:
    """The colours of an image, of which every texture takes two; float64 (4, 3)."""
    best, widest = None, -1.0
    for _ in range(6):
        colours = rng.integers(15, 241, (4, 3)).astype(np.float64)
        gaps = np.abs(colours[:, None] - colours[None]).sum(axis=2)
        gap = gaps[np.triu_indices(4, 1)].min()
        if gap > widest:
            best, widest = colours, gap
    return best


def _texture(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """Two colours of the palette, a little off, in a pattern; int16 (height, width, 3)."""
    first = int(rng.integers(len(palette)))
    second = (first + int(rng.integers(1, len(palette)))) % len(palette)
    first, second = palette[[first, second]] + rng.integers(-18, 19, (2, 3))
    return (first + (second - first) * _field(rng, height, width)[..., None]).astype(np.int16)


def _background(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """One texture, or two that meet at a straight line; int16 (height, width, 3)."""
    image = _texture(rng, height, width, palette)
    if rng.random() < 0.4:
        angle = _between(rng, 0, 2 * math.pi)
        cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
        x, y = np.arange(width)[None, :] - width / 2, np.arange(height)[:, None] - height / 2
        beyond = x * cos + y * sin > _between(rng, -0.25, 0.25) * min(height, width)
        image = np.where(beyond[..., None], _texture(rng, height, width, palette), image)
    return image


# ------------------------------------------------------------------------------------------------------------- scenes


@dataclass
class Thing:
    """An instance in a scene: its class, and how many pixels it would show with nothing in front of it."""

    category: int
    pixels: int


class Scene:
    """An image that is painted from back to front; `owner` says which instance each pixel shows (0: none)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.width, self.height = int(rng.integers(256, 321)), int(rng.integers(192, 257))
        self.palette = _palette(rng)
        self.image = _background(rng, self.height, self.width, self.palette)
        self.owner = np.zeros((self.height, self.width), np.int64)
        self.things: list[Thing] = []
        for _ in range(int(rng.integers(1, MAX_INSTANCES + 1))):
            self._add_instance()
        if rng.random() < BAND_SHARE:
            self._add_band()

    def hidden(self) -> list[float]:
        """The share of each instance that lies behind others, 0..1."""
        seen = np.bincount(self.owner.ravel(), minlength=len(self.things) + 1)
        return [1 - int(seen[i + 1]) / thing.pixels for i, thing in enumerate(self.things)]

    def pixels(self) -> np.ndarray:
        """The finished image: edges softened, sensor noise added; uint8 (height, width, 3)."""
        image = np.pad(self.image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        image = image[:-2] + 2 * image[1:-1] + image[2:]
        image = (image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:] + 8) >> 4
        noise = self.rng.integers(-7, 8, image.shape, dtype=np.int16)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    def _add_instance(self) -> None:
        rng = self.rng
        category = int(rng.integers(len(CLASSES)))
        mask = self._draw_mask(category)
        place = self._find_place(mask)
        if place is not None:
            self.things.append(Thing(category, int(mask.sum())))
            self._paint(mask, *place, len(self.things))

    def _draw_mask(self, category: int) -> np.ndarray:
        rng = self.rng
        low, high = SIDES
        while True:
            # Evenly spread on a logarithmic scale, so that the small sizes are as frequent as the large ones.
            size = round(20 * (high / 20) ** rng.random())
            angle, aspect = _between(rng, 0, 2 * math.pi), _between(rng, 0.6, 1.0)
            mask = shape_mask(CLASSES[category], size, angle, aspect, _between(rng, -0.2, 0.2))
            height, width = mask.shape
            if min(mask.shape) >= low and height <= self.height - 4 and width <= self.width - 4:
                return mask

    def _find_place(self, mask: np.ndarray) -> tuple[int, int] | None:
        """Top and left of a place where everything stays recognisable, or None."""
        rng = self.rng
        height, width = mask.shape
        target, hidden = 0, self.hidden()
        free = [i + 1 for i, share in enumerate(hidden) if share < 0.1]
        if free and rng.random() < OVERLAP_SHARE:
            target = free[int(rng.integers(len(free)))]
            rows, columns = np.nonzero(self.owner == target)
            top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        for attempt in range(60):
            if target and attempt < 50:
                y, x = rng.integers(top - height, bottom + 2), rng.integers(left - width, right + 2)
            else:
                y, x = rng.integers(2, self.height - height - 1), rng.integers(2, self.width - width - 1)
            y, x = int(y), int(x)
            if not (2 <= y <= self.height - height - 2 and 2 <= x <= self.width - width - 2):
                continue
            covered = np.bincount(self.owner[y : y + height, x : x + width][mask], minlength=len(self.things) + 1)
            if target and attempt < 50 and not 0.27 <= covered[target] / self.things[target - 1].pixels <= 0.55:
                continue
            if self._stays_recognisable(covered, hidden, mask, y, x):
                return y, x
        return None

    def _stays_recognisable(
        self, covered: np.ndarray, hidden: list[float], mask: np.ndarray, y: int, x: int
    ) -> bool:
        touched = np.flatnonzero(covered[1:])
        if any(hidden[i] + covered[i + 1] / self.things[i].pixels > MAX_HIDDEN for i in touched):
            return False
        if not len(touched):
            return True
        after = self.owner.copy()
        after[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = 0
        return all(min(_box(after == i + 1)[2:]) >= SIDES[0] for i in touched)

    def _add_band(self) -> None:
        """A strip across the whole image, hiding what it runs over unless that would hide too much."""
        rng = self.rng
        for _ in range(10):
            angle = _between(rng, 0, math.pi)
            cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
            x, y = np.arange(self.width)[None, :] - self.width / 2, np.arange(self.height)[:, None] - self.height / 2
            offset = _between(rng, -0.3, 0.3) * self.height
            mask = np.abs(x * cos + y * sin - offset) <= _between(rng, 6, 20)
            covered = np.bincount(self.owner[mask], minlength=len(self.things) + 1)
            if covered[1:].any() and self._stays_recognisable(covered, self.hidden(), mask, 0, 0):
                self._paint(mask, 0, 0, 0)
                return

    def _paint(self, mask: np.ndarray, top: int, left: int, owner: int) -> None:
        rng = self.rng
        height, width = mask.shape
        part = self.image[top : top + height, left : left + width]
        texture = _texture(rng, height, width, self.palette)
        # A thin darker or lighter rim on the inside, as lighting gives to real edges.
        thick = 1 + (mask.size > 2000)
        inner = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=thick)
        rim = mask & (inner[1:-1, 1:-1] == 0)
        light = int(rng.integers(*RIM))
        texture[rim] += light if texture[mask].astype(np.int64).sum() < 110 * 3 * int(mask.sum()) else -light
        part[mask] = np.clip(texture[mask], 0, 255)
        self.owner[top : top + height, left : left + width][mask] = owner


# -------------------------------------------------------------------------------------------------------- annotations


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height of what is set in `mask` (all 0 when nothing is)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Outlines of `mask` in px of the image, a quarter of a px exact; None when holes or crumbs need an RLE."""
    x, y, width, height = _box(mask)
    fine = np.repeat(np.repeat(mask[y : y + height, x : x + width], 4, axis=0), 4, axis=1)
    contours, hierarchy = cv2.findContours(fine.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():
        return None
    polygons = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 2.5, True)[:, 0, :]
        if len(points) < 3:
            return None
        # Contours run through the centres of the fine pixels, which lie an eighth of a px inside of the edge.
        polygons.append([float(value) for value in ((points + 0.5) / 4 + (x, y)).ravel()])
    return polygons


def _segmentation(mask: np.ndarray, prefer_rle: bool) -> list[list[float]] | dict:
    polygons = None if prefer_rle else _polygons(mask)
    if polygons is not None:
        decoded = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))).astype(bool)
        if (decoded & mask).sum() >= 0.93 * (decoded | mask).sum():
            return polygons
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _annotations(scene: Scene) -> list[dict]:
    """COCO annotations of a scene, without their ids."""
    annotations = []
    for i, (thing, hidden) in enumerate(zip(scene.things, scene.hidden())):
        mask = scene.owner == i + 1
        segmentation = _segmentation(mask, scene.rng.random() < RLE_SHARE)
        annotations.append(
            {
                "category_id": thing.category + 1,
                "bbox": list(_box(mask)),
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": segmentation,
                "occlusion": round(hidden, 4),
            }
        )
    return annotations


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


# ------------------------------------------------------------------------------------------------------------ writing


def _write_split(folder: Path, split: str, stream: int, count: int, seed: int) -> dict:
    """Write the images and the annotations of one split; return the annotations."""
    (folder / split).mkdir(parents=True)
    coco = {
        "info": {"description": f"shapes, {split}, made by make_shapes.py", "version": str(VERSION)},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES)],
    }
    for index in range(count):
        # A stream of its own for every image: an image does not depend on how many others there are.
        scene = Scene(np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream, index)))))
        name = f"{index + 1:06d}.jpg"
        done, data = cv2.imencode(".jpg", scene.pixels(), JPEG)
        if not done:
            raise OSError(f"OpenCV could not encode {folder / split / name} as JPEG.")
        (folder / split / name).write_bytes(data.tobytes())
        coco["images"].append({"id": index + 1, "file_name": name, "width": scene.width, "height": scene.height})
        for annotation in _annotations(scene):
            coco["annotations"].append({"id": len(coco["annotations"]) + 1, "image_id": index + 1, **annotation})
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")
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


def make_shapes(root: str | os.PathLike, num_train: int = 1000, num_val: int = 100, seed: int = 1) -> Path:
    """Write the data set into `root`/shapes and return that folder; do nothing when it is there already, complete.

    It is built beside its place and renamed, so an interrupted run leaves no half of it under its name.

    Raises:
        ValueError: a count below 1 or a negative seed.
        FileExistsError: `root`/shapes holds something else, which is left as it is.
    """
    parameters = {"num_train": num_train, "num_val": num_val, "seed": seed, "version": VERSION}
    for name, value, low in (("num_train", num_train, 1), ("num_val", num_val, 1), ("seed", seed, 0)):
        if value < low:
            raise ValueError(f"{name} is {value}; it must be at least {low}.")
    root = Path(root)
    folder = root / "shapes"
    if _check_existing(folder, parameters):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".shapes.", suffix=".tmp", dir=root))
    try:
        building.chmod(0o755)  # mkdtemp makes it private
        splits = {
            split: statistics(_write_split(building, split, stream, count, seed))
            for stream, (split, count) in enumerate((("train", num_train), ("val", num_val)))
        }
        marker = {"parameters": parameters, "sha256": _digest(building), "statistics": splits}
        (building / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        try:
            os.rename(building, folder)
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
    given = parser.parse_args(arguments)
    try:
        folder = make_shapes(given.root, given.train, given.val, given.seed)
    except (ValueError, OSError) as error:
        print(f"make_shapes: {error}", file=sys.stderr)
        return 1
    for split, numbers in json.loads((folder / MARKER).read_text(encoding="utf-8"))["statistics"].items():
        print(f"{folder / split}: {json.dumps(numbers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
