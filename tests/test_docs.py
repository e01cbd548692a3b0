"""What the documentation points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from se_det.backbones import create_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_tests_exist(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), f"{page.name} names {file}"
        if name:
            assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{page.name} names {file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_linked_pages_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_row_of_the_pitfalls_names_a_test() -> None:
    rows = [
        line for line in (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "
    ]
    assert len(rows) == 55 and all("::test_" in row for row in rows[1:])


def test_the_table_of_models_has_their_parameters() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) == 44
    for name, parameters in rows:
        with torch.device("meta"):
            model = create_model(name)
        assert sum(p.numel() for p in model.parameters()) == int(parameters.replace(",", "")), name
