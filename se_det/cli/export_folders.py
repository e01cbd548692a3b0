"""What `se-det export` makes of a detector's ONNX file besides: a folder that runs it, a model for Triton."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """`--runner` and `--triton`."""
    parser.add_argument("--runner", metavar="DIR", help="make a folder that detects without PyTorch, besides: "
                        "model.onnx, predict.py, requirements.txt, README.md")  # fmt: skip
    parser.add_argument("--triton", metavar="DIR", help="make a model of a Triton repository, besides: config.pbtxt "
                        "and 1/model.onnx; the folder's name is the model's")  # fmt: skip


def check_folders(args: argparse.Namespace, *, detector: bool) -> None:
    """Before the export: whether these folders can be made of it.

    Args:
        args: the command's; `output` is the file that is exported.
        detector: whether a whole detector is.

    Raises:
        ConfigError: they need something else to be exported.
        CheckpointError: they cannot be written.
    """
    from ..errors import ConfigError
    from ..files import check_writable

    for option, folder in (("--runner", args.runner), ("--triton", args.triton)):
        if folder is None:
            continue
        if not detector or Path(args.output).suffix != ".onnx":
            raise ConfigError(f"{option} is made of a whole detector as ONNX: give --part detector --output x.onnx.")
        check_writable(folder)
    if args.runner and getattr(args, "no_preprocessing", False):
        raise ConfigError("--runner needs the graph that resizes images itself: leave --no-preprocessing out.")


def write_folders(args: argparse.Namespace) -> None:
    """After the export: make the folders that were asked for.

    Raises:
        ExportError: the graph is not one of a detector with a free batch size.
        CheckpointError: a folder cannot be written.
    """
    from ..export.runner import write_runner
    from ..export.triton import write_triton

    if args.runner:
        write_runner(args.output, args.runner)
        logger.info("%s detects without PyTorch: its README.md says how.", args.runner)
    if args.triton:
        write_triton(args.output, args.triton)
        logger.info("%s is a model for tritonserver --model-repository %s.", args.triton,
                    Path(args.triton).resolve().parent)  # fmt: skip
