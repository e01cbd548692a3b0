"""Annotations of another format as a COCO JSON in the cache (`SE_DET_CACHE`, else `~/.cache/se_det`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...files import write_text
from ...weights.download import cache_folder


def keep_as_coco(document: dict[str, Any]) -> Path:
    """Write a COCO document, named by its content; the file is there already when the same was written before.

    Raises:
        CheckpointError: the cache cannot be written.
    """
    text = json.dumps(document)
    path = cache_folder() / "data" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise CheckpointError(
            f"The annotations could not be kept in {path.parent}: {error.strerror or error}. Set SE_DET_CACHE to a "
            "folder that can be written."
        ) from error
    return path
