"""What torchrun's environment variables say, and saying what a process waits for that they name."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import ConfigError

UNSET = "If no torchrun started this, the variables are left over: run `unset RANK WORLD_SIZE LOCAL_RANK`."
FIRST_NOTE, NEXT_NOTES = 5.0, 60.0  # seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TorchrunEnvironment:
    """This process's place among those that torchrun started."""

    rank: int
    world_size: int
    local_rank: int
    address: str


def torchrun_environment() -> TorchrunEnvironment | None:
    """What RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT say; None where torchrun did not start this.

    RANK 0 of WORLD_SIZE 1 without a master is one process like any other: some shells and schedulers set these.

    Raises:
        ConfigError: a variable is missing or is not what torchrun sets.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    world_size = _number("WORLD_SIZE", 1, None)
    rank = _number("RANK", 0, world_size - 1)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing and world_size == 1:
        return None
    if missing:
        raise ConfigError(
            f"RANK {rank} and WORLD_SIZE {world_size} are set in the environment, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not: torchrun sets all of them. {UNSET}"
        )
    port = _number("MASTER_PORT", 1, 65535)
    local_rank = _number("LOCAL_RANK", 0, None) if "LOCAL_RANK" in os.environ else 0
    return TorchrunEnvironment(rank, world_size, local_rank, f"{os.environ['MASTER_ADDR']}:{port}")


def _number(name: str, low: int, high: int | None) -> int:
    text = os.environ[name].strip()
    value = int(text) if text.isdecimal() and len(text) < 10 else None
    if value is None or value < low or (high is not None and value > high):
        wanted = f"from {low} on" if high is None else f"{low}" if low == high else f"from {low} to {high}"
        raise ConfigError(f"{name} is '{text}' in the environment, and must be a whole number {wanted}. {UNSET}")
    return value


@contextmanager
def log_while_waiting(rank: int, world_size: int, address: str, hint: str = "") -> Iterator[None]:
    """While the block lasts longer than some seconds, log what it waits for.

    Args:
        hint: what to do where that will never come.
    """
    done = threading.Event()

    def tell() -> None:
        pause = FIRST_NOTE
        while not done.wait(pause):
            logger.warning(
                "Process %d of %d waits at %s until all %d have joined.%s",
                rank, world_size, address, world_size, f" {hint}" if hint else "",
            )  # fmt: skip
            pause = NEXT_NOTES

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
