"""The preview of a training as two files: a page and a picture."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from fvcore.common.config import CfgNode

from ...errors import ConfigError
from ...files import atomic_write, write_text
from ..output_folder import make_folder
from ..own_data import OwnData
from .facts import Preview, gather
from .page import preview_page
from .sheet import preview_sheet

PAGE, SHEET = "preview.html", "preview.png"
MOST_SAMPLES = 100

logger = logging.getLogger(__name__)


def write_preview(
    asked: CfgNode, folder: str | Path, *, title: str, own: OwnData | None = None, samples: int = 12
) -> Preview:
    """Write `preview.html` and `preview.png` of a training into `folder`.

    Args:
        asked: its config, as the training would take it.
        title: what the data is called.
        own: the data as a labelling tool exported it, where it was given so.
        samples: how many are drawn.

    Raises:
        SeDetError: what the training would be refused with, as far as that does not need its weights; a number of
            samples that is too large; or the files cannot be written.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise ConfigError(f"--samples must be from 1 to {MOST_SAMPLES}, got {samples}.")
    start, folder = time.perf_counter(), Path(folder)
    preview = gather(asked, title=title, own=own, samples=samples)
    make_folder(folder)
    write_text(folder / PAGE, preview_page(preview))
    sheet = preview_sheet(preview)
    atomic_write(folder / SHEET, lambda file: file.write(sheet))
    logger.info("Wrote %s and %s (%.1f s).", folder / PAGE, folder / SHEET, time.perf_counter() - start)
    return preview
