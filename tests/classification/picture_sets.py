"""Small sets of pictures for tests, and a network small enough to be trained on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from se_det.backbones.catalog import HOSTS, Host
from se_det.backbones.resnet import ResNet

COLORS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))
CLASSES = ("ash", "birch", "cedar")


def add_tiny_host() -> None:
    """`tiny` in the catalog: a ResNet-18 of a sixty-fourth of the weights."""
    HOSTS["tiny"] = Host(ResNet, {"depth": 18, "res2_channels": 32, "stem_channels": 32})


def picture(label: int, number: int, *, height: int = 40, width: int = 48) -> np.ndarray:
    """Noise in the colour of its class, uint8 (height, width, 3), RGB."""
    rng = np.random.default_rng((label, number))
    noise = rng.normal(0, 40, (height, width, 3))
    return np.clip(np.array(COLORS[label]) + noise, 0, 255).astype(np.uint8)


def class_folders(root: Path, *, per_class: int = 6, first: int = 0) -> Path:
    """`root/<class>/<number>.jpg`."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(first, first + per_class):
            cv2.imwrite(str(root / name / f"{number}.jpg"), picture(label, number)[:, :, ::-1])
    return root
