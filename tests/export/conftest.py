"""What is exported once for the tests of several files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .cases import ExportCase


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportCase]:
    """By its kind."""
    made: dict[str, ExportCase] = {}

    def of(kind: str) -> ExportCase:
        if kind not in made:
            made[kind] = ExportCase.build(kind, tmp_path_factory.mktemp("case"))
        return made[kind]

    return of
