"""Where the folders lie that come with the package."""

from __future__ import annotations

from pathlib import Path


def packaged_folder(name: str) -> Path:
    """`configs` or `model_zoo`: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
