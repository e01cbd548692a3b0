"""Names that are unknown, taken, Detectron2's, or of an installed package."""

from __future__ import annotations

import logging

import pytest

from se_det import plugins
from se_det.errors import ConfigError
from se_det.registry import Registry, call_with


def small() -> Registry:
    registry = Registry("gate", detectron2=("theirs",))
    registry.register(len, name="first")
    registry.register(max)
    return registry


def test_names_are_found_in_order() -> None:
    registry = small()
    assert registry.names() == ["first", "max"] and registry.get("max") is max
    with pytest.raises(ConfigError, match=r"MODEL.X 'frist' is unknown: use one of none, first, max. Did you mean 'fi"):
        registry.get("frist", "MODEL.X", more=("none",))
    with pytest.raises(ConfigError, match=r"'theirs' is one of Detectron2's .*--engine detectron2"):
        registry.get("theirs", "MODEL.X")


def test_a_name_is_given_once_but_a_file_may_run_again() -> None:
    registry = small()
    with pytest.raises(ConfigError, match="There is a gate 'first' already"):
        registry.register(min, name="first")

    def made() -> type:
        class Part: ...

        return Part

    registry.register(made())
    registry.register(second := made())
    assert registry.get("Part") is second


def test_installed_plugins_are_asked_only_for_unknown_names(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry, asked = small(), []

    class Entry:
        def __init__(self, name: str, load) -> None:
            self.name, self.value, self.load = name, f"package.{name}", load

    def broken() -> None:
        raise ImportError("no such thing")

    def entries(group: str) -> list[Entry]:
        asked.append(group)
        return [Entry("bad", broken), Entry("good", lambda: registry.register(min, name="installed"))]

    monkeypatch.setattr(plugins, "entry_points", entries)
    monkeypatch.setattr(plugins, "_installed_looked_for", False)
    registry.get("first")
    assert asked == []
    with caplog.at_level(logging.WARNING):
        assert registry.get("installed") is min
    assert asked == ["se_det.plugins"]
    assert "The plugin 'bad' of an installed package (package.bad) cannot be loaded: ImportError: no" in caplog.text


def test_arguments_of_a_user_are_named() -> None:
    def part(*, low, high=1.0):
        return low / high

    assert call_with(part, {"low": 3}, "A") == 3
    with pytest.raises(ConfigError, match="A has no argument 'hihg': it takes low, high. Did you mean 'high'"):
        call_with(part, {"low": 1, "hihg": 2}, "A")
    with pytest.raises(ConfigError, match="A needs the argument low"):
        call_with(part, {}, "A")
    with pytest.raises(ConfigError, match="A cannot be made of"):
        call_with(part, {"low": "x"}, "A")
