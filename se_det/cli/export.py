"""`se-det export`: a network as ONNX, for OpenVINO, or as a program of torch.export."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ..export import Exportable

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    from .export_folders import add_folder_arguments

    parser.add_argument(
        "--output", required=True, metavar="FILE", help="x.onnx, x.xml for OpenVINO, or x.pt2 for torch.export.load"
    )
    parser.add_argument("--weights", metavar="W", help="a checkpoint, a URL or an entry of the zoo")
    parser.add_argument("--model", metavar="NAME", help="export this classifier, such as se_resnet50; not needed for "
                        "a checkpoint of pretraining")  # fmt: skip
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="classes of --model; default: 1000")
    parser.add_argument("--config-file", metavar="F", help="export a detector with this config; not needed for a "
                        "checkpoint that carries its own")  # fmt: skip
    parser.add_argument("--part", choices=("detector", "backbone"), default="detector",
                        help="export the whole detector, or backbone and pyramid; default: detector")  # fmt: skip
    parser.add_argument("--no-preprocessing", action="store_true",
                        help="leave resizing, and the order of the channels, to the caller")  # fmt: skip
    parser.add_argument("--compiled", action="store_true",
                        help="compile a .pt2 with AOTInductor for processors like this one")  # fmt: skip
    parser.add_argument("--int8", action="store_true",
                        help="a detector of 8-bit whole numbers (.xml by NNCF, .onnx by ONNX Runtime), calibrated and "
                        "evaluated on the validation data")  # fmt: skip
    parser.add_argument("--val-json", metavar="J", help="of --int8: a COCO file; default: the checkpoint's own")
    parser.add_argument("--val-images", metavar="D", help="of --int8: the folder of its images")
    parser.add_argument("--calibration-images", type=int, default=100, metavar="N",
                        help="of --int8: how many images calibrate; default: 100")  # fmt: skip
    parser.add_argument("--max-loss", type=float, default=0.5, metavar="POINTS",
                        help="of --int8: how much AP (PQ, mIoU, recall) it may cost; default: 0.5")  # fmt: skip
    add_folder_arguments(parser)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config keys and their values")


def run(args: argparse.Namespace) -> int:
    """Export, and log the largest difference between the outputs of the file and of PyTorch."""
    from ..errors import ConfigError
    from ..export import write
    from .export_folders import check_folders, write_folders

    if args.size is not None:
        raise ConfigError(
            "--size is no longer needed: an exported detector takes any number of images of any size, and resizes "
            "them itself as INPUT.MIN_SIZE_TEST says. Leave it out."
        )
    if args.config_file and args.model:
        raise ConfigError("Give --model for a classifier or --config-file for a detector, not both.")
    if not args.config_file and not args.weights:
        raise ConfigError("No weights were given, and random ones are of no use: give --weights.")
    classifier = _is_classifier(args)
    if args.int8 and (classifier or args.part == "backbone" or args.compiled):
        raise ConfigError("--int8 is for whole detectors, and not for --compiled.")
    network = _classifier(args) if classifier else _detector(args)
    check_folders(args, detector=not classifier and args.part == "detector")
    if args.int8:
        _write_int8(args, network)
        write_folders(args)
        return 0
    difference = write(network, args.output, compiled=args.compiled)
    compared = "not compared" if difference is None else f"largest difference to PyTorch {difference:.2g}"
    shapes = "1 shape" if len(network.shapes) == 1 else f"{len(network.shapes)} shapes"
    logger.info("Wrote %s: %s, at %s.", args.output, compared, shapes)
    write_folders(args)
    return 0


def _write_int8(args: argparse.Namespace, network: Exportable) -> None:
    from ..errors import ConfigError
    from ..export.int8.detectors import write_int8

    if args.calibration_images < 1:
        raise ConfigError(f"--calibration-images must be at least 1, got {args.calibration_images}.")
    if not args.max_loss >= 0:
        raise ConfigError(f"--max-loss must be at least 0, got {args.max_loss}.")
    write_int8(network, args.output, data=_data_keys(args), images=args.calibration_images, allowed=args.max_loss)


def _data_keys(args: argparse.Namespace) -> list[object]:
    """The keys of the validation data, of the command line, or else of the checkpoint or config."""
    from ..config import load_config, merge_overrides
    from ..config.loading import flatten
    from ..config.overrides import parse_overrides
    from ..weights import config_of_checkpoint

    own = parse_overrides(args.overrides)
    for key, value in (("DATASETS.VAL_JSON", args.val_json), ("DATASETS.VAL_IMAGES", args.val_images)):
        if value:
            own += [key, value]
    cfg = load_config(args.config_file, own) if args.config_file else config_of_checkpoint(args.weights, own)
    given = dict(zip(own[::2], own[1::2]))
    if any(key.startswith("DATASETS.VAL_") for key in given):  # other data, not a part of the checkpoint's
        for key in cfg.DATASETS:
            if key.startswith("VAL_"):
                cfg.DATASETS[key] = ""
        merge_overrides(cfg, own)
    asked = {"DATASETS": cfg.DATASETS, "DATALOADER": cfg.DATALOADER}
    keys = [part for pair in flatten(asked) for part in pair]
    if "TEST.EVALUATORS" in given:
        keys += ["TEST.EVALUATORS", given["TEST.EVALUATORS"]]
    return keys


def _is_classifier(args: argparse.Namespace) -> bool:
    """Whether the network is a classifier; if so, options that only a detector has are refused."""
    from ..errors import ConfigError
    from ..weights import read_weights, resolve_weights

    if args.config_file:
        return False
    if not args.model:
        extra = read_weights(resolve_weights(args.weights)[0]).extra
        if "architecture" not in extra and extra.get("config"):
            return False
    if args.overrides:
        raise ConfigError(f"{' '.join(args.overrides)}: keys and values go with a detector, --config-file.")
    if args.no_preprocessing:
        raise ConfigError("--no-preprocessing is for detectors: a classifier takes normalised images in any case.")
    return True


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
    from ..errors import ConfigError
    from ..export import detector, pyramid
    from ..inference import Predictor
    from ..layers.norms import fold_norms
    from ..weights import config_of_checkpoint

    class Unprepared(Predictor):
        """The network without what makes PyTorch's own operators faster."""

        def _prepare(self, model: nn.Module) -> nn.Module:
            model.eval().requires_grad_(False)
            fold_norms(model)
            return model

    overrides = [*parse_overrides(args.overrides), "TEST.PRECISION", "float32", "TEST.COMPILE", False]
    if args.config_file:
        cfg = load_config(args.config_file, overrides)
    else:
        cfg = config_of_checkpoint(args.weights, overrides, data=False)
    found = Unprepared(cfg, args.weights)
    if args.part == "backbone":
        if args.no_preprocessing:
            raise ConfigError(
                "--no-preprocessing is for whole detectors: a pyramid takes normalised images in any case."
            )
        network = pyramid(found.model)
        classes = [{"id": i, "name": n} for i, n in zip(found.category_ids, found.class_names)]
        metadata = {**network.metadata, "input_format": found.cfg.INPUT.FORMAT, "categories": classes}
        return replace(network, metadata=metadata)
    if found.window_sampler is not None:
        logger.warning(
            "The exported detector takes whole images, or windows of them as images: windows (TEST.TILE.SIZE %d) are "
            "left to who runs it.", found.cfg.TEST.TILE.SIZE,
        )  # fmt: skip
    return detector(
        found.model,
        found.cfg,
        preprocessing=not args.no_preprocessing,
        class_names=found.class_names,
        category_ids=found.category_ids,
        thresholds=found.thresholds,
        keypoint_names=found.keypoint_names,
        skeleton=found.skeleton,
        pixel_class_names=found.pixel_class_names or None,
        pixel_category_ids=found.pixel_category_ids or None,
    )
