"""`se-det benchmark`: speed and memory, side by side with what is installed of timm and Detectron2."""

from __future__ import annotations

import argparse
import logging

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    what = parser.add_subparsers(dest="what", required=True, metavar="what")
    gates = what.add_parser("gates", help="what every gate costs beside the same network without one")
    gates.add_argument("--host", default="resnet50", metavar="H", help="default: resnet50")
    gates.add_argument("--parts", nargs="+", choices=("inference", "training", "classifier"), metavar="P",
                       default=["inference", "training", "classifier"], help="default: all")  # fmt: skip
    gates.add_argument("--gates", nargs="+", choices=("se", "sp_se", "rg_se", "cbam"), metavar="G",
                       default=["se", "sp_se", "rg_se", "cbam"], help="default: all")  # fmt: skip
    gates.set_defaults(measure=_run_gates)
    backbone = what.add_parser("backbone", help="a classifier beside timm's with the same weights")
    backbone.add_argument("--model", default="se_resnet50", metavar="M", help="default: se_resnet50")
    backbone.add_argument("--size", type=int, default=224, metavar="S", help="px; default: 224")
    backbone.set_defaults(measure=_run_backbone)
    detector = what.add_parser("detector", help="a config's detector beside Detectron2's with the same weights")
    detector.add_argument("--config-file", required=True, metavar="F")
    detector.add_argument("--val-json", required=True, metavar="J", help="a COCO file; its images are detected in")
    detector.add_argument("--val-images", required=True, metavar="D", help="the folder of its images")
    detector.add_argument("--parts", nargs="+", choices=("inference", "training"), metavar="P",
                          default=["inference", "training"], help="default: both")  # fmt: skip
    detector.add_argument("--images", type=int, default=5, metavar="N", help="of one turn of inference; default: 5")
    detector.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help="config keys and their values")
    detector.set_defaults(measure=_run_detector)
    for one in (gates, backbone, detector):
        one.add_argument("--repeat", type=int, default=7, metavar="R", help="turns; default: 7")
        one.add_argument("--json", metavar="FILE", help="write the figures there too")
        one.add_argument("--csv", metavar="FILE", help="write the figures there as a table")
    for one in (gates, backbone):
        one.add_argument("--device", default="cuda", metavar="D", help="default: cuda where there is one")
    pretrain = what.add_parser("pretrain", help="images a second of pretraining's loader and network, beside timm's")
    pretrain.add_argument("--data", required=True, metavar="P", help="class folders, a list or shards")
    pretrain.add_argument("--root", default="", metavar="D", help="what the names in a list are relative to")
    pretrain.add_argument("--model", default="se_resnet50", metavar="M", help="default: se_resnet50")
    pretrain.add_argument("--size", type=int, default=224, metavar="S", help="px; default: 224")
    pretrain.add_argument("--batch", type=int, default=64, metavar="N", help="images per step; default: 64")
    pretrain.add_argument("--batches", type=int, default=20, metavar="N", help="of each measurement; default: 20")
    pretrain.add_argument("--workers", type=int, default=4, metavar="N", help="processes that load; default: 4")
    pretrain.add_argument("--repeat", type=int, default=5, metavar="R", help="times, of which the median; default: 5")
    pretrain.add_argument("--bfloat16", action="store_true", help="mixed precision")
    pretrain.add_argument("--device", default="cuda", metavar="D", help="default: cuda where there is one")
    pretrain.add_argument("--json", metavar="FILE", help="write the figures there too")
    pretrain.set_defaults(measure=_run_pretrain)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for."""
    return args.measure(args)


def _run_pretrain(args: argparse.Namespace) -> int:
    """Measure pretraining's loader, its network, and both."""
    import torch

    from ..backbones import create_model
    from ..classification.throughput import measure, table
    from ..device import pick_device
    from ..errors import ConfigError
    from ..files import write_json

    for flag in ("batch", "batches", "repeat", "size"):
        least = 32 if flag == "size" else 1
        if getattr(args, flag) < least:
            raise ConfigError(f"--{flag} must be at least {least}, got {getattr(args, flag)}.")
    if args.workers < 0:
        raise ConfigError(f"--workers must not be negative, got {args.workers}.")
    device = pick_device(args.device)
    threads = torch.get_num_threads()
    logger.info(
        "%s at %d px, %d images a step, %d workers, %s, PyTorch %s", args.model, args.size, args.batch, args.workers,
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {threads} thread{'s' if threads > 1 else ''}",
        torch.__version__,
    )  # fmt: skip
    speeds = measure(
        args.data, create_model(args.model), size=args.size, batch=args.batch, workers=args.workers,
        batches=args.batches, repeat=args.repeat, device=device, bfloat16=args.bfloat16, root=args.root,
    )  # fmt: skip
    for line in table(speeds):
        logger.info(line)
    if args.json:
        write_json(args.json, speeds, indent=1)
    return 0


def _run_gates(args: argparse.Namespace) -> int:
    """Compare gates."""
    from ..benchmarks.alternate import machine
    from ..benchmarks.gates import compare_gates
    from ..benchmarks.results import publish
    from ..device import pick_device

    _check_counts(args, "repeat")
    device = str(pick_device(args.device))
    compared = compare_gates(args.host, args.parts, gates=args.gates, repeat=args.repeat, device=device)
    publish(compared, machine(device), json=args.json, csv_file=args.csv)
    return 0


def _run_backbone(args: argparse.Namespace) -> int:
    """Compare a classifier with timm's."""
    import tempfile

    from ..benchmarks.alternate import machine
    from ..benchmarks.backbone import compare_backbones
    from ..benchmarks.results import publish
    from ..device import pick_device

    _check_counts(args, "repeat", "size")
    device = str(pick_device(args.device))
    with tempfile.TemporaryDirectory() as folder:
        compared = compare_backbones(
            args.model, size=args.size, repeat=args.repeat, device=device, weights=f"{folder}/timm.pth"
        )
        publish(compared, machine(device), json=args.json, csv_file=args.csv)
    return 0


def _run_detector(args: argparse.Namespace) -> int:
    """Compare a detector with Detectron2's."""
    import tempfile

    from ..benchmarks.alternate import machine
    from ..benchmarks.detector import compare_detectors
    from ..benchmarks.results import publish

    _check_counts(args, "repeat", "images")
    paths = ["DATASETS.VAL_JSON", args.val_json, "DATASETS.VAL_IMAGES", args.val_images,
             "DATASETS.TRAIN_JSON", args.val_json, "DATASETS.TRAIN_IMAGES", args.val_images]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        compared = compare_detectors(
            args.config_file, [*paths, *args.set], args.parts, images=args.images, repeat=args.repeat,
            state=f"{folder}/state.pth",
        )  # fmt: skip
        publish(compared, machine(), json=args.json, csv_file=args.csv)
    return 0


def _check_counts(args: argparse.Namespace, *flags: str) -> None:
    from ..errors import ConfigError

    for flag in flags:
        if getattr(args, flag) < 1:
            raise ConfigError(f"--{flag} must be at least 1, got {getattr(args, flag)}.")
