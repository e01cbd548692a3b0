"""The command line: `se-det <command>`; each script in tools/ is one of the commands."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import select
import sys
from collections.abc import Sequence

from .. import __version__
from ..allocator import keep_freed_memory
from ..errors import SeDetError
from ..plugins import load_plugins
from ..terminal import escape, log_to_stdout

# command: (module with `add_arguments(parser)` and `run(args)`, what it is for)
COMMANDS = {
    "train": ("train", "train and evaluate a detector"),
    "pretrain": ("pretrain", "train and evaluate a classifier, whose backbone starts a detector"),
    "study": ("study", "train a grid of runs that differ in a few keys, and compare them"),
    "predict": ("predict", "detect objects in images and draw them"),
    "serve": ("serve", "answer with detections over HTTP, with a page to try them on"),
    "import": ("import_data", "convert the export of a labelling tool to COCO"),
    "preview": ("preview", "show what a training will see: samples, sizes against anchors, the split, the recipe"),
    "check-data": ("check_data", "find everything that is wrong with a data set, before training"),
    "analyze-model": (
        "analyze_model",
        "count parameters, multiply-adds and memory of networks, and plot the activations of their gates",
    ),
    "convert-weights": ("convert_weights", "convert weight files from and to the formats of other programs"),
    "reproduce-zoo": ("reproduce_zoo", "evaluate the trained detectors of the zoo beside their published figures"),
    "export": ("export", "export a network to ONNX or torch.export"),
    "push": ("push", "put a trained network on the Hugging Face Hub, with a model card"),
    "benchmark": ("benchmark", "measure time and memory"),
    "doctor": ("doctor", "print versions and devices, and what is missing and for what"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `se-det`; the exit code is 0 (done), 1 (failed, with a sentence on stderr), 2 (wrong usage), or 128 plus the
    number of the signal that ended it: 130 (Ctrl-C), 143 (SIGTERM)."""
    parser = argparse.ArgumentParser(prog="se-det", description="Detection with Squeeze-and-Excitation backbones.")
    parser.add_argument("--version", action="version", version=f"se_det {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (_, purpose) in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    args, rest = parser.parse_known_args(argv)
    return run_command(args.command, rest)


def run_command(name: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run one command with its own arguments; see `main` for the exit code."""
    module_name, purpose = COMMANDS[name]
    module = importlib.import_module(f".{module_name}", __package__)
    parser = argparse.ArgumentParser(prog=prog or f"se-det {name}", description=f"{purpose[0].upper()}{purpose[1:]}.")
    module.add_arguments(parser)
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE",
        help="a Python file that adds gates, heads, augmentations, ... (docs/extending.md); may be repeated",
    )  # fmt: skip
    args = _parse(parser, list(sys.argv[1:] if argv is None else argv))
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for ends nothing
    log_to_stdout(logging.INFO)
    try:
        _expand(args)
        load_plugins(args.plugin)
        return module.run(args) or 0
    except SeDetError as error:
        sys.stdout.flush()
        print(f"error: {escape(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_has_left():  # it was another pipe
            raise
        # Whoever read our output has left; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _reader_has_left() -> bool:
    """Whether nobody reads our output any more; where the system does not tell (Windows), it is what is likely."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Options and words in any order."""
    if any(word == "--set" or word.startswith("--set=") for word in argv):
        parser.error("there is no --set: write KEY=VALUE, such as TEST.PRECISION=bfloat16, among the other words")
    try:
        return parser.parse_intermixed_args(argv)
    except TypeError:  # commands of a command cannot be mixed with options
        return parser.parse_args(argv)


def _expand(args: argparse.Namespace) -> None:
    """Replace `~` and `$HOME` in the options: the shell leaves `--output=~/x` as it is."""
    from ..config.paths import expand_path

    for name, value in vars(args).items():
        if name == "overrides":
            continue
        if isinstance(value, str):
            setattr(args, name, expand_path(value, f"--{name.replace('_', '-')}"))
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            setattr(args, name, [expand_path(item, "The input") for item in value])


if __name__ == "__main__":
    sys.exit(main())
