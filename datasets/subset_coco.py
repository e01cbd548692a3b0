"""Write a COCO JSON that holds only some of the images of another: for a quick look, or to see a network overfit."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path


def subset(coco: dict, count: int, *, most: int | None = None) -> dict:
    """The first `count` images, by id, that have annotations, with these and all categories.

    Args:
        coco: content of a COCO JSON.
        most: leave out images with a crowd or more than this many annotations.

    Raises:
        ValueError: there are fewer such images.
    """
    numbers = Counter(a["image_id"] for a in coco["annotations"])
    crowds = {a["image_id"] for a in coco["annotations"] if a.get("iscrowd")}
    images = sorted((i for i in coco["images"] if numbers[i["id"]]), key=lambda i: i["id"])
    if most is not None:
        images = [i for i in images if numbers[i["id"]] <= most and i["id"] not in crowds]
    if len(images) < count:
        raise ValueError(f"there are only {len(images)} such images, not {count}")
    images = images[:count]
    kept = {i["id"] for i in images}
    return {**coco, "images": images, "annotations": [a for a in coco["annotations"] if a["image_id"] in kept]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a COCO JSON with only some of the images of another.")
    parser.add_argument("json", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=10, metavar="N", help="how many; default: 10")
    parser.add_argument("--most", type=int, metavar="A", help="only images with no crowd and at most A annotations")
    args = parser.parse_args()
    try:
        chosen = subset(json.loads(args.json.read_text(encoding="utf-8")), args.images, most=args.most)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(chosen), encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"error: {args.json}: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {len(chosen['images'])} images, {len(chosen['annotations'])} annotations.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
