#!/usr/bin/env python
"""Class folders as a list of `imagename label` lines, and as WebDataset shards: the same images in the same order.

    python datasets/make_shards.py imagenet/train OUT --name train --shard-images 10000

writes `OUT/train.txt` (its root is the folder of class folders), `OUT/classes.txt` (a class name a line) and
`OUT/train-000000.tar` and on, whose members are `<class>/<image>.jpg` and `<class>/<image>.cls`.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout that is not installed

from se_det.classification.data.image_folder import ImageFolder
from se_det.errors import DataError, SeDetError


def make_shards(root: Path, out: Path, *, name: str, shard_images: int = 10_000) -> list[Path]:
    """Write the list, the class names and the shards; returns the shards.

    Raises:
        DataError: the folders cannot be used, or two images would have one key in a shard.
    """
    if shard_images < 1:
        raise DataError(f"--shard-images must be at least 1, got {shard_images}.")
    images = ImageFolder(root)
    out.mkdir(parents=True, exist_ok=True)
    (out / "classes.txt").write_text("".join(f"{c}\n" for c in images.class_names), encoding="utf-8")
    lines = [f"{images.names[i]} {images.labels[i]}\n" for i in range(len(images))]
    (out / f"{name}.txt").write_text("imagename label\n" + "".join(lines), encoding="utf-8")
    shards = []
    for first in range(0, len(images), shard_images):
        shards.append(out / f"{name}-{first // shard_images:06d}.tar")
        seen: set[str] = set()
        with tarfile.open(shards[-1], "w") as tar:
            for index in range(first, min(first + shard_images, len(images))):
                image = Path(images.names[index])
                # The part before the first dot is the key by which a shard's members belong together.
                key = f"{image.parent.as_posix()}/{image.stem.replace('.', '_')}"
                if key in seen:
                    raise DataError(f"{root / image}: another image has the key '{key}' too: rename one of them.")
                seen.add(key)
                _add(tar, f"{key}{image.suffix}", images.read(index))
                _add(tar, f"{key}.cls", str(images.labels[index]).encode())
    return shards


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no time and no owner: the same images make the same file
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder of class folders")
    parser.add_argument("out", type=Path, help="where the files go")
    parser.add_argument("--name", default="train", help="what the files are called; default: train")
    parser.add_argument("--shard-images", type=int, default=10_000, metavar="N", help="default: 10000")
    args = parser.parse_args()
    try:
        shards = make_shards(args.root, args.out, name=args.name, shard_images=args.shard_images)
    except (SeDetError, OSError, UnicodeEncodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out / args.name}.txt, classes.txt and {len(shards)} shards in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
