"""What several augmentations of colour are made of; images are uint8 (H, W, 3), and none is written to.

A pixel's new value is a function of its old one alone, computed without a sum over the image in floating point: it does
not depend on how many threads there are.
"""

from __future__ import annotations

import cv2
import numpy as np

# Rec. 601, as torchvision, Pillow and OpenCV take it.
LUMA = {"RGB": (0.299, 0.587, 0.114), "BGR": (0.114, 0.587, 0.299)}


def scaled(image: np.ndarray, factor: float, offset: float = 0.0) -> np.ndarray:
    """Each value times `factor` plus `offset`, cut off at 0 and 255, the fraction dropped."""
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset), 0, 255)
    return cv2.LUT(np.ascontiguousarray(image), table.astype(np.uint8))


def grey(image: np.ndarray, format: str) -> np.ndarray:
    """uint8 (H, W)."""
    code = cv2.COLOR_RGB2GRAY if format == "RGB" else cv2.COLOR_BGR2GRAY
    return cv2.cvtColor(np.ascontiguousarray(image), code)


def saturated(image: np.ndarray, factor: float, format: str) -> np.ndarray:
    """The image's distance to its grey one times `factor`."""
    plain = cv2.cvtColor(grey(image, format), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(np.ascontiguousarray(image), factor, plain, 1 - factor, 0)


def hue_shifted(image: np.ndarray, turns: float, format: str) -> np.ndarray:
    """Hues turned on the colour circle: by -0.5 to 0.5 of it."""
    there, back = (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB) if format == "RGB" else (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR)
    hsv = cv2.cvtColor(np.ascontiguousarray(image).astype(np.float32) / 255, there)  # degrees, 0 to 1, 0 to 1
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turns)) % np.float32(360)
    return np.clip(np.rint(cv2.cvtColor(hsv, back) * 255), 0, 255).astype(np.uint8)
