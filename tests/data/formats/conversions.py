"""A COCO data set in the folders of other formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.sax.saxutils import escape

from se_det.data.coco import CocoDataset


def to_yolo(dataset: CocoDataset, root: Path, split: str) -> None:
    """Polygons where there are any (the largest of an object), else boxes."""
    for i in range(len(dataset)):
        info, found = dataset.image(i), dataset.annotations(i, crowds=False)
        lines, end = {}, 0
        for points, owner in zip(found.polygon_points, found.polygon_owner):
            xy = found.polygons[end : end + points] / (info.width, info.height)
            end += points
            lines.setdefault(owner, []).extend(xy.ravel())
        texts = []
        for k, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
            box = [
                (x1 + x2) / 2 / info.width,
                (y1 + y2) / 2 / info.height,
                (x2 - x1) / info.width,
                (y2 - y1) / info.height,
            ]
            texts.append(f"{found.classes[k]} {' '.join(f'{v:.6f}' for v in lines.get(k, box))}\n")
        image = root / split / "images" / info.path.name
        label = root / split / "labels" / f"{info.path.stem}.txt"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(info.path, image)
        label.write_text("".join(texts))
    names = json.dumps(list(dataset.category_names))
    (root / "data.yaml").write_text(f"train: ../train/images\nval: ../val/images\nnames: {names}\n")


def to_voc(dataset: CocoDataset, root: Path, split: str) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    stems = []
    for i in range(len(dataset)):
        info, found = dataset.image(i), dataset.annotations(i)
        parts = [f"<size><width>{info.width}</width><height>{info.height}</height><depth>3</depth></size>"]
        for k, box in enumerate(found.boxes.tolist()):
            values = (box[0] + 1, box[1] + 1, box[2], box[3])
            corners = "".join(f"<{key}>{v:g}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), values))
            name = escape(dataset.category_names[found.classes[k]])
            parts.append(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>")
        shutil.copy(info.path, root / "JPEGImages")
        (root / "Annotations" / f"{info.path.stem}.xml").write_text(f"<annotation>{''.join(parts)}</annotation>")
        stems.append(info.path.stem)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))


def to_labelme(dataset: CocoDataset, root: Path, split: str) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    for i in range(len(dataset)):
        info, found = dataset.image(i), dataset.annotations(i)
        shapes = [
            {"label": dataset.category_names[found.classes[k]], "shape_type": "rectangle", "points": [box[:2], box[2:]]}
            for k, box in enumerate(found.boxes.tolist())
        ]
        content = {"shapes": shapes, "imagePath": info.path.name, "imageWidth": info.width, "imageHeight": info.height}
        shutil.copy(info.path, root / split)
        (root / split / f"{info.path.stem}.json").write_text(json.dumps(content))
