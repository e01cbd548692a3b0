"""`se-det predict`: detections of images as COCO JSON, and drawn."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
RESULTS = "detections.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--config-file", required=True, metavar="F", help="the config the weights were trained with")
    parser.add_argument("--weights", metavar="W", help="a checkpoint; default: MODEL.WEIGHTS of the config")
    parser.add_argument("--output", required=True, metavar="DIR", help="where drawn images and detections.json go")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, metavar="S", help="draw from this score; default: 0.5"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N images")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images and folders of images")


def run(args: argparse.Namespace) -> int:
    """Detect in every input.

    Raises:
        DataError: at the end, when some of them could not be read.
    """
    import cv2
    from tqdm import tqdm

    from ..config import load_config
    from ..data.images import read_image
    from ..errors import ConfigError, DataError
    from ..evaluation import Predictor, draw_detections
    from ..evaluation.coco_results import to_coco_results
    from ..files import check_writable, write_atomically, write_json

    if not 0 <= args.score_threshold <= 1:
        raise ConfigError(f"--score-threshold must be between 0 and 1, got {args.score_threshold}.")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {args.limit}.")
    files = find_images(args.inputs)[: args.limit]
    predictor = Predictor(load_config(args.config_file), args.weights)
    output = Path(args.output)
    check_writable(output)
    results, failures = [], []
    for number, (path, name) in enumerate(tqdm(files, unit="image", disable=None), start=1):
        try:
            image = read_image(path)
        except DataError as error:
            failures.append(str(error))
            continue
        instances = predictor.detect(image)
        found, _ = to_coco_results(
            instances, image_id=number, category_ids=predictor.category_ids, masks="pred_masks" in instances
        )
        results += [{"file_name": str(path), **entry} for entry in found]
        drawn = draw_detections(
            image, instances, predictor.class_names, score_threshold=args.score_threshold, enlarge_below=400
        )
        encoded = cv2.imencode(".jpg" if name.suffix.lower() in (".jpg", ".jpeg") else ".png", drawn)[1]
        target = output / (name if name.suffix.lower() in (".jpg", ".jpeg") else name.with_suffix(".png"))
        write_atomically(target, lambda file, data=encoded: file.write(data.tobytes()))
    write_json(output / RESULTS, results)
    logger.info("%d detections in %d images: %s and drawn images beside it.", len(results), len(files) - len(failures),
                output / RESULTS)  # fmt: skip
    if failures:
        raise DataError(f"{len(failures)} of {len(files)} images could not be read. {' '.join(failures)}")
    return 0


def find_images(inputs: list[str]) -> list[tuple[Path, Path]]:
    """(file, its name below the output folder) of every image named, or found in a folder, sorted.

    Raises:
        DataError: an input that does not exist, or nothing to read; two inputs that would be drawn to one file.
    """
    from ..errors import DataError

    found: dict[Path, Path] = {}
    for text in inputs:
        if not text:
            raise DataError("One of the inputs is an empty word: name an image or a folder.")
        path = Path(text)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise DataError(f"There are no images in {path} (looked for {', '.join(IMAGE_SUFFIXES)}).")
            pairs = [(p, p.relative_to(path)) for p in inside]
        elif path.is_file():
            pairs = [(path, Path(path.name))]
        else:
            raise DataError(f"There is no file or folder {path}.")
        for file, name in pairs:
            if found.setdefault(name, file) != file:
                raise DataError(f"{file} and {found[name]} would both be drawn to {name}: predict them separately.")
    return [(file, name) for name, file in found.items()]
