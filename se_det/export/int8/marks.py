"""The metadata of a quantised file."""

from __future__ import annotations

import json


def as_int8(metadata: str) -> str:
    """The JSON of a float32 file, saying int8."""
    return json.dumps({**json.loads(metadata), "precision": "int8"})
