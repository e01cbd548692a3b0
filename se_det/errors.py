"""The errors users meet. Each message is a sentence: what was wrong (file, key, value) and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SeDetError(Exception):
    """Base of everything that is refused on purpose; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class ConfigError(SeDetError):
    """A configuration file, key or value, or a combination of keys, that cannot work."""


class DataError(SeDetError):
    """An annotation file or an image that cannot be used."""


class WeightsError(SeDetError):
    """A weight file that is missing, unsafe, or does not fit the network."""


class CheckpointError(SeDetError):
    """An output folder or checkpoint that cannot be written, read or resumed."""


class TrainingError(SeDetError):
    """A run that cannot go on, such as one whose loss is not finite."""


class ExportError(SeDetError):
    """A network that cannot be exported, or whose export computes something else."""


class Terminated(TrainingError):
    """A run that SIGTERM ended."""

    exit_code = 128 + 15


class Interrupted(TrainingError):
    """A run that SIGINT (Ctrl-C) ended."""

    exit_code = 128 + 2


def suggestion(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest of `known`, or an empty string when nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
