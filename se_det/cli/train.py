"""`se-det train`: train and evaluate a detector."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from ..training.own_data import OwnData


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_config_arguments(parser)
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


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """What says what is trained: a data set with a goal, or a config; keys; the output folder."""
    parser.add_argument("--config-file", metavar="F", help="a YAML config, or the name of a shipped one")
    parser.add_argument("--model", metavar="M", help="without --config-file: a model, such as rg_se_resnet50")
    parser.add_argument(
        "--task", choices=("boxes", "masks", "keypoints"), help="without --config-file; default: what DATA has"
    )
    parser.add_argument("--minutes", type=float, metavar="N", help="without --config-file: how long it may take")
    parser.add_argument("--epochs", type=float, metavar="N", help="without --config-file: passes over the images")
    parser.add_argument("--output", metavar="DIR", help="the output folder (OUTPUT_DIR)")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="DATA | KEY=VALUE",
        help="a data set as a labelling tool exported it, for which a recipe is made unless --config-file is given; "
        "config keys and their values",
    )


def run(args: argparse.Namespace) -> int:
    """Make or read the config, then train or evaluate in every process of the run."""
    from ..errors import ConfigError
    from ..training.launch import launch

    data, overrides = data_and_keys(args)
    if args.num_gpus == 0:
        overrides += ["MODEL.DEVICE", "cpu"]
    for flag in ("train_json", "train_images", "val_json", "val_images"):
        value = getattr(args, flag)
        if value is not None:
            if data is not None:
                raise ConfigError(f"{data} is the data, and --{flag.replace('_', '-')} names other: give one of them.")
            overrides += [f"DATASETS.{flag.upper()}", value]
    if args.engine == "detectron2":
        from ..integrations.detectron2_version import check_detectron2

        check_detectron2()
        from ..integrations.detectron2_engine import run_evaluation, run_training
    else:
        from ..training.run import run_evaluation, run_training
    if args.eval_only and (args.resume or args.overwrite):
        raise ConfigError("--eval-only evaluates MODEL.WEIGHTS: it goes with neither --resume nor --overwrite.")
    cfg = _config(args, data, overrides)
    cfg.freeze()
    how = {"num_machines": args.num_machines, "machine_rank": args.machine_rank, "dist_url": args.dist_url}
    if args.eval_only:
        launch(run_evaluation, (cfg,), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
    else:
        train = partial(run_training, resume=args.resume, overwrite=args.overwrite, allow_partial=args.allow_partial)
        launch(train, (cfg,), num_gpus=args.num_gpus, device=cfg.MODEL.DEVICE, **how)
    return 0


def data_and_keys(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The data set, if one is named, and the overrides, the output folder among them."""
    data, overrides = _split_words(args.words)
    return data, overrides if args.output is None else [*overrides, "OUTPUT_DIR", args.output]


def _split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split the words into the data set (the first, if it exists or is not a config key) and the overrides."""
    from ..config.overrides import is_assignment, is_key, parse_overrides

    if words and not is_assignment(words[0]) and (Path(words[0]).exists() or not is_key(words[0])):
        return words[0], parse_overrides(words[1:])
    return None, parse_overrides(words)


def _config(args: argparse.Namespace, data: str | None, overrides: list[str]) -> CfgNode:
    """The config of --config-file, of a checkpoint that is evaluated, or of a recipe for the data."""
    from ..config import load_config, merge_overrides
    from ..errors import ConfigError

    given = dict(zip(overrides[::2], overrides[1::2]))
    if args.config_file:
        check_no_goal(args)
        cfg = load_config(args.config_file, overrides, defaults=_defaults(args.engine))
        if data is not None:
            from ..training.own_data import open_own_data

            merge_overrides(cfg, open_own_data(data, cfg.OUTPUT_DIR).overrides())
        return cfg
    if args.engine != "builtin":
        raise ConfigError("--engine detectron2 needs a config: give --config-file.")
    if args.eval_only:
        from ..training.own_data import evaluation_config

        if "MODEL.WEIGHTS" not in given:
            raise ConfigError("--eval-only evaluates weights: give MODEL.WEIGHTS=<checkpoint>, or --config-file F.")
        return evaluation_config(data, given["MODEL.WEIGHTS"], overrides)
    if data is None:
        raise ConfigError(
            "There is nothing to train on: name a data set (se-det train DATA), or give a config with --config-file F."
        )
    output = output_of(data, given)
    if args.resume:
        place = Path(output) / "config.yaml"
        if not place.is_file():
            raise ConfigError(f"There is no run in {output} to resume ({place} is missing): leave --resume out.")
        return load_config(place, overrides)
    from ..training.output_folder import check_folder

    check_folder(output, overwrite=args.overwrite)  # before data are read
    return config_by_recipe(args, data, overrides)


def config_by_recipe(args: argparse.Namespace, data: str, overrides: list[str], own: OwnData | None = None) -> CfgNode:
    """The config that the recipe makes for `data` as the options ask; `own` is the data where they are open already."""
    from ..training.own_data import recipe_config

    given = dict(zip(overrides[::2], overrides[1::2]))
    return recipe_config(
        data,
        output=output_of(data, given),
        overrides=overrides,
        model=args.model,
        task=args.task,
        minutes=args.minutes,
        epochs=args.epochs,
        device=given.get("MODEL.DEVICE"),
        own=own,
    )


def check_no_goal(args: argparse.Namespace) -> None:
    """Refuse what a recipe would take, beside --config-file.

    Raises:
        ConfigError: naming the option.
    """
    from ..errors import ConfigError

    for option in ("model", "task", "minutes", "epochs"):
        if getattr(args, option) is not None:
            raise ConfigError(f"--{option} is for training without a config: drop it, or --config-file.")


def output_of(data: str, given: Mapping[str, str]) -> str:
    """The output folder of a training on `data` without --config-file."""
    return given.get("OUTPUT_DIR", f"output/{Path(data).resolve().stem}")


def _defaults(engine: str) -> CfgNode:
    if engine == "detectron2":
        from ..integrations.detectron2_engine import default_config

        return default_config()
    from ..config import get_cfg

    return get_cfg()
