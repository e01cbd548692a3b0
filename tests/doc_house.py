"""A folder in which the commands of the documents find what they name: data, photos, configs; all of it small."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from se_det.config import load_config

from .documents import ROOT

sys.path.insert(0, str(ROOT / "datasets"))

from make_shapes import make_shapes

SPLITS = ("train", "val")
NAMES = ("person", "car", "dog", "cup", "book")  # what the documents call classes


def build_house(root: Path, train: int, val: int) -> None:
    """Fill `root`, with so many images to train and to evaluate on."""
    shapes = make_shapes(root / "datasets", train, val)
    jsons = {split: json.loads((shapes / "annotations" / f"instances_{split}.json").read_text()) for split in SPLITS}
    for split, content in jsons.items():
        for category, name in zip(content["categories"], NAMES, strict=True):
            category["name"] = name
        for other in (f"datasets/coco/{split}2017", f"data/images/{split}", f"{split}2017", f"coco/{split}2017"):
            shutil.copytree(shapes / split, root / other)
        for place in ("datasets/coco/annotations", "coco/annotations", "annotations", "."):
            _write(root / place / f"instances_{split}2017.json", content)
        images = [image | {"file_name": f"{split}/{image['file_name']}"} for image in content["images"]]
        _write(root / "data" / f"{split}.json", content | {"images": images})
    shutil.copytree(root / "data/images", root / "data/val_images")
    (root / "J").symlink_to(root / "data/train.json")
    (root / "D").symlink_to(root / "data/images")
    _export_csv(root, jsons["train"])
    photo = shapes / "val" / jsons["val"]["images"][0]["file_name"]
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg", "more/c.jpg", "a.jpg", "b.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo, root / name)
    (root / "images.txt").write_text("photos/a.jpg\nphotos/b.jpg\n")
    (root / "shards").mkdir()
    with tarfile.open(root / "shards/0.tar", "w") as shard:
        shard.add(root / "photos/a.jpg", "a.jpg")
    video = cv2.VideoWriter(str(root / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 64))
    for level in (0, 99):
        video.write(np.full((64, 64, 3), level, np.uint8))
    video.release()
    for split in SPLITS:
        lines = []
        for label in range(2):
            for number in range(3):
                path = root / "imagenet" / split / f"n0144076{label}" / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.full((48, 48, 3), 90 * label + number + 9 * (split == "val"), np.uint8))
                lines.append(f"{path.relative_to(root)} {label}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "imagenette").symlink_to(root / "imagenet")
    (root / "configs").symlink_to(ROOT / "configs")
    for name in ("F", "my.yaml"):
        (root / name).symlink_to(ROOT / "configs/quickstart.yaml")
    (root / "output/mine").mkdir(parents=True)
    (root / "output/mine/config.yaml").write_text(load_config("configs/quickstart.yaml").dump())


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _export_csv(root: Path, content: dict[str, Any]) -> None:
    """What a labelling tool exports, in the folders SRC and export."""
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for annotation in content["annotations"]:
        image, (x, y, w, h) = images[annotation["image_id"]], annotation["bbox"]
        size = image["width"], image["height"]
        rows.append(
            ",".join(map(str, (image["file_name"], *size, names[annotation["category_id"]], x, y, x + w, y + h)))
        )
    for name in ("SRC", "export"):
        shutil.copytree(root / "datasets/shapes/train", root / name)
        (root / name / "train.csv").write_text("\n".join(rows) + "\n")
