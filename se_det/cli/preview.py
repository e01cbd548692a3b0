"""`se-det preview`: what a training will see, before it is started."""

from __future__ import annotations

import argparse
from pathlib import Path

from .train import add_config_arguments, check_no_goal, config_by_recipe, data_and_keys, output_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_config_arguments(parser)
    parser.add_argument("--samples", type=int, default=12, metavar="N", help="how many to draw; default: 12")


def run(args: argparse.Namespace) -> int:
    """Open the data and make the config as `se-det train` would, and write the preview."""
    from ..config import load_config, merge_overrides
    from ..config.paths import expand_path
    from ..errors import CheckpointError, ConfigError
    from ..training.output_folder import find_run
    from ..training.own_data import open_own_data
    from ..training.preview import write_preview

    data, overrides = data_and_keys(args)
    given = dict(zip(overrides[::2], overrides[1::2]))
    cfg = own = None
    if args.config_file:
        check_no_goal(args)
        cfg = load_config(args.config_file, overrides)
        output = cfg.OUTPUT_DIR
    elif data is None:
        raise ConfigError(
            "There is nothing to preview: name a data set (se-det preview DATA), or give a config with --config-file F."
        )
    else:
        output = output_of(data, given)
    if data is not None:
        folder = Path(expand_path(output, "OUTPUT_DIR"))
        found = find_run(folder)
        if found is not None:
            raise CheckpointError(
                f"{folder} holds a run ({found.name}), whose split would be written over: name another folder with "
                f"--output, or see what that run saw with --config-file {folder / 'config.yaml'} and no data."
            )
        own = open_own_data(data, output)
    if cfg is None:
        cfg = config_by_recipe(args, data, overrides, own)
    elif own is not None:
        merge_overrides(cfg, own.overrides())
    title = Path(data).resolve().name if data is not None else Path(args.config_file).stem
    write_preview(cfg, expand_path(output, "OUTPUT_DIR"), title=title, own=own, samples=args.samples)
    return 0
