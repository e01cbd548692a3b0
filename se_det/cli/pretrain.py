"""`se-det pretrain`: train a classifier whose backbone starts a detector, and evaluate it.

The options of the SP-SE and RG-SE authors' script keep their names and meanings.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

NEWEST = ""  # of --resume without a path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("--recipe", metavar="R", help="se_paper, rg_se_paper, modern or a YAML file; default: rg_se_paper")
    add("-a", "--arch", metavar="A", help="a model, such as rg_se_resnet50; or RGSE50, RGSEX50, SPSE50, SPSEX50")
    add("--train_data_path", "--train-data-path", metavar="P",
        help="class folders, a list of `imagename label` lines, or tar shards")  # fmt: skip
    add("--test_data_path", "--test-data-path", metavar="P", help="the same for evaluation")
    add("--root", metavar="D", help="what the names in the lists are relative to; default: each list's own folder")
    add("--epochs", type=float, metavar="N")
    add("--schedule", type=float, metavar="N", help="divide the learning rate by 10 every N epochs")
    add("-b", "--batch-size", type=int, metavar="N", help="images of a step, over all processes")
    add("--lr", "--learning-rate", type=float, metavar="X", help="for that batch size, as it is")
    add("--lrp", type=float, metavar="X", help="layers that start from weights learn with lr * lrp")
    add("--momentum", type=float, metavar="X")
    add("--wd", "--weight-decay", type=float, metavar="X", help="of all parameters")
    add("--image-size", type=int, metavar="N", help="side of the crops, px")
    add("-j", "--workers", type=int, metavar="N", help="processes that load images, for each training process")
    add("-e", "--evaluate", action="store_true", help="evaluate --resume, or MODEL.WEIGHTS, and stop")
    add("--zoo", nargs="?", const="*", metavar="PATTERN", help="with --evaluate: the zoo's classifiers on this machine")
    add("--resume", nargs="?", const=NEWEST, metavar="PATH", help="go on from the newest checkpoint, or from this one")
    add("--overwrite", action="store_true", help="remove the earlier run in the output folder first")
    add("--output", metavar="DIR", help="the output folder (OUTPUT_DIR)")
    add("--export", metavar="FILE", help="write the weights of --resume as a .safetensors file, and stop")
    add("--num-gpus", type=int, metavar="N", help="GPUs on this machine; default: 1 if there is one")
    add("--num-machines", type=int, default=1, metavar="M")
    add("--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0")
    add("--dist-url", default="auto", metavar="U", help="tcp://host:port of machine 0")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="recipe keys and their values")


def run(args: argparse.Namespace) -> int:
    """Read the recipe, then train, evaluate or export."""
    from ..classification.run import run_classifier_evaluation
    from ..config.overrides import is_assignment
    from ..errors import ConfigError
    from ..training.launch import launch

    if args.resume and is_assignment(args.resume):  # --resume without a path, before a key
        args.overrides, args.resume = [args.resume, *args.overrides], NEWEST
    if args.evaluate and args.overwrite:
        raise ConfigError("--evaluate does not train, so --overwrite cannot be used with it.")
    if args.zoo is not None:
        return _evaluate_zoo(args)
    checkpoint = args.resume if args.resume not in (None, NEWEST) else None
    if args.export:
        return _export(args, checkpoint)
    cfg = _config(args, checkpoint)
    how = {"num_machines": args.num_machines, "machine_rank": args.machine_rank, "dist_url": args.dist_url}
    if args.evaluate:
        launch(run_classifier_evaluation, (cfg,), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
        return 0
    file = checkpoint if checkpoint and not Path(checkpoint).is_dir() else None
    options = (args.resume is not None, file, args.overwrite)
    launch(_train, (cfg, *options), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
    return 0


def _evaluate_zoo(args: argparse.Namespace) -> int:
    from ..classification.data.dataset_factory import open_image_dataset
    from ..classification.zoo_evaluation import CLASSES, evaluate_zoo
    from ..device import select_device
    from ..errors import ConfigError
    from ..files import write_json

    if not args.evaluate or args.resume is not None:
        raise ConfigError("--zoo goes with --evaluate, and without --resume: it evaluates published weights.")
    cfg = _config(args, None)
    # Folders tell how many classes there are; a list may hold images of a few.
    number = 0 if Path(cfg.DATASETS.TEST).is_dir() else CLASSES
    images = open_image_dataset(cfg.DATASETS.TEST, root=cfg.DATASETS.TEST_ROOT, num_classes=number)
    rows = evaluate_zoo(args.zoo, images, batch_size=cfg.TEST.IMS_PER_BATCH, num_workers=cfg.DATALOADER.NUM_WORKERS,
                        device=select_device(cfg.MODEL.DEVICE))  # fmt: skip
    if args.output:
        write_json(Path(args.output) / "zoo.json", rows, indent=2)
    return 1 if any("refused" in row for row in rows) else 0


def _train(cfg: CfgNode, resume: bool, checkpoint: str | None, overwrite: bool) -> None:
    from ..classification.run import run_pretraining

    run_pretraining(cfg, resume=resume, checkpoint=checkpoint, overwrite=overwrite)


def _export(args: argparse.Namespace, checkpoint: str | None) -> int:
    import logging

    from ..classification.export_weights import export_safetensors

    path = export_safetensors(_weights(checkpoint or args.output or ""), args.export)
    logging.getLogger(__name__).info("Wrote %s.", path)
    return 0


def _config(args: argparse.Namespace, checkpoint: str | None) -> CfgNode:
    from ..classification.defaults import load_recipe
    from ..config import merge_overrides
    from ..config.overrides import parse_overrides
    from ..errors import ConfigError

    given = _legacy_options(args)
    weights = None
    if args.evaluate and args.resume is not None:
        weights = _weights(checkpoint or args.output or "./output/pretrain")
    saved = _saved_config(weights) if weights and not args.recipe else None
    cfg = saved if saved is not None else load_recipe(args.recipe or "rg_se_paper")
    merge_overrides(cfg, given)
    merge_overrides(cfg, parse_overrides(args.overrides))
    if weights:
        cfg.MODEL.WEIGHTS = str(weights)
    elif checkpoint:
        folder = Path(checkpoint) if Path(checkpoint).is_dir() else Path(checkpoint).parent
        if args.output and Path(args.output).resolve() != folder.resolve():
            raise ConfigError(
                f"--resume {checkpoint} goes on in its own folder, and --output is {args.output}: leave --output out."
            )
        cfg.OUTPUT_DIR = str(folder)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def _legacy_options(args: argparse.Namespace) -> list[Any]:
    """The authors' options as keys and values."""
    from ..classification.build import ALIASES
    from ..errors import ConfigError

    pairs: dict[str, Any] = {
        "MODEL.NAME": ALIASES.get(args.arch, args.arch),
        "DATASETS.TRAIN": args.train_data_path,
        "DATASETS.TEST": args.test_data_path,
        "DATASETS.TRAIN_ROOT": args.root,
        "DATASETS.TEST_ROOT": args.root,
        "SOLVER.EPOCHS": args.epochs,
        "SOLVER.IMS_PER_BATCH": args.batch_size,
        "SOLVER.TRUNK_LR_FACTOR": args.lrp,
        "SOLVER.MOMENTUM": args.momentum,
        "SOLVER.WEIGHT_DECAY": args.wd,
        "SOLVER.WEIGHT_DECAY_NORM": args.wd,
        "INPUT.IMAGE_SIZE": args.image_size,
        "DATALOADER.NUM_WORKERS": args.workers,
        "OUTPUT_DIR": args.output,
    }
    if args.lr is not None:
        pairs |= {"SOLVER.BASE_LR": args.lr, "SOLVER.REFERENCE_BATCH": 0}
    if args.schedule is not None:
        if not args.schedule > 0:
            raise ConfigError(f"--schedule must be above 0, got {args.schedule}: it is a number of epochs.")
        last = args.epochs or 100
        count = min(int(last / args.schedule), 1000)
        steps = [args.schedule * n for n in range(1, count + 1) if args.schedule * n < last]
        pairs |= {"SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR", "SOLVER.EPOCH_STEPS": steps, "SOLVER.GAMMA": 0.1}
    return _overrides({key: value for key, value in pairs.items() if value is not None})


def _overrides(values: Mapping[str, Any]) -> list[Any]:
    """Keys and values as `merge_overrides` takes them; words in quotes, as a folder called 2012 is no number."""
    return [part for key, x in values.items() for part in (key, repr(x) if isinstance(x, str) else x)]


def _weights(place: str) -> Path:
    """A checkpoint: the file, or the best or else the newest in a folder."""
    from ..errors import CheckpointError
    from ..training.checkpoint import BEST, Checkpointer

    path = Path(place)
    if not place or not path.is_dir():
        if not place or not path.is_file():
            raise CheckpointError(f"There is no checkpoint at '{place}': name one with --resume PATH.")
        return path
    if (path / f"{BEST}.pth").is_file():
        return path / f"{BEST}.pth"
    found = Checkpointer(path).latest()
    if found is None:
        raise CheckpointError(f"There is no checkpoint in {path}: name one with --resume PATH.")
    return found[0]


def _saved_config(path: Path) -> CfgNode | None:
    """The recipe that the checkpoint was trained with; None for weights of others."""
    import yaml

    from ..classification.defaults import get_pretrain_cfg
    from ..config import merge_overrides
    from ..config.loading import flatten
    from ..weights import read_weights

    file = read_weights(path)
    if "architecture" not in file.extra:
        return None
    cfg = get_pretrain_cfg()
    merge_overrides(cfg, _overrides(dict(flatten(yaml.safe_load(file.extra["config"])))))
    return cfg
