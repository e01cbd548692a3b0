"""`se-det export`: a network as ONNX or as a program of torch.export."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..export import Exportable

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--output", required=True, metavar="FILE", help="x.onnx, or x.pt2 for torch.export.load")
    parser.add_argument("--weights", metavar="W", help="a checkpoint, a URL or an entry of the zoo")
    parser.add_argument("--model", metavar="NAME", help="export this classifier, such as se_resnet50; not needed for "
                        "a checkpoint of pretraining")  # fmt: skip
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="classes of --model; default: 1000")
    parser.add_argument("--config-file", metavar="F", help="export a detector with this config")
    parser.add_argument("--part", choices=("backbone", "detector"), default="backbone",
                        help="export backbone and pyramid, or the whole detector; default: backbone")  # fmt: skip
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(800, 1344),
                        help="image size of --part detector in px; default: 800 1344")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config keys and their values")


def run(args: argparse.Namespace) -> int:
    """Export, and log the largest difference between the outputs of the file and of PyTorch."""
    from ..errors import ConfigError
    from ..export import write
    from ..files import check_writable

    if args.config_file and args.model:
        raise ConfigError("Give --model for a classifier or --config-file for a detector, not both.")
    if args.overrides and not args.config_file:
        raise ConfigError(f"{' '.join(args.overrides)}: keys and values go with --config-file.")
    if not args.config_file and not args.weights:
        raise ConfigError("No weights were given, and random ones are of no use: give --weights.")
    network = _detector(args) if args.config_file else _classifier(args)
    check_writable(Path(args.output).parent)
    difference = write(network, args.output)
    compared = "not compared" if difference is None else f"largest difference to PyTorch {difference:.2g}"
    shapes = "1 shape" if len(network.shapes) == 1 else f"{len(network.shapes)} shapes"
    logger.info("Wrote %s: %s, at %s.", args.output, compared, shapes)
    return 0


def _classifier(args: argparse.Namespace) -> Exportable:
    from ..classification import load_classifier
    from ..export import classifier
    from ..weights import create_model

    if args.model:
        return classifier(create_model(args.model, num_classes=args.num_classes, weights=args.weights))
    model = load_classifier(args.weights)
    metadata = model.preprocessing
    return classifier(
        model,
        metadata={
            "classes": model.class_names,
            "input_format": metadata.format,
            "pixel_mean": list(metadata.mean),
            "pixel_std": list(metadata.std),
            "size": metadata.size,
            "crop_ratio": metadata.crop_ratio,
        },
    )


def _detector(args: argparse.Namespace) -> Exportable:
    from dataclasses import replace

    from ..config import load_config
    from ..config.overrides import parse_overrides
    from ..export import detector, pyramid
    from ..inference import Predictor

    predictor = Predictor(
        load_config(
            args.config_file, [*parse_overrides(args.overrides), "TEST.PRECISION", "float32", "TEST.COMPILE", False]
        ),
        args.weights,
    )
    if predictor.window_sampler is not None:
        logger.warning(
            "The exported detector takes an image, or a window of one, at a time: windows (TEST.TILE.SIZE %d) are left "
            "to who runs it.", predictor.cfg.TEST.TILE.SIZE,
        )  # fmt: skip
    network = pyramid(predictor.model) if args.part == "backbone" else detector(predictor.model, tuple(args.size))
    classes = [{"id": i, "name": n} for i, n in zip(predictor.category_ids, predictor.class_names)]
    metadata = {**network.metadata, "input_format": predictor.cfg.INPUT.FORMAT, "categories": classes}
    return replace(network, metadata=metadata)
