"""`se-det train`: train and evaluate a detector."""

from __future__ import annotations

import argparse
from functools import partial


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
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config keys and their values")


def run(args: argparse.Namespace) -> int:
    """Read the config, then train or evaluate in every process of the run."""
    from ..config import get_cfg, load_config, merge_overrides
    from ..config.overrides import parse_overrides
    from ..errors import ConfigError
    from ..training.launch import launch

    if args.engine == "detectron2":
        from ..integrations.detectron2_version import check_detectron2

        check_detectron2()
        from ..integrations.detectron2_engine import default_config, run_evaluation, run_training
    else:
        from ..training.run import run_evaluation, run_training

        default_config = get_cfg
    cfg = load_config(args.config_file, parse_overrides(args.overrides), defaults=default_config())
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
        train = partial(run_training, resume=args.resume, overwrite=args.overwrite, allow_partial=args.allow_partial)
        launch(train, (cfg,), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
    return 0
