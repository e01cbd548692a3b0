"""`se-det benchmark`: speed and memory, side by side with torchvision and what is installed of timm and Detectron2."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands start without loading PyTorch
    from ..benchmarks.timing import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    what = parser.add_subparsers(dest="what", required=True, metavar="what")
    gates = what.add_parser("gates", help="what every gate costs beside the same network without one",
                            description="Each gate takes turns with the plain network, both in processes of their "
                            "own: memory has to hold two (classifier with ResNet-50: 10 GiB).")  # fmt: skip
    gates.add_argument("--host", default="resnet50", metavar="H", help="default: resnet50")
    gates.add_argument("--parts", nargs="+", choices=("inference", "training", "classifier"), metavar="P",
                       default=["inference", "training", "classifier"], help="default: all")  # fmt: skip
    gates.add_argument("--gates", nargs="+", choices=("se", "sp_se", "rg_se", "cbam"), metavar="G",
                       default=["se", "sp_se", "rg_se", "cbam"], help="default: all")  # fmt: skip
    gates.set_defaults(measure=_gates)
    backbone = what.add_parser("backbone", help="a classifier beside timm's with the same weights")
    backbone.add_argument("--model", default="se_resnet50", metavar="M", help="default: se_resnet50")
    backbone.add_argument("--size", type=int, default=224, metavar="S", help="px; default: 224")
    backbone.set_defaults(measure=_backbone)
    detector = what.add_parser("detector", help="a config's detector beside Detectron2's with the same weights, and "
                               "torchvision's")  # fmt: skip
    detector.add_argument("--config-file", required=True, metavar="F")
    detector.add_argument("--val-json", required=True, metavar="J", help="a COCO file; its images are detected in")
    detector.add_argument("--val-images", required=True, metavar="D", help="the folder of its images")
    detector.add_argument("--parts", nargs="+", choices=("inference", "training"), metavar="P",
                          default=["inference", "training"], help="default: both")  # fmt: skip
    detector.add_argument("--images", type=int, default=5, metavar="N", help="of one turn of inference; default: 5")
    detector.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config keys and their values")
    detector.set_defaults(measure=_detector)
    pretrain = what.add_parser("pretrain", help="pretraining's loader beside timm's, and its steps with and without it")
    pretrain.add_argument("--data", required=True, metavar="P", help="class folders, a list or shards")
    pretrain.add_argument("--root", default="", metavar="D", help="what the names in a list are relative to")
    pretrain.add_argument("--model", default="se_resnet50", metavar="M", help="default: se_resnet50")
    pretrain.add_argument("--size", type=int, default=224, metavar="S", help="px; default: 224")
    pretrain.add_argument("--batch", type=int, default=64, metavar="N", help="images per step; default: 64")
    pretrain.add_argument("--batches", type=int, default=20, metavar="N", help="of one turn; default: 20")
    pretrain.add_argument("--workers", type=int, default=4, metavar="N", help="processes that load; default: 4")
    pretrain.add_argument("--bfloat16", action="store_true", help="mixed precision")
    pretrain.set_defaults(measure=_pretrain)
    loader = what.add_parser("loader", help="images to training tensors on one core, beside Detectron2's mapper")
    loader.add_argument("--train-json", required=True, metavar="J", help="a COCO file")
    loader.add_argument("--train-images", required=True, metavar="D", help="the folder of its images")
    loader.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("S", "L"), help="default: 800 1333")
    loader.add_argument("--masks", action="store_true", help="with the polygons of the masks")
    loader.add_argument("--images", type=int, default=200, metavar="N", help="in one turn; default: 200")
    loader.add_argument("--jitter", type=int, default=0, metavar="S", help="large-scale jitter and copy-paste at S px "
                        "instead, beside resizing alone")  # fmt: skip
    loader.set_defaults(measure=_loader)
    evaluation = what.add_parser("evaluation", help="COCO evaluation of made-up results, beside pycocotools")
    evaluation.add_argument("--images", type=int, default=5000, metavar="N", help="default: 5000, as val2017")
    evaluation.add_argument("--tasks", nargs="+", choices=("bbox", "segm"), default=["bbox", "segm"], metavar="T")
    evaluation.set_defaults(measure=_evaluation)
    runtimes = what.add_parser("runtimes", help="a checkpoint beside the files that were exported of it, with AP")
    runtimes.add_argument("files", nargs="+", metavar="FILE", help="a checkpoint, then .onnx, .xml, .pt2, .engine")
    runtimes.add_argument("--val-json", required=True, metavar="J", help="a COCO file")
    runtimes.add_argument("--val-images", required=True, metavar="D", help="the folder of its images")
    runtimes.add_argument("--images", type=int, default=10, metavar="N", help="in one turn; default: 10")
    runtimes.add_argument("--no-ap", action="store_true", help="measure time and memory alone")
    runtimes.set_defaults(measure=_runtimes)
    pyramid = what.add_parser("pyramid", help="a config's backbone and pyramid beside the same weights in OpenVINO, in "
                              "float32 and bfloat16, on a CPU")  # fmt: skip
    pyramid.add_argument("--config-file", default="configs/mask_rcnn_se_r50_fpn.yaml", metavar="F",
                         help="default: configs/mask_rcnn_se_r50_fpn.yaml")  # fmt: skip
    pyramid.add_argument("--sizes", nargs="+", default=["800x1088", "320x448"], metavar="HxW",
                         help="px; default: 800x1088 320x448")  # fmt: skip
    pyramid.add_argument("--images", type=int, default=3, metavar="N", help="of one turn; default: 3")
    pyramid.add_argument("--threads", type=int, default=1, metavar="N", help="of each library; default: 1")
    pyramid.set_defaults(measure=_pyramid)
    what.add_parser("scale", help="a simulation of very many images and of COCO on 1, 8 and 64 GPUs: docs/scale.md")
    for one, turns in (
        (runtimes, 5),
        (pyramid, 15),
        (gates, 7),
        (backbone, 7),
        (detector, 7),
        (pretrain, 5),
        (loader, 9),
        (evaluation, 3),
    ):
        one.add_argument("--repeat", type=int, default=turns, metavar="R", help=f"turns; default: {turns}")
        one.add_argument("--json", metavar="FILE", help="write the figures there too")
        one.add_argument("--csv", metavar="FILE", help="write the figures there as a table")
    for one in (gates, backbone, detector, pretrain, runtimes):
        one.add_argument("--device", default="cuda", metavar="D", help="default: cuda where there is one")


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for, and publish it."""
    from ..benchmarks.results import publish
    from ..benchmarks.timing import machine
    from ..device import select_device

    if args.what == "scale":
        from ..benchmarks.scale import tables

        print(tables(), end="")
        return 0
    _check_counts(args, "repeat")
    device = str(select_device(args.device)) if "device" in args else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        compared, more = args.measure(args, device, folder), {"threads": 1} if args.what == "loader" else {}
        publish(compared, machine(device) | more, json=args.json, csv_file=args.csv)
    return 0


def _gates(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.gates import compare_gates

    return compare_gates(args.host, args.parts, gates=args.gates, repeat=args.repeat, device=device)


def _backbone(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.backbone import compare_backbones

    _check_counts(args, "size")
    weights = f"{folder}/timm.pth"
    return compare_backbones(args.model, size=args.size, repeat=args.repeat, device=device, weights=weights)


def _detector(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.detector import compare_detectors
    from ..config.overrides import parse_overrides

    _check_counts(args, "images")
    paths = ["DATASETS.VAL_JSON", args.val_json, "DATASETS.VAL_IMAGES", args.val_images,
             "DATASETS.TRAIN_JSON", args.val_json, "DATASETS.TRAIN_IMAGES", args.val_images]  # fmt: skip
    overrides = [*paths, "MODEL.DEVICE", device, *parse_overrides(args.overrides)]
    return compare_detectors(
        args.config_file, overrides, args.parts, images=args.images,
        repeat=args.repeat, state=f"{folder}/state.pth",
    )  # fmt: skip


def _pretrain(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.pretrain import compare_pretraining

    _check_counts(args, "batch", "batches")
    _check_counts(args, "size", least=32)
    _check_counts(args, "workers", least=0)
    return compare_pretraining(
        args.data, args.model, size=args.size, batch=args.batch, workers=args.workers, batches=args.batches,
        repeat=args.repeat, device=device, bfloat16=args.bfloat16, root=args.root,
    )  # fmt: skip


def _loader(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.loader import compare_jitter, compare_loaders

    _check_counts(args, "images")
    _check_counts(args, "jitter", least=0)
    if args.jitter:
        return compare_jitter(
            args.train_json, args.train_images, size=args.jitter, short_side=args.size[0], max_size=args.size[1],
            masks=args.masks, count=args.images, repeat=args.repeat,
        )  # fmt: skip
    return compare_loaders(
        args.train_json, args.train_images, short_side=args.size[0], max_size=args.size[1], masks=args.masks,
        count=args.images, repeat=args.repeat,
    )  # fmt: skip


def _evaluation(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.evaluation import compare_evaluations

    _check_counts(args, "images")
    return compare_evaluations(images=args.images, tasks=args.tasks, repeat=args.repeat)


def _runtimes(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    from ..benchmarks.runtimes import compare_runtimes

    _check_counts(args, "images")
    return compare_runtimes(
        args.files, val_json=args.val_json, val_images=args.val_images, images=args.images, repeat=args.repeat,
        device=device, ap=not args.no_ap, folder=folder,
    )  # fmt: skip


def _pyramid(args: argparse.Namespace, device: str, folder: str) -> Iterator[Comparison]:
    import torch

    from ..benchmarks.pyramid import compare_pyramids
    from ..errors import ConfigError

    _check_counts(args, "images", "threads")
    try:
        sizes = [(int(height), int(width)) for height, width in (size.split("x") for size in args.sizes)]
    except ValueError:
        raise ConfigError(f"--sizes takes heights and widths such as 800x1088, got {' '.join(args.sizes)}.") from None
    torch.set_num_threads(args.threads)
    return compare_pyramids(args.config_file, sizes, images=args.images, repeat=args.repeat, folder=folder)


def _check_counts(args: argparse.Namespace, *flags: str, least: int = 1) -> None:
    from ..errors import ConfigError

    for flag in flags:
        if getattr(args, flag) < least:
            raise ConfigError(f"--{flag} must be at least {least}, got {getattr(args, flag)}.")
