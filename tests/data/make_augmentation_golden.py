"""Write tests/data/golden/augmentations.json: what Detectron2 makes of some samples, for where it is not installed.

    python tests/data/make_augmentation_golden.py <commit of the installed Detectron2>

Pixels are kept as a checksum, and only where nothing is resized: Pillow may round otherwise some day.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from augmentation_samples import random_sample

FILE = Path(__file__).parent / "golden" / "augmentations.json"
NUMBERS = range(4)


def checksum(image: np.ndarray) -> int:
    """Of the shape and the values."""
    return zlib.crc32(np.ascontiguousarray(image).tobytes(), zlib.crc32(str(image.shape).encode()))


def main() -> None:
    """See the module."""
    import detectron2
    import pytest
    from detectron2.data import transforms as T
    from test_detectron2_augmentations import CASES, theirs

    [commit] = sys.argv[1:]
    golden = {"made_with": f"Detectron2 {detectron2.__version__} ({commit})"}
    for case, chain in CASES.items():
        golden[case] = []
        for number in NUMBERS:
            sample = random_sample(np.random.default_rng((number, 7)), kinds="polygons")
            image, instances = theirs(
                sample, [getattr(T, name)(**arguments) for name, arguments in chain], np.random.default_rng(number),
                pytest.MonkeyPatch(),
            )  # fmt: skip
            resized = any(name == "ResizeScale" for name, _ in chain)
            golden[case].append({
                "size": image.shape[:2], "pixels": None if resized else checksum(image),
                "classes": instances.gt_classes.tolist(), "boxes": np.round(instances.gt_boxes.tensor, 4).tolist(),
                "areas": np.round(instances.gt_masks.area().tolist(), 4).tolist(),
            })  # fmt: skip
    FILE.parent.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
