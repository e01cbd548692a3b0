"""`se-det benchmark`: time and memory of the product's own training step and inference, and pretraining's speed."""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from pathlib import Path

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    what = parser.add_subparsers(dest="what", required=True, metavar="what")
    step = what.add_parser("step", help="one training step and one inference of a config's detector")
    step.add_argument("--config-file", required=True, metavar="F")
    step.add_argument("--size", type=int, nargs=2, default=(800, 1088), metavar=("H", "W"), help="default: 800 1088")
    step.add_argument("--batch", type=int, default=1, metavar="N", help="images per training step; default: 1")
    step.add_argument("--repeat", type=int, default=5, metavar="R", help="times, of which the median; default: 5")
    step.add_argument("--json", metavar="FILE", help="write the figures there too")
    step.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and their values")
    step.set_defaults(measure=_run_step)
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
    loader = what.add_parser("loader", help="images to training tensors on one core, beside Detectron2's mapper")
    loader.add_argument("--train-json", required=True, metavar="J", help="a COCO file")
    loader.add_argument("--train-images", required=True, metavar="D", help="the folder of its images")
    loader.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("S", "L"), help="default: 800 1333")
    loader.add_argument("--masks", action="store_true", help="with the polygons of the masks")
    loader.add_argument("--images", type=int, default=200, metavar="N", help="in one turn; default: 200")
    loader.add_argument("--repeat", type=int, default=9, metavar="R", help="turns; default: 9")
    loader.set_defaults(measure=_run_loader)
    evaluation = what.add_parser("evaluation", help="COCO evaluation of made-up results, beside pycocotools")
    evaluation.add_argument("--images", type=int, default=5000, metavar="N", help="default: 5000, as val2017")
    evaluation.add_argument("--tasks", nargs="+", choices=("bbox", "segm"), default=["bbox", "segm"], metavar="T")
    evaluation.add_argument("--repeat", type=int, default=3, metavar="R", help="turns; default: 3")
    evaluation.set_defaults(measure=_run_evaluation)
    for one in (loader, evaluation):
        one.add_argument("--json", metavar="FILE", help="write the figures there too")
        one.add_argument("--csv", metavar="FILE", help="write the figures there as a table")


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for."""
    return args.measure(args)


def _run_loader(args: argparse.Namespace) -> int:
    """Compare loaders of training samples."""
    from ..benchmarks.alternate import machine
    from ..benchmarks.loader import compare_loaders
    from ..benchmarks.results import publish

    _check_counts(args, "images", "repeat")
    compared = compare_loaders(
        args.train_json, args.train_images, short_side=args.size[0], max_size=args.size[1], masks=args.masks,
        count=args.images, repeat=args.repeat,
    )  # fmt: skip
    publish(compared, machine() | {"threads": 1}, json=args.json, csv_file=args.csv)
    return 0


def _run_evaluation(args: argparse.Namespace) -> int:
    """Compare evaluations."""
    from ..benchmarks.alternate import machine
    from ..benchmarks.evaluation import compare_evaluations
    from ..benchmarks.results import publish

    _check_counts(args, "images", "repeat")
    compared = compare_evaluations(images=args.images, tasks=args.tasks, repeat=args.repeat)
    publish(compared, machine(), json=args.json, csv_file=args.csv)
    return 0


def _check_counts(args: argparse.Namespace, *flags: str) -> None:
    from ..errors import ConfigError

    for flag in flags:
        if getattr(args, flag) < 1:
            raise ConfigError(f"--{flag} must be at least 1, got {getattr(args, flag)}.")


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


def _run_step(args: argparse.Namespace) -> int:
    """Measure, each in a process of its own, so that a peak is that measurement's."""
    import multiprocessing

    import torch

    from ..config import load_config
    from ..device import pick_device
    from ..errors import ConfigError
    from ..files import write_json

    for flag, value in (("--size", min(args.size)), ("--batch", args.batch), ("--repeat", args.repeat)):
        if value < 1:
            raise ConfigError(f"{flag} must be at least 1, got {value}.")
    cfg = load_config(args.config_file, args.overrides)
    cfg.MODEL.DEVICE = str(pick_device(cfg.MODEL.DEVICE))
    where = (
        torch.cuda.get_device_name()
        if cfg.MODEL.DEVICE.startswith("cuda")
        else f"CPU, {torch.get_num_threads()} threads"
    )
    logger.info("%s, %d x %d px, PyTorch %s, %s", Path(args.config_file).stem, *args.size, torch.__version__, where)
    figures = {}
    context = multiprocessing.get_context("spawn")
    for name, images in (("inference", 1), ("training step", args.batch)):
        with context.Pool(1) as pool:
            figure = pool.apply(_measure, (cfg.dump(), name, images, tuple(args.size), args.repeat))
        figures[name] = figure
        logger.info(
            "%-14s %d image%s  %7.3f s (%.3f to %.3f)  peak memory %6.0f MiB, of which before the first %5.0f MiB",
            name, images, " " if images == 1 else "s", figure["seconds"], figure["fastest"], figure["slowest"],
            figure["peak_mib"], figure["before_mib"],
        )  # fmt: skip
    if args.json:
        write_json(args.json, figures, indent=1)
    return 0


def _measure(config: str, name: str, images: int, size: tuple[int, int], repeat: int) -> dict[str, float]:
    """Seconds and MiB of one kind of step on images of noise with eight boxes."""
    import torch
    import yaml

    from ..config import get_cfg, merge_overrides
    from ..config.loading import leaves
    from ..detection import build_detector
    from ..training.settings import optimizer, precision

    cfg = get_cfg()
    merge_overrides(cfg, [part for leaf in leaves(yaml.safe_load(config)) for part in leaf])
    device = torch.device(cfg.MODEL.DEVICE)
    torch.manual_seed(0)
    model = build_detector(cfg).to(device)
    samples = [_sample(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES) for _ in range(images)]
    arithmetic = precision(cfg, device)
    update = optimizer(cfg, model, base_lr=1e-6, scaled=arithmetic.scaled)
    training = name == "training step"
    model.train(training)

    def step() -> None:
        if not training:
            with torch.no_grad():
                model(samples)
            return
        with arithmetic.autocast():
            loss = sum(model(samples).values())
        loss.backward()
        update.step()
        update.zero_grad()

    before = _memory(device)
    times = []
    for _ in range(repeat + 1):  # the first one warms up
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return {
        "images": images,
        "seconds": statistics.median(times[1:]),
        "fastest": min(times[1:]),
        "slowest": max(times[1:]),
        "peak_mib": _memory(device),
        "before_mib": before,
    }


def _sample(size: tuple[int, int], num_classes: int) -> dict:
    import torch

    height, width = size
    corner = torch.rand(8, 2) * torch.tensor([width / 2, height / 2])
    boxes = torch.cat([corner, corner + torch.rand(8, 2) * torch.tensor([width / 3, height / 3]) + 16], 1)
    polygons = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().reshape(-1, 2)
    masks = {
        "polygons": polygons,
        "polygon_points": torch.full((8,), 4),
        "polygon_owner": torch.arange(8),
        "bitmaps": torch.zeros(0, height, width, dtype=torch.uint8),
        "bitmap_owner": torch.zeros(0, dtype=torch.int64),
    }
    instances = {"gt_boxes": boxes, "gt_classes": torch.randint(num_classes, (8,)), "gt_masks": masks}
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "instances": instances}


def _memory(device: object) -> float:
    """The most memory so far, MiB: of the GPU, or of this process."""
    import resource

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
