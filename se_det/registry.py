"""Registries: the parts that a config names. fvcore's, with sentences for errors and names that are not Python's."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from fvcore.common.registry import Registry as FvcoreRegistry

from .errors import ConfigError, suggestion
from .plugins import load_installed_plugins


class Registry(FvcoreRegistry):
    """Parts of one kind by name.

    Args:
        kind: what a sentence calls one of them, "gate".
        detectron2: names that Detectron2 has and the builtin engine has not.
    """

    def __init__(self, kind: str, *, detectron2: Iterable[str] = ()) -> None:
        super().__init__(kind)
        self.kind = kind
        self._detectron2 = frozenset(detectron2)

    def register(self, obj: Any = None, *, name: str | None = None) -> Any:
        """Register `obj` by `name`, or by its own `__name__`; without `obj`, a decorator that does.

        Raises:
            ConfigError: the name is taken by another object.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, name=name)
        self._do_register(name or obj.__name__, obj)
        return obj

    def _do_register(self, name: str, obj: Any) -> None:
        if name in self._obj_map and _place(self._obj_map[name]) != _place(obj):  # a file run again replaces its own
            raise ConfigError(
                f"There is a {self.kind} '{name}' already ({_place(self._obj_map[name])}): register "
                f"{_place(obj)} by another name."
            )
        self._obj_map[name] = obj

    def names(self) -> list[str]:
        """The names, in the order in which they were registered."""
        return list(self._obj_map)

    def get(self, name: str, key: str = "", *, more: Iterable[str] = ()) -> Any:
        """The part called `name`. Plugins that are installed as packages are looked at only when no other has it.

        Args:
            key: the config key that names it, for the sentence.
            more: what the key may be besides.

        Raises:
            ConfigError: there is none; the sentence lists those there are, and says when Detectron2 has one.
        """
        if name not in self._obj_map:
            load_installed_plugins()
        if name in self._obj_map:
            return self._obj_map[name]
        subject = f"{key} '{name}'" if key else f"The {self.kind} '{name}'"
        known = [*more, *self._obj_map]
        listed = ", ".join(known)
        if name in self._detectron2:
            raise ConfigError(
                f"{subject} is one of Detectron2's that the builtin engine does not have: run with --engine "
                f"detectron2, or use one of {listed}."
            )
        raise ConfigError(
            f"{subject} is unknown: use one of {listed}.{suggestion(str(name), known)} One's own "
            f"{self.kind} is added with --plugin FILE (docs/extending.md)."
        )


def _place(obj: Any) -> str:
    return f"{obj.__module__}.{getattr(obj, '__qualname__', type(obj).__qualname__)}"


def call_with(function: Callable[..., Any], arguments: dict[str, Any], where: str, **given: Any) -> Any:
    """`function(**given, **arguments)`, where `arguments` are a user's.

    Raises:
        ConfigError: it does not take one of them, or needs another; the sentence begins with `where`.
    """
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [name for name in parameters if name not in given]
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                raise ConfigError(f"{where} has no argument '{name}': it takes {', '.join(known) or 'none'}.{hint}")
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    lacking = [name for name in required if name not in given and name not in arguments]
    if lacking:
        raise ConfigError(f"{where} needs the argument{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}.")
    try:
        return function(**given, **arguments)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ConfigError(f"{where} cannot be made of {arguments}: {error}.") from error
