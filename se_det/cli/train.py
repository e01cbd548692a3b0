"""`se-det train`: train and evaluate a detector."""

from __future__ import annotations

import argparse

from fvcore.common.config import CfgNode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--config-file", required=True, metavar="F", help="a YAML config, or the name of a shipped one")
    parser.add_argument("--engine", choices=("builtin", "detectron2"), default="builtin", help="default: builtin")
    parser.add_argument("--num-gpus", type=int, metavar="N", help="GPUs on this machine; default: 1 if there is one")
    parser.add_argument("--num-machines", type=int, default=1, metavar="M")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", metavar="U", help="tcp://host:port of machine 0")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--overwrite", action="store_true", help="remove the earlier run in OUTPUT_DIR first")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS on the validation data")
    parser.add_argument(
        "--allow-partial", action="store_true", help="start from weights that lack parts of the backbone"
    )
    parser.add_argument("--train-json", metavar="J", help="COCO annotations to train on")
    parser.add_argument("--train-images", metavar="D", help="folder of their images")
    parser.add_argument("--val-json", metavar="J", help="COCO annotations to evaluate on")
    parser.add_argument("--val-images", metavar="D", help="folder of their images")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and their values")


def run(args: argparse.Namespace) -> int:
    """Read the config, then train or evaluate in every process of the run."""
    from ..config import load_config, merge_overrides
    from ..errors import ConfigError
    from ..training.launch import launch
    from ..training.run import run_evaluation

    if args.engine == "detectron2":
        raise ConfigError("--engine detectron2 is not available in this version: use the builtin engine.")
    cfg = load_config(args.config_file, args.overrides)
    for flag in ("train_json", "train_images", "val_json", "val_images"):
        value = getattr(args, flag)
        if value is not None:
            merge_overrides(cfg, [f"DATASETS.{flag.upper()}", value])
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    if args.eval_only and (args.resume or args.overwrite):
        raise ConfigError("--eval-only evaluates MODEL.WEIGHTS: it goes with neither --resume nor --overwrite.")
    how = {"num_machines": args.num_machines, "machine_rank": args.machine_rank, "dist_url": args.dist_url}
    if args.eval_only:
        launch(run_evaluation, (cfg,), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
    else:
        options = (args.resume, args.overwrite, args.allow_partial)
        launch(_train, (cfg, *options), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
    return 0


def _train(cfg: CfgNode, resume: bool, overwrite: bool, allow_partial: bool) -> None:
    from ..training.run import run_training

    run_training(cfg, resume=resume, overwrite=overwrite, allow_partial=allow_partial)
