"""Text that OpenCV's font has no letters for, drawn with the fonts that are installed."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Where operating systems keep fonts.
FOLDERS = {
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("$WINDIR/Fonts", "$LOCALAPPDATA/Microsoft/Windows/Fonts"),
}
# In this order; then all others. Upright sans serif fonts that cover much.
PREFERRED = ("dejavusans.", "notosans-regular.", "notosanscjk-regular.", "notosanscjk", "arialuni", "msyh", "pingfang",
             "hiragino", "malgun", "notosans", "droidsansfallback", "wqy", "arial.")  # fmt: skip
SUFFIXES = (".ttf", ".otf", ".ttc")
CAPITAL = 0.72  # of the size of a font: how high its capitals are
MISSING = "\U0010ffff"  # no character: every font shows its sign for those that it lacks
MAX_FONTS = 200  # that are looked into for a character

logger = logging.getLogger(__name__)


@cache
def font_files() -> tuple[Path, ...]:
    """The font files here, the most useful first."""
    folders = [Path(os.path.expandvars(name)).expanduser() for name in FOLDERS.get(sys.platform, FOLDERS["linux"])]
    found = [
        Path(place) / name
        for folder in folders
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and "lastresort" not in name.lower()  # whose signs stand for any character
    ]
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin:  # which brings this one along
        found.append(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")

    def rank(path: Path) -> tuple[int, str]:
        name = path.name.lower()
        at = next((number for number, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
        return at, name

    return tuple(sorted(found, key=rank))


@lru_cache(maxsize=64)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(path), size)
    except OSError:  # no font, or of a kind that FreeType does not read
        return None


@lru_cache(maxsize=4096)
def _covers(path: Path, char: str) -> bool:
    font = _font(path, 24)
    if font is None:
        return False
    if char.isspace() or unicodedata.combining(char) or unicodedata.category(char) == "Cf":
        return True  # nothing to see by itself
    mask, missing = font.getmask(char), font.getmask(MISSING)
    return mask.size != missing.size or bytes(mask) != bytes(missing)


@lru_cache(maxsize=4096)
def font_of(char: str) -> Path | None:
    """The first font file that has `char`; None where none has."""
    return next((path for path in font_files()[:MAX_FONTS] if _covers(path, char)), None)


@lru_cache(maxsize=1024)
def can_draw(text: str) -> bool:
    """Whether each character of `text` is in a font here; says once which are not."""
    missing = sorted({char for char in text if font_of(char) is None})
    if missing:
        _warn_missing("".join(missing))
    return not missing


@cache
def _warn_missing(chars: str) -> None:
    logger.warning(
        "No font here has %s: names with them are drawn as their class's number. Install fonts that have them, such as "
        "Noto Sans (Noto Sans CJK for Chinese, Japanese and Korean).", " ".join(chars),
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _runs(text: str) -> tuple[tuple[str, Path], ...]:
    """Parts of `text` that one font draws: that of the whole where there is one."""
    for path in font_files()[:MAX_FONTS]:
        if all(_covers(path, char) for char in text):
            return ((text, path),)
    runs: list[tuple[str, Path]] = []
    for char in text:
        path = font_of(char)
        if runs and (runs[-1][1] == path or _covers(runs[-1][1], char)):
            runs[-1] = (runs[-1][0] + char, runs[-1][1])
        else:
            runs.append((char, path))
    return tuple(runs)


@lru_cache(maxsize=1024)
def text_mask(text: str, capital: int) -> tuple[np.ndarray, int]:
    """The coverage of `text`, which `can_draw`, by ink.

    Args:
        capital: px from the foot to the top of a capital.

    Returns:
        uint8 (height, width), 255 for ink; and the px from its lower edge up to the foot of the letters.
    """
    size = max(round(capital / CAPITAL), 6)
    parts = [(part, _font(path, size)) for part, path in _runs(unicodedata.normalize("NFC", text))]
    width = sum(max(round(font.getlength(part)), 1) for part, font in parts)
    above = max(-font.getbbox(part, anchor="ls")[1] for part, font in parts)
    below = max(font.getbbox(part, anchor="ls")[3] for part, font in parts)
    above, below = max(above, capital), max(below, 0)
    image = Image.new("L", (width, above + below))
    pen, x = ImageDraw.Draw(image), 0
    for part, font in parts:
        pen.text((x, above), part, fill=255, font=font, anchor="ls")
        x += max(round(font.getlength(part)), 1)
    return np.asarray(image), below
