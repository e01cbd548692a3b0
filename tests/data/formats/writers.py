"""A random data set, and writers of it in each format: independent of the readers, from the formats' descriptions."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("cat", "dog, big", "Zürich <&>")
NAMES = ("plain.jpg", "with blank.JPG", "schön-日本.png", "dots.in.name.PNG", "empty.jpeg", "UPPER.JPEG")


@dataclass
class Thing:
    """An object: its class's position, box XYXY px, and, of masks, a polygon and the pixels in it."""

    label: int
    box: tuple[int, int, int, int]
    polygon: list[tuple[float, float]] | None = None
    mask: np.ndarray | None = None


@dataclass
class Sample:
    name: str
    width: int
    height: int
    things: list[Thing] = field(default_factory=list)
    split: str = "train"


def random_set(seed: int, *, masks: bool = False, splits: tuple[str, ...] = ("train",)) -> list[Sample]:
    """Images of different sizes; one without objects; boxes with whole corners, none of which is 0 but one."""
    rng = np.random.default_rng(seed)
    samples = []
    for split in splits:
        for name in NAMES:
            width, height = (int(v) for v in rng.integers(60, 200, 2))
            sample = Sample(f"{split}-{name}", width, height, split=split)
            for _ in range(0 if name.startswith("empty") else int(rng.integers(1, 5))):
                sample.things.append(_thing(rng, width, height, masks, sample.things))
            samples.append(sample)
    return samples


def _thing(rng: np.random.Generator, width: int, height: int, masks: bool, others: list[Thing]) -> Thing:
    x, y = int(rng.integers(1, width - 30)), int(rng.integers(1, height - 30))
    w, h = (int(v) for v in rng.integers(12, 29, 2))
    thing = Thing(int(rng.integers(len(CLASSES))), (x, y, x + w, y + h))
    if masks:
        points = [(x, y), (x + w, y + h * 0.3), (x + w * 0.8, y + h), (x + w * 0.4, y + h * 0.6), (x, y + h * 0.9)]
        thing.polygon = points
        picture = Image.new("L", (width * 8, height * 8))
        ImageDraw.Draw(picture).polygon([(px * 8, py * 8) for px, py in points], fill=255)
        thing.mask = np.asarray(picture.resize((width, height), Image.Resampling.BOX)) > 127
    return thing


def write_images(samples: list[Sample], folder: Path, *, by_split: bool = False, sub: str = "") -> None:
    for at, sample in enumerate(samples):
        path = (folder / sample.split / sub if by_split else folder) / sample.name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
        Image.new("RGB", (sample.width, sample.height), (at * 37 % 256, at * 91 % 256, 90)).save(path, kind)


def yolo(samples: list[Sample], root: Path, *, polygons: bool = False) -> None:
    for sample in samples:
        write_images([sample], root / "images", by_split=True)
        label = (root / "labels" / sample.split / sample.name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for thing in sample.things:
            x1, y1, x2, y2 = thing.box
            values = [(x1 + x2) / 2 / sample.width, (y1 + y2) / 2 / sample.height]
            values += [(x2 - x1) / sample.width, (y2 - y1) / sample.height]
            if polygons:
                values = [v for px, py in thing.polygon for v in (px / sample.width, py / sample.height)]
            lines.append(f"{thing.label} {' '.join(f'{v:.8f}' for v in values)}\n")
        if lines or sample.name.endswith("g"):
            label.write_text("".join(lines))
    names = "".join(f"  {at}: {json.dumps(name)}\n" for at, name in enumerate(CLASSES))
    lists = "".join(f"{split}: images/{split}\n" for split in dict.fromkeys(s.split for s in samples))
    (root / "data.yaml").write_text(f"path: ../somewhere/else\n{lists}names:\n{names}")


def voc(samples: list[Sample], root: Path, *, base: int = 1, masks: bool = False) -> None:
    write_images(samples, root / "JPEGImages")
    for folder in ("Annotations", "ImageSets/Main", "SegmentationObject"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for sample in samples:
        stem = sample.name.rsplit(".", 1)[0]
        parts = [f"<size><width>{sample.width}</width><height>{sample.height}</height><depth>3</depth></size>"]
        numbers = np.zeros((sample.height, sample.width), np.uint8)
        for at, thing in enumerate(sample.things, 1):
            x1, y1, x2, y2 = thing.box
            corners = {"xmin": x1 + base, "ymin": y1 + base, "xmax": x2, "ymax": y2}
            box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
            # A part inside of an object has a name and a box of its own.
            part = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
            part = f"<part><name>head</name>{part}</part>"
            parts.append(f"<object><name>{escape(CLASSES[thing.label])}</name>{part}<bndbox>{box}</bndbox></object>")
            if masks:
                numbers[thing.mask] = at
        text = f"<annotation><filename>wrong.jpg</filename>{''.join(parts)}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
        if masks:
            picture = Image.fromarray(numbers, "P")
            picture.putpalette(list(range(256)) * 3)
            picture.save(root / "SegmentationObject" / f"{stem}.png")
    for split in dict.fromkeys(s.split for s in samples):
        lines = "".join(f"{s.name.rsplit('.', 1)[0]}\n" for s in samples if s.split == split)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")


def labelme(samples: list[Sample], root: Path, *, shape: str = "rectangle") -> None:
    write_images(samples, root, by_split=True)
    for at, sample in enumerate(samples):
        shapes = []
        for thing in sample.things:
            x1, y1, x2, y2 = thing.box
            entry = {"label": CLASSES[thing.label], "group_id": None, "shape_type": shape, "flags": {}}
            if shape == "rectangle":
                entry["points"] = [[x2, y1], [x1, y2]]
            elif shape == "polygon":
                entry["points"] = [list(point) for point in thing.polygon]
            else:
                rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
                window = thing.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                file = io.BytesIO()
                Image.fromarray(window).save(file, "PNG")
                entry["points"] = [[columns[0].item(), rows[0].item()], [columns[-1].item(), rows[-1].item()]]
                entry["mask"] = base64.b64encode(file.getvalue()).decode()
            shapes.append(entry)
        named = (sample.name, f"..\\{sample.split}\\{sample.name}", f"C:\\data\\{sample.name}")[at % 3]
        content = {"shapes": shapes, "imagePath": named, "imageData": None}
        content |= {"imageWidth": sample.width, "imageHeight": sample.height}
        stem = sample.name.rsplit(".", 1)[0]
        (root / sample.split / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")


def cvat(samples: list[Sample], root: Path, *, shape: str = "box") -> None:
    write_images(samples, root / "images")
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in CLASSES)
    parts = [f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"]
    for at, sample in enumerate(samples):
        size = f'subset="{sample.split.title()}" width="{sample.width}" height="{sample.height}"'
        parts.append(f'<image id="{at}" name={quoteattr(sample.name)} {size}>')
        for thing in sample.things:
            x1, y1, x2, y2 = thing.box
            label = f'label={quoteattr(CLASSES[thing.label])} occluded="0"'
            if shape == "box":
                parts.append(f'<box {label} xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}"></box>')
            elif shape == "polygon":
                points = ";".join(f"{px:.2f},{py:.2f}" for px, py in thing.polygon)
                parts.append(f'<polygon {label} points="{points}"></polygon>')
            else:
                rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
                window = thing.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                flat, runs, value = window.ravel(), [], False
                while len(flat):
                    run = int(np.argmax(flat != value)) if (flat != value).any() else len(flat)
                    runs.append(run)
                    flat, value = flat[run:], not value
                place = f'left="{columns[0]}" top="{rows[0]}" width="{window.shape[1]}" height="{window.shape[0]}"'
                parts.append(f'<mask {label} rle="{", ".join(map(str, runs))}" {place}></mask>')
        parts.append("</image>")
    (root / "annotations.xml").write_text(f"<annotations>{''.join(parts)}</annotations>", encoding="utf-8")


def csv_tensorflow(samples: list[Sample], root: Path) -> None:
    write_images(samples, root, by_split=True)
    for split in dict.fromkeys(s.split for s in samples):
        with open(root / split / "_annotations.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for s in samples:
                for t in s.things if s.split == split else ():
                    writer.writerow([s.name, s.width, s.height, CLASSES[t.label], *t.box])


def csv_retinanet(samples: list[Sample], root: Path, *, delimiter: str = ",") -> None:
    write_images(samples, root / "images")
    for split in dict.fromkeys(s.split for s in samples):
        with open(root / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            for s in samples:
                if s.split == split:
                    writer.writerows([[f"images/{s.name}", *t.box, CLASSES[t.label]] for t in s.things])
                    if not s.things:
                        writer.writerow([f"images/{s.name}", "", "", "", "", ""])


def open_images(samples: list[Sample], root: Path) -> None:
    folder = {"train": "train", "val": "validation", "test": "test"}
    for s in samples:
        write_images([s], root / "images" / folder[s.split])
    (root / "class-descriptions.csv").write_text(
        "".join(f'/m/0{at},"{name}"\n' for at, name in enumerate(CLASSES)), encoding="utf-8"
    )
    for split in dict.fromkeys(s.split for s in samples):
        with open(root / f"{folder[split]}-annotations-bbox.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                [
                    "ImageID",
                    "Source",
                    "LabelName",
                    "Confidence",
                    "XMin",
                    "XMax",
                    "YMin",
                    "YMax",
                    "IsGroupOf",
                    "IsDepiction",
                ]
            )
            for s in samples:
                for t in s.things if s.split == split else ():
                    x1, y1, x2, y2 = t.box
                    shares = [f"{v:.8f}" for v in (x1 / s.width, x2 / s.width, y1 / s.height, y2 / s.height)]
                    writer.writerow([s.name.rsplit(".", 1)[0], "xclick", f"/m/0{t.label}", 1, *shares, 0, 0])


def coco_content(samples: list[Sample], *, rle: bool = False, prefix: str = "") -> dict:
    """A COCO object of these samples; class ids have gaps."""
    content: dict = {"images": [], "annotations": []}
    content["categories"] = [{"id": 3 * at + 2, "name": name} for at, name in enumerate(CLASSES)]
    for at, s in enumerate(samples):
        content["images"].append({"id": 10 + at, "file_name": prefix + s.name, "width": s.width, "height": s.height})
        for t in s.things:
            x1, y1, x2, y2 = t.box
            entry = {"id": len(content["annotations"]) + 1, "image_id": 10 + at, "category_id": 3 * t.label + 2}
            entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            if t.polygon is not None:
                entry["segmentation"] = [[v for point in t.polygon for v in point]]
            if rle:
                flat = t.mask.T.ravel().astype(np.int8)
                borders = np.flatnonzero(np.diff(flat, prepend=0))
                counts = np.diff(np.concatenate(([0], borders, [len(flat)]))).tolist()
                entry["segmentation"] = {"size": [s.height, s.width], "counts": counts}
            content["annotations"].append(entry)
    return content


def coco(samples: list[Sample], root: Path, *, rle: bool = False) -> None:
    for split in dict.fromkeys(s.split for s in samples):
        some = [s for s in samples if s.split == split]
        write_images(some, root / f"{split}2017")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco_content(some, rle=rle)))


def roboflow_coco(samples: list[Sample], root: Path) -> None:
    for split in dict.fromkeys(s.split for s in samples):
        some = [s for s in samples if s.split == split]
        folder = root / {"val": "valid"}.get(split, split)
        write_images(some, folder)
        content = coco_content(some)
        content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
        for category in content["categories"][1:]:
            category["supercategory"] = "animals"
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
