"""Docstrings name arguments, attributes and errors that exist."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "se_det"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def listed(docstring: str, section: str) -> list[str]:
    """The names that a section of a docstring in Google's style describes."""
    found = re.search(rf"^{section}:\n((?:    .*\n|\n)*)", docstring + "\n", re.M)
    lines = re.findall(r"^    ([\w.*]+(?:, [\w.*]+)*):(?: |$)", found[1], re.M) if found else []
    return [name.lstrip("*") for line in lines for name in line.split(", ")]


def parameters(function: ast.FunctionDef) -> set[str]:
    a = function.args
    return {arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))}


def members(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """Attributes of a class and of its instances; arguments of its constructor."""
    functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    fields = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    fields |= {target.id for item in node.body if isinstance(item, ast.Assign) for target in item.targets}
    own = {x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute) and ast.unparse(x.value) == "self"}
    arguments = [parameters(function) for function in functions if function.name == "__init__"]
    return fields | own | {function.name for function in functions}, fields.union(*arguments)


def known_errors() -> set[str]:
    names = set(dir(builtins))
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {(alias.asname or alias.name).split(".")[-1] for alias in node.names}
    return names


def test_docstrings_name_what_is_there() -> None:
    errors, wrong, looked_at = known_errors(), [], 0
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            docstring = ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                attributes, arguments = members(node)
            else:
                attributes, arguments = set(), parameters(node)
            sections = {"Args": arguments, "Attributes": attributes, "Raises": errors}
            for section, there in sections.items():
                names = listed(docstring, section)
                looked_at += len(names)
                # A dotted error is another package's.
                missing = [name for name in names if name not in there and not (section == "Raises" and "." in name)]
                wrong += [f"{path}:{node.lineno} {node.name}: {section} {name}" for name in missing]
    assert not wrong, "\n".join(wrong)
    assert looked_at > 1000
