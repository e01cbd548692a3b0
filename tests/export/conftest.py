"""What is exported once for the tests of several files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .houses import House


@pytest.fixture(scope="session")
def house_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], House]:
    """By its kind."""
    made: dict[str, House] = {}

    def of(kind: str) -> House:
        if kind not in made:
            made[kind] = House.build(kind, tmp_path_factory.mktemp("house"))
        return made[kind]

    return of
