#!/usr/bin/env python
"""What classifying by pixels alone reaches: the nearest class mean, and a linear classifier (ridge regression).

    python datasets/pixel_baseline.py TRAIN VAL [--side 32]

A network that is not clearly better has learnt nothing. The ridge's strength is the best of five on a fifth of TRAIN.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout that is not installed

from se_det.classification.data.dataset import ClassificationDataset
from se_det.classification.data.dataset_factory import open_image_dataset
from se_det.classification.data.decoding import decode_image
from se_det.classification.data.transforms import resize_center_crop
from se_det.errors import SeDetError

STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)


def pixels(images: ClassificationDataset, side: int) -> np.ndarray:
    """(n, 3 * side * side), 0 to 1, of the whole short side."""
    rows = []
    for index in range(len(images)):
        image = torch.from_numpy(np.array(decode_image(images.read(index), images.where(index)))).permute(2, 0, 1)
        rows.append(resize_center_crop(image, side, 1.0).numpy().ravel())
    return np.array(rows, np.float64) / 255


def nearest_mean(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class whose mean is nearest, for each row of `test`."""
    means = np.array([train[labels == label].mean(0) for label in np.unique(labels)])
    return np.unique(labels)[((test[:, None] - means) ** 2).sum(-1).argmin(1)]


def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """The class of the highest output of a ridge regression onto one output per class."""
    centre, classes = train.mean(0), np.unique(labels)
    x = train - centre
    target = (labels[:, None] == classes) - 1 / len(classes)
    weights = np.linalg.solve(x @ x.T + strength * np.eye(len(x)), target)
    return classes[((test - centre) @ x.T @ weights).argmax(1)]


def baselines(train: ClassificationDataset, val: ClassificationDataset, side: int = 32) -> dict[str, float]:
    """Accuracy in percent by method."""
    x, y, x_val, y_val = pixels(train, side), train.labels, pixels(val, side), val.labels
    held = np.random.default_rng(0).permutation(len(y))
    out, kept = held[: len(y) // 5], held[len(y) // 5 :]
    strength = max(STRENGTHS, key=lambda s: (ridge(x[kept], y[kept], x[out], s) == y[out]).mean())
    return {
        "nearest class mean": 100 * float((nearest_mean(x, y, x_val) == y_val).mean()),
        f"ridge regression, strength {strength:g}": 100 * float((ridge(x, y, x_val, strength) == y_val).mean()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", help="class folders, a list or shards")
    parser.add_argument("val", help="the same of the images to be told apart")
    parser.add_argument("--side", type=int, default=32, metavar="S", help="px; default: 32")
    args = parser.parse_args()
    try:
        train = open_image_dataset(args.train)
        figures = baselines(train, open_image_dataset(args.val, classes=train.class_names), args.side)
    except SeDetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, accuracy in figures.items():
        print(f"{name}: {accuracy:.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
