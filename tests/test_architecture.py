"""Imports point one way: a room may import the rooms below it, never one above or beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "se_det"
# Lowest first; rooms on one line do not know each other. Modules directly in se_det are below all rooms.
FLOORS = [
    {"internals"},
    {"config", "layers"},
    {"backbones"},
    {"weights"},
    {"data", "detection"},
    {"analysis", "inference"},
    {"evaluation"},
    {"training"},
    {"classification", "integrations", "export", "serving"},
    {"benchmarks", "study"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports from, relative or absolute, also inside functions."""
    package = ("se_det", *path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [module, *((*module, alias.name) for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        found |= {name[1] for name in names if len(name) > 1 and name[0] == "se_det" and name[1] in LEVEL}
    return found


def test_every_room_has_its_floor():
    rooms = {p.parent.relative_to(PACKAGE).parts[0] for p in PACKAGE.glob("*/*.py")}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_imports_point_downwards(room):
    for path in (PACKAGE / room).rglob("*.py"):
        for other in imported_rooms(path) - {room}:
            assert LEVEL[other] < LEVEL[room], f"{path} imports {other}"


def test_base_modules_import_no_room():
    for path in set(PACKAGE.glob("*.py")) - {PACKAGE / "__main__.py"}:  # which is the command, by another name
        assert not imported_rooms(path), path


def test_only_the_integrations_import_detectron2():
    """So that installing it changes nothing that the builtin engine computes."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "integrations":
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names.append(node.module)
                assert not any(name.split(".")[0] == "detectron2" for name in names), path


def test_only_torch_free_code_runs_at_installation_and_for_help():
    setup = (PACKAGE.parent / "setup.py").read_text()
    assert "import torch" not in setup and "import se_det" not in setup


def test_every_public_name_is_there():
    import se_det

    for name in se_det.__all__:
        assert getattr(se_det, name) is not None, name
