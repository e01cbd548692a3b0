"""Text from files and data sets made safe to show: what would steer a terminal or forge a line is written out."""

from __future__ import annotations

import copy
import logging
import sys
import unicodedata

# Besides control characters: those that turn the direction of text or cannot be encoded.
UNSAFE_CATEGORIES = ("Cc", "Cs")
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escape(text: str, *, keep: str = "\t") -> str:
    """`text` with control characters, direction marks and halves of characters as `\\x1b` and the like.

    Args:
        keep: control characters that stay.
    """
    if text.isascii() and text.isprintable():  # as nearly all is
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if char not in keep and (unicodedata.category(char) in UNSAFE_CATEGORIES or char in BIDIRECTIONAL)
        else char
        for char in text
    )


class EscapingFormatter(logging.Formatter):
    """Log lines whose arguments cannot steer the terminal, nor begin a line of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a message's own line breaks stay."""
        if isinstance(record.args, tuple):
            record = copy.copy(record)
            record.args = tuple(escape(arg) if isinstance(arg, str) else arg for arg in record.args)
        return escape(super().format(record), keep="\t\n")


def log_to_stdout(level: int) -> None:
    """Print log lines from `level` on, where nothing else is done with them yet."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(EscapingFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
