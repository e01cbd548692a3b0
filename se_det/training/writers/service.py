"""What writers to a service share: which of its runs is this one, and what its failures do to the training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config.loading import parse_yaml
from ...errors import ConfigError
from ...files import write_text

logger = logging.getLogger(__name__)


class Service:
    """A service that a training goes on without: what it cannot take is told once, and counted.

    Args:
        name: what sentences call it.
        folder: of the run.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self._id = folder / f"{name.lower()}_run.txt"
        self._failed = 0

    def known_run(self, start: int) -> str | None:
        """The id that the resumed run has there; None for a new run, or one that this writer was not in."""
        if not start:
            return None
        try:
            return self._id.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    def remember(self, run_id: str) -> None:
        """Keep the id, for who resumes the run."""
        write_text(self._id, f"{run_id}\n")

    def config(self) -> dict[str, Any]:
        """The run's config; empty where there is none."""
        try:
            text = (self._folder / "config.yaml").read_text(encoding="utf-8")
        except OSError:
            return {}
        return parse_yaml(text, "config.yaml")

    def attempt(self, call: Callable[[], object]) -> None:
        """Call; a failure is a warning, as the run's own files have everything."""
        try:
            call()
        except Exception as error:  # each service has exceptions of its own
            if not self._failed:
                logger.warning(
                    "%s could not be written to (%s). The training goes on: metrics.json has all numbers.",
                    self.name, _first_line(error),
                )  # fmt: skip
            self._failed += 1

    def close(self) -> None:
        """Say how much is missing there."""
        if self._failed:
            logger.warning("%s lacks what %d calls would have written.", self.name, self._failed)


def no_service(name: str, writer: str, error: Exception) -> ConfigError:
    """What a run ends with, before its first step, whose service cannot be had."""
    if isinstance(error, ImportError):
        return ConfigError(
            f"WRITERS has '{writer}', whose package cannot be imported ({error}): pip install 'se_det[{writer}]', or "
            "leave it out."
        )
    return ConfigError(f"WRITERS has '{writer}', and {name} cannot be begun: {_first_line(error)}. Mend that, or leave "
                       "it out.")  # fmt: skip


def _first_line(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
