"""`se-det serve`: a detector over HTTP."""

from __future__ import annotations

import argparse
import logging
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..serving.limits import Limits

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="what `se-det predict --weights` takes, such as a checkpoint")
    parser.add_argument(
        "--config-file", metavar="F", help="the config the weights were trained with; default: the one they carry"
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H",
                        help="the address to listen on; default: 127.0.0.1, this machine alone")  # fmt: skip
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="default: 8000; 0 takes a free one")
    parser.add_argument("--queue", type=int, default=256, metavar="N",
                        help="refuse requests (503) while so many wait for their answers; default: 256")  # fmt: skip
    parser.add_argument("--wait", type=float, default=5, metavar="MS",
                        help="wait so many ms for more images while a batch is not full; default: 5")  # fmt: skip
    parser.add_argument("--max-body", type=float, default=20, metavar="MIB",
                        help="refuse larger bodies (413); default: 20")  # fmt: skip
    parser.add_argument("--max-pixels", type=float, default=50, metavar="M",
                        help="refuse images of more millions of pixels (413); default: 50")  # fmt: skip
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE",
        help="config keys, such as TEST.IMS_PER_BATCH=8: how many images of one size are detected in at once",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; what was admitted is answered before.

    Raises:
        ConfigError: a number that cannot work, an address that cannot be had, or the extra is not installed.
    """
    from ..config.overrides import parse_overrides
    from ..errors import ConfigError

    limits = _limits(args)
    try:
        import python_multipart  # noqa: F401  FastAPI asks for it when the first form comes

        from ..serving.app import create_app
        from ..serving.server import Server, open_socket
    except ImportError as error:
        raise ConfigError(
            f'Serving needs packages that cannot be imported ({error}): pip install "se_det[serve]".'
        ) from error
    from PIL import Image

    from ..serving.service import DetectionService
    from .predict import open_predictor

    # Larger images are refused by their headers, with a sentence to who sent them.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    with open_socket(args.host, args.port) as listening:
        predictor = open_predictor(args.config_file, args.model, parse_overrides(args.overrides))
        service = DetectionService(predictor, limits)
        service.warm_up()
        host, port = listening.getsockname()[:2]
        at = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        def tell() -> None:
            logger.info(
                "Serving %s at %s: POST an image to %s/predict, or open %s/ in a browser.", args.model, at, at, at
            )

        Server(create_app(service, Path(args.model).name), listening, on_start=tell).serve_until_stopped()
    logger.info("Ended; %d requests were answered.", sum(service.metrics.responses.values()))
    return 0


def _limits(args: argparse.Namespace) -> Limits:
    from ..errors import ConfigError
    from ..serving.limits import MEGAPIXEL, MIB, Limits

    for name, lowest in (("queue", 1), ("wait", 0), ("max_body", 0), ("max_pixels", 0), ("port", 0)):
        value = getattr(args, name)
        above = value > lowest if name.startswith("max") else value >= lowest
        if not (above and math.isfinite(value)) or (name == "port" and value > 65535):
            what = {"port": "from 0 to 65535", "queue": "at least 1", "wait": "0 or more"}.get(name, "above 0")
            raise ConfigError(f"--{name.replace('_', '-')} must be {what}, got {value:g}.")
    return Limits(
        queue=args.queue,
        wait=args.wait / 1000,
        max_body=int(args.max_body * MIB),
        max_pixels=int(args.max_pixels * MEGAPIXEL),
    )
