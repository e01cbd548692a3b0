"""`se-det push`: a checkpoint to the Hugging Face Hub, with a model card."""

from __future__ import annotations

import argparse
import logging

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a detector or a classifier")
    parser.add_argument("repository", metavar="ORG/NAME", help="on the Hub; it is made where it is not there")
    parser.add_argument(
        "--license", metavar="ID", help="of the weights, as the Hub calls it: apache-2.0, cc-by-4.0, other, ..."
    )
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch that gets it; default: main")


def run(args: argparse.Namespace) -> int:
    """Push, and say how it is used from there.

    Raises:
        ExportError: the Hub refuses, or huggingface_hub is not installed.
    """
    from ..integrations.hub import push

    address = push(args.checkpoint, args.repository, license=args.license, private=args.private, revision=args.revision)
    logger.info("Pushed: se_det.Predictor('%s') has it from now on, and so has MODEL.WEIGHTS %s.", address, address)
    if args.license is None:
        logger.warning("No licence was stated (--license): others may not use the weights.")
    return 0
