"""A sound data set, and ways to break it: each with the kind that a check must name and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
NAMES = {1: "a.jpg", 2: "b.png", 3: "sub/c.jpg", 4: "d.png"}


def box_polygon(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def sound_content() -> dict[str, Any]:
    """Two annotations in each of four images: polygons, an RLE, a crowd, boxes only."""
    boxes = [[4, 4, 20, 20], [30, 8, 30, 12], [2, 30, 10, 15], [40, 20, 24, 28],
             [10, 3, 8, 30], [0, 0, 64, 48], [33, 5, 9, 9], [50, 40, 10, 6]]  # fmt: skip
    annotations: list[dict[str, Any]] = []
    for i, box in enumerate(boxes, start=1):
        annotations.append({"id": 10 * i, "image_id": (i + 1) // 2, "category_id": 3 if i % 2 else 8, "bbox": box,
                            "area": box[2] * box[3], "iscrowd": 0, "segmentation": [box_polygon(*box)]})  # fmt: skip
    x, y, w, h = boxes[4]  # an RLE goes down the columns
    counts = [x * HEIGHT + y, *([h, HEIGHT - h] * (w - 1)), h, (WIDTH - x - w) * HEIGHT + HEIGHT - y - h]
    annotations[4]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    annotations[5].update(iscrowd=1, area=999, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]})
    del annotations[6]["segmentation"]
    annotations[7]["segmentation"] = []
    return {
        "info": {"year": 2020},
        "images": [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in NAMES.items()],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cup"}, {"id": 8, "name": "owl"}],
    }


def pixels(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Set:
    """A data set in a folder, sound until it is changed. `content` is written by `save`."""

    def __init__(self, folder: Path) -> None:
        self.content = sound_content()
        self.folder, self.images, self.json = folder, folder / "images", folder / "set.json"
        for i, name in NAMES.items():
            (self.images / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(i)).save(self.images / name)

    def save(self) -> tuple[Path, Path]:
        self.json.write_text(self.content if isinstance(self.content, str) else json.dumps(self.content))
        return self.json, self.images

    def put(self, name: str, image: Image.Image, **how: Any) -> None:
        image.save(self.images / name, **how)


Spoil = Callable[[Set], Any]


def at(*path: Any, to: Any) -> Spoil:
    """Set a value of the JSON."""

    def change(it: Set) -> None:
        holder = it.content
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = to

    return change


def every(key: str, value: Any) -> Spoil:
    def change(it: Set) -> None:
        for annotation in it.content["annotations"]:
            annotation[key] = value

    return change


def without(*path: Any) -> Spoil:
    def change(it: Set) -> None:
        holder = it.content
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]

    return change


def image(name: str, mode: str, **how: Any) -> Spoil:
    return lambda it: it.put(name, Image.fromarray(pixels(9)).convert(mode), **how)


def cut(name: str) -> Spoil:
    def change(it: Set) -> None:
        path = it.images / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return change


def turned(name: str, orientation: int, height: int, width: int) -> Spoil:
    def change(it: Set) -> None:
        exif = Image.Exif()
        exif[274] = orientation
        it.put(name, Image.fromarray(pixels(1, height, width)), exif=exif)

    return change


def boxes(convert: Callable[[float, float, float, float], list[float]], masks: bool = True) -> Spoil:
    def change(it: Set) -> None:
        for annotation in it.content["annotations"]:
            annotation["bbox"] = convert(*annotation["bbox"])
            if not masks:
                annotation.pop("segmentation", None)
                annotation.pop("area", None)

    return change


def dangling_link(it: Set) -> None:
    (it.images / "b.png").unlink()
    (it.images / "b.png").symlink_to(it.folder / "elsewhere.png")


def sixteen_bits(it: Set) -> None:
    it.put("b.png", Image.fromarray(pixels(2)[:, :, 0].astype(np.uint16) * 257))


def corners(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y + h]


def fractions(x: float, y: float, w: float, h: float) -> list[float]:
    return [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def of_annotation(i: int, key: str, value: Any) -> Spoil:
    return at("annotations", i, key, to=value)


RLE = {"size": [HEIGHT, WIDTH], "counts": [10, 20, 30]}
HOLLOW = [box_polygon(4, 4, 20, 20), box_polygon(8, 8, 4, 4)]
# what is wrong: (how it is made so, the kind named, the id or file named)
BROKEN: dict[str, tuple[Spoil, str, Any]] = {
    "not JSON": (lambda it: setattr(it, "content", "{"), "format", None),
    "empty file": (lambda it: setattr(it, "content", ""), "format", None),
    "a list": (lambda it: setattr(it, "content", "[]"), "format", None),
    "no categories": (without("categories"), "format", None),
    "annotations no list": (at("annotations", to={"a": 1}), "format", None),
    "an annotation is no object": (at("annotations", 2, to=7), "format", None),
    "unreadable image": (lambda it: (it.images / "b.png").write_bytes(b"no image"), "unreadable-image", "b.png"),
    "empty image": (lambda it: (it.images / "b.png").write_bytes(b""), "unreadable-image", "b.png"),
    "truncated JPEG": (cut("a.jpg"), "truncated-image", "a.jpg"),
    "truncated PNG": (cut("b.png"), "truncated-image", "b.png"),
    "missing image": (lambda it: (it.images / "b.png").unlink(), "missing-file", "b.png"),
    "another size": (at("images", 1, "width", to=WIDTH + 1), "size-differs", 2),
    "EXIF rotation left out": (turned("a.jpg", 6, HEIGHT, WIDTH), "exif-swapped", 1),
    "EXIF rotation": (turned("a.jpg", 6, WIDTH, HEIGHT), "exif-orientation", 1),
    "grey": (image("b.png", "L"), "grey-image", 2),
    "CMYK": (image("a.jpg", "CMYK"), "cmyk-image", 1),
    "alpha": (image("b.png", "RGBA"), "alpha-image", 2),
    "palette": (image("b.png", "P"), "palette-image", 2),
    "16 bit": (sixteen_bits, "16-bit-image", 2),
    "equal pixels": (lambda it: it.put("d.png", Image.open(it.images / "b.png")), "duplicate-image", 4),
    "image id twice": (at("images", 3, "id", to=2), "image-id-twice", 2),
    "annotation id twice": (of_annotation(1, "id", 10), "annotation-id-twice", 10),
    "category id twice": (at("categories", 1, "id", to=3), "category-id-twice", 3),
    "category name twice": (at("categories", 1, "name", to="cup"), "category-name-twice", 8),
    "category without name": (without("categories", 1, "name"), "wrong-type", 8),
    "no such image": (of_annotation(1, "image_id", 77), "dangling-image", 20),
    "undeclared category": (of_annotation(1, "category_id", 77), "undeclared-category", 20),
    "unused category": (lambda it: it.content["categories"].append({"id": 9, "name": "x"}), "unused-category", 9),
    "box outside": (of_annotation(7, "bbox", [70, 10, 5, 5]), "box-outside", 80),
    "box sticks out": (of_annotation(7, "bbox", [60, 40, 20, 6]), "box-sticks-out", 80),
    "box empty": (of_annotation(7, "bbox", [50, 40, 0, 6]), "box-empty", 80),
    "box negative": (of_annotation(7, "bbox", [50, 40, -5, 6]), "box-empty", 80),
    "corners, with masks": (boxes(corners), "box-xyxy", 20),
    "corners, boxes only": (boxes(corners, masks=False), "box-xyxy", 20),
    "corners of one box": (of_annotation(1, "bbox", [30, 8, 60, 20]), "box-xyxy", 20),
    "normalised": (boxes(fractions), "box-normalised", 10),
    "normalised, boxes only": (boxes(fractions, masks=False), "box-normalised", 10),
    "box of another mask": (of_annotation(0, "bbox", [40, 30, 20, 15]), "box-off-mask", 10),
    "three numbers in a box": (of_annotation(6, "bbox", [1, 2, 3]), "wrong-type", 70),
    "no box": (without("annotations", 6, "bbox"), "wrong-type", 70),
    "box of nan": (of_annotation(6, "bbox", [1, 2, float("nan"), 3]), "not-finite", 70),
    "huge number": (of_annotation(6, "bbox", [1, 2, 10**400, 3]), "not-finite", 70),
    "polygon of nan": (of_annotation(0, "segmentation", [[1, 2, 3, float("nan"), 5, 6]]), "not-finite", 10),
    "polygon too short": (of_annotation(0, "segmentation", [[4, 4, 24, 24]]), "polygon-too-short", 10),
    "empty polygon": (of_annotation(0, "segmentation", [[]]), "polygon-too-short", 10),
    "odd polygon": (of_annotation(0, "segmentation", [[4, 4, 24, 4, 24, 24, 4]]), "polygon-too-short", 10),
    "polygon far away": (of_annotation(0, "segmentation", [box_polygon(5e6, 4, 20, 20)]), "polygon-outside", 10),
    "polygon without end": (of_annotation(0, "segmentation", [[0, 0, 64, 48] * 70_000]), "polygon-too-long", 10),
    "polygon of texts": (of_annotation(0, "segmentation", [["a", "b"]]), "wrong-type", 10),
    "RLE of another size": (of_annotation(0, "segmentation", {**RLE, "size": [9, 9]}), "rle-size", 10),
    "RLE too short": (of_annotation(0, "segmentation", RLE), "rle-damaged", 10),
    "RLE text damaged": (of_annotation(0, "segmentation", {**RLE, "counts": "zz~"}), "rle-damaged", 10),
    "RLE without counts": (of_annotation(0, "segmentation", {"size": [HEIGHT, WIDTH]}), "wrong-type", 10),
    "area of nothing": (of_annotation(0, "area", 5), "area-off", 10),
    "area too large": (of_annotation(6, "area", 4000), "area-off", 70),
    "area negative": (of_annotation(0, "area", -5), "wrong-type", 10),
    "area infinite": (of_annotation(0, "area", float("inf")), "not-finite", 10),
    "iscrowd a word": (of_annotation(0, "iscrowd", "maybe"), "wrong-type", 10),
    "iscrowd a text": (of_annotation(0, "iscrowd", "0"), "other-form", 10),
    "annotation twice": (
        lambda it: it.content["annotations"].append({**it.content["annotations"][0], "id": 11}),
        "annotation-twice", 11,
    ),
    "image without annotations": (
        lambda it: it.content["images"].append({**it.content["images"][0], "id": 5}),
        "image-without-annotations", 5,
    ),
    "file listed twice": (
        lambda it: it.content["images"].append({**it.content["images"][0], "id": 5}),
        "file-twice", 5,
    ),
    "file name with ..": (at("images", 1, "file_name", to="../images/b.png"), "file-outside", 2),
    "absolute file name": (at("images", 1, "file_name", to="/etc/passwd"), "file-outside", 2),
    "link to nothing": (dangling_link, "missing-file", 2),
    "file name a number": (at("images", 1, "file_name", to=5), "wrong-type", 2),
    "width a text": (at("images", 1, "width", to="64"), "other-form", 2),
    "width a word": (at("images", 1, "width", to="wide"), "wrong-type", 2),
    "name in capitals": (at("images", 1, "file_name", to="B.PNG"), "file-name-off", 2),
    "a hole": (of_annotation(0, "segmentation", HOLLOW), "polygon-hole", 10),
    "a class of crowds": (every("iscrowd", 1), "class-of-crowds", None),
    "an ignored object": (of_annotation(0, "ignore", 1), "crowd-like", 10),
    "a difficult object": (of_annotation(0, "difficult", "1"), "crowd-like", 10),
    "width nan": (at("images", 1, "width", to=float("nan")), "not-finite", 2),
    "id a list": (of_annotation(0, "id", [1]), "wrong-type", None),
    "id true": (of_annotation(0, "image_id", True), "wrong-type", 10),
}  # fmt: skip
