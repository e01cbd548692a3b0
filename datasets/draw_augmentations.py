"""Draw what each augmentation makes of an image, with its boxes and masks, as one picture.

python datasets/make_shapes.py
python datasets/draw_augmentations.py
python datasets/draw_augmentations.py --json J --images D --image 7 --output augmentations.jpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from se_det.config import get_cfg, merge_overrides
from se_det.data import CocoDataset, read_coco
from se_det.data.augmentations import AUGMENTATIONS, build_augmentations
from se_det.data.samples import TrainDataset
from se_det.inference.drawing import class_color

FOLDER = Path(__file__).resolve().parent
CELL = 200, 240  # height and width px of a picture
CAPTION, COLUMNS, QUALITY = 22, 6, 75
LEFT_OUT = ("RandomCrop_CategoryAreaConstraint",)  # it looks like RandomCrop, and is for classes of pixels

# Strong enough to be seen in a picture of this size.
ARGUMENTS = {
    "ResizeShortestEdge": {"short_sides": [110]},
    "ResizeScale": {"min_scale": 0.5, "max_scale": 0.6, "target_height": 240, "target_width": 240},
    "FixedSizeCrop": {"crop_size": [150, 340]},
    "LargeScaleJitter": {"size": [200, 240], "min_scale": 0.5, "max_scale": 0.7},
    "RandomCrop": {"crop_type": "relative", "crop_size": [0.6, 0.6]},
    "MinIoURandomCrop": {"min_ious": [0.1]},
    "RandomRotation": {"angle": [14, 15]},
    "PhotometricDistort": {"hue": [0.2, 0.3], "permute": False},
    "RandomBrightness": {"intensity_min": 0.5, "intensity_max": 0.6},
    "RandomContrast": {"intensity_min": 0.3, "intensity_max": 0.4},
    "RandomSaturation": {"intensity_min": 0.2, "intensity_max": 0.3},
    "RandomLighting": {"scale": 1500},
    "GaussianBlur": {"sigma": [2.5, 3]},
    "GaussianNoise": {"sigma": [30, 30]},
    "JPEG": {"quality": [3, 4]},
    "CopyPaste": {"share": 0.8},
    "Mosaic": {"size": [200, 240], "scale": [0.6, 0.9]},
}  # fmt: skip


def augmented(dataset: CocoDataset, name: str, index: int, number: int) -> np.ndarray:
    """The image at `index` after one augmentation, "" for none, with boxes and outlines of masks; BGR."""
    more = {} if name == "ResizeShortestEdge" else {"probability": 1}
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", [{"name": name, **ARGUMENTS.get(name, {}), **more}]])
    augmentations = build_augmentations(cfg) if name else []
    samples = TrainDataset([dataset], augmentations=augmentations, seed=0, format="BGR", masks=True)
    sample = samples[(number, index)]
    image = np.ascontiguousarray(sample["image"].permute(1, 2, 0).numpy())
    truth = sample["instances"]
    masks, first = truth["gt_masks"], 0
    colours = [class_color(kind) for kind in truth["gt_classes"]]
    for points, owner in zip(masks["polygon_points"], masks["polygon_owner"]):
        outline = np.rint(masks["polygons"][first : first + points]).astype(np.int32)
        cv2.polylines(image, [outline], True, colours[owner], 2, cv2.LINE_AA)
        first += points
    for bitmap, owner in zip(masks["bitmaps"], masks["bitmap_owner"]):
        contours, _ = cv2.findContours(bitmap, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, colours[owner], 2)
    for box, colour in zip(np.rint(truth["gt_boxes"]).astype(int).tolist(), colours):
        cv2.rectangle(image, box[:2], box[2:], (255, 255, 255), 1)
        cv2.rectangle(image, [box[0] + 1, box[1] + 1], [box[2] - 1, box[3] - 1], colour, 1)
    return image


def cell(image: np.ndarray, caption: str) -> np.ndarray:
    """The image in a cell of the grid, no larger than it is, with its name below."""
    height, width = CELL
    scale = min(height / image.shape[0], width / image.shape[1], 1)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    result = np.full((height + CAPTION, width + 8, 3), 255, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    result[top : top + image.shape[0], left : left + image.shape[1]] = image
    cv2.putText(result, caption, (2, height + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return result


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shapes = FOLDER / "shapes"
    parser.add_argument("--json", default=str(shapes / "annotations/instances_train.json"), help="a COCO file")
    parser.add_argument("--images", default=str(shapes / "train"), help="the folder of its images")
    parser.add_argument("--image", type=int, default=5, metavar="N", help="which image, counted from 0")
    parser.add_argument("--number", type=int, default=0, metavar="N", help="another one draws other numbers")
    parser.add_argument("--output", default=str(FOLDER.parent / "docs" / "images" / "augmentations.jpg"))
    args = parser.parse_args()
    dataset = read_coco(args.json, args.images, drop_empty_boxes=True).drop_empty()
    names = ["", *sorted(set(AUGMENTATIONS.names()) - set(LEFT_OUT))]
    cells = [cell(augmented(dataset, name, args.image, args.number), name or "as it is") for name in names]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
    rows = [np.concatenate(cells[at : at + COLUMNS], axis=1) for at in range(0, len(cells), COLUMNS)]
    if not cv2.imwrite(args.output, np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        parser.exit(1, f"{args.output} cannot be written: give another --output.\n")


if __name__ == "__main__":
    main()
