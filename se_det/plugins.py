"""Plugins: Python files, and installed packages, that add parts to registries. docs/extending.md shows each kind.

A file is run when its user names it (`--plugin FILE`, `load_plugins`), and never because a config or a checkpoint does:
those record which plugins there were, by the names of their files, so that a sentence can ask for them.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import ConfigError

KEY = "PLUGINS"
GROUP = "se_det.plugins"  # of entry points: a module of an installed package, imported when a name is looked for

_files: dict[str, Path] = {}  # the module's name to its file
_installed_looked_for = False

logger = logging.getLogger(__name__)


def load_plugins(files: Iterable[str | os.PathLike]) -> None:
    """Run plugin files, each once in a process.

    Raises:
        ConfigError: a file is not there, is no Python file, has the name of another, or fails; the sentence says in
            which line, and why.
    """
    for file in files:
        _load(Path(os.path.abspath(Path(file).expanduser())))


def _load(path: Path) -> None:
    name = f"se_det_plugin_{path.stem}"
    if _files.get(name) == path:
        return
    if name in _files:
        raise ConfigError(
            f"The plugins {_files[name]} and {path} have the same name, by which a run's record tells them apart: "
            "rename one."
        )
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(f"There is no Python file {path} to load as a plugin (--plugin FILE.py).")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, and pickle in worker processes, look for it there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"The plugin {path} cannot be loaded: {_described(error, path)}.") from error
    _files[name] = path


def _described(error: BaseException, path: Path) -> str:
    """An error and the line of `path` that it comes from."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"line {error.lineno} is not Python ({error.msg})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"


def loaded_plugins() -> list[str]:
    """The names of the files loaded, as `PLUGINS` in a config."""
    return sorted(path.name for path in _files.values())


def plugin_files() -> list[str]:
    """The files loaded, in order, for another process to load."""
    return [str(path) for path in _files.values()]


def require_plugins(names: Any, source: str) -> None:
    """Refuse a config that was made with plugins which are not loaded.

    Raises:
        ConfigError: naming them; `source` is what a sentence calls the config.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{source}: {KEY} must be a list of file names, got {names!r}.")
    lacking = [name for name in names if name not in loaded_plugins()]
    if lacking:
        options = " ".join(f"--plugin <folder>/{name}" for name in lacking)
        raise ConfigError(
            f"{source}: {KEY} says that this config was made with {', '.join(lacking)}, which "
            f"{'is' if len(lacking) == 1 else 'are'} not loaded. A config does not load code: give {options} if you "
            "trust it."
        )


def load_installed_plugins() -> None:
    """Import what installed packages offer, once. One that fails is named in the log, and the others are there.

    It is called when a name or a key is unknown otherwise: what is installed changes nothing for who does not use it.
    """
    global _installed_looked_for
    if _installed_looked_for:
        return
    _installed_looked_for = True
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            logger.warning(
                "The plugin '%s' of an installed package (%s) cannot be loaded: %s: %s.",
                entry.name, entry.value, type(error).__name__, " ".join(str(error).split()).rstrip("."),
            )  # fmt: skip


class PluginFiles:
    """Pickled before objects of plugins' classes, so that the process that unpickles them has the plugins."""

    def __reduce__(self) -> tuple[Any, tuple[Sequence[str]]]:
        return _loaded_there, (plugin_files(),)


def _loaded_there(files: Sequence[str]) -> PluginFiles:
    load_plugins(files)
    return PluginFiles()
