"""Reading YAML configs: safely, with `_BASE_`, from a path or from the installed package, and checked key by key."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from ..errors import ConfigError, suggestion
from ..packaged import packaged_folder
from ..plugins import KEY as PLUGINS
from ..plugins import require_plugins
from . import provenance
from .defaults import DETECTRON2_ONLY, add_installed_keys, get_cfg
from .paths import expand_path, expand_paths

BASE_KEY = "_BASE_"
# What YAML and people call true and false.
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def load_config(
    path: str | Path | None = None, overrides: Sequence[Any] = (), *, defaults: CfgNode | None = None
) -> CfgNode:
    """The defaults, then the YAML file with its bases, then `KEY VALUE` pairs.

    Args:
        path: a file, or one of the shipped configs by the name it has in the repository (`configs/x.yaml`).
        overrides: `[key, value, key, value, ...]`; values are Python literals or words.
        defaults: every key there is, with its default; None is those of a detector in the builtin engine. They are not
            changed.

    Raises:
        ConfigError: the file is missing, is not YAML or asks for Python objects; a key is unknown or has a value of
            the wrong type. The sentence names file, key and value.
    """
    cfg = get_cfg() if defaults is None else defaults.clone()
    if path is not None:
        for file, tree in _read_with_bases(find_config(path)):
            _merge(cfg, tree, str(file), shipped=_shipped_values(file))
    merge_overrides(cfg, overrides)
    expand_paths(cfg)
    return cfg


def load_saved_config(
    text: str,
    overrides: Sequence[Any] = (),
    *,
    source: str,
    defaults: CfgNode | None = None,
    leave_out: tuple[str, ...] = (),
) -> CfgNode:
    """The config that a program wrote down whole, such as a checkpoint's, then `KEY VALUE` pairs.

    Its keys are nobody's choice (see `provenance`), so that facts may decide them; the pairs are the user's.

    Args:
        text: YAML.
        overrides, defaults: see `load_config`.
        source: what a sentence calls the text.
        leave_out: keys, and sections with a dot at their end, that stay at their defaults.

    Raises:
        ConfigError: as `load_config`. Keys that this version does not know are all named in one sentence: what they
            change is unknown, too.
    """
    cfg = get_cfg() if defaults is None else defaults.clone()
    values = dict(flatten(parse_yaml(text, source)))
    if PLUGINS in values:  # first, as in `_merge`: plugins may have added keys
        require_plugins(values[PLUGINS], source)
    values = {key: value for key, value in values.items() if not key.startswith(leave_out)}
    unknown = [key for key in values if key != PLUGINS and not _is_known(cfg, key)]
    if unknown:
        raise ConfigError(
            f"{source} has keys that this version of se_det does not know: {', '.join(unknown)}. Use the version that "
            "wrote it or a later one, or give a config of your own with --config-file."
        )
    _merge(cfg, values, source, shipped=values)
    merge_overrides(cfg, overrides)
    expand_paths(cfg)
    return cfg


def _is_known(cfg: CfgNode, key: str) -> bool:
    try:
        _find(cfg, key, "")
    except ConfigError:
        return False
    return True


def find_config(path: str | Path) -> Path:
    """Where a config lies: at `path`, or among the shipped ones."""
    path = Path(expand_path(path, "The config file"))
    if path.is_file():
        return path
    shipped = packaged_folder("configs")
    if not path.is_absolute() and (path.parts[:1] == ("configs",) or len(path.parts) == 1):
        packaged = shipped.joinpath(*path.parts[1:]) if path.parts[0] == "configs" else shipped / path
        if packaged.is_file():
            return packaged
    names = [p.name for p in (shipped / Path(*path.parts[1:-1])).glob("*.yaml")]
    raise ConfigError(f"There is no config file {path}, nor a shipped one of that name.{suggestion(path.name, names)}")


MAX_VALUES = 100_000  # of a YAML text; a config has some hundreds


def shipped_config(name: str) -> Path:
    """The shipped config of this name, also where the working folder has a file called so."""
    return packaged_folder("configs") / name


def _shipped_values(file: Path) -> dict[str, Any]:
    """What the shipped config or recipe of this file's name says: so much of a copy is still our choice."""
    folder = packaged_folder("configs")
    original = next((path for path in (folder / "pretrain" / file.name, folder / file.name) if path.is_file()), None)
    return {} if original is None else dict(flatten(read_yaml(original)))


def merge_overrides(cfg: CfgNode, overrides: Sequence[Any]) -> None:
    """Set `[key, value, key, value, ...]` in `cfg`.

    Raises:
        ConfigError: a key without a value, an unknown key, a value of the wrong type.
    """
    if len(overrides) % 2:
        raise ConfigError(
            f"The overrides must be pairs of KEY VALUE, and '{overrides[-1]}' has no value: "
            f"{' '.join(map(str, overrides))}."
        )
    source = "the command line"
    for key, value in zip(overrides[::2], overrides[1::2]):
        node, name = _find(cfg, str(key), source)
        meant = parse_value(value)
        if isinstance(node[name], str) and not isinstance(meant, str):
            meant = value  # a folder called 2012 is no number
        tree: Any = meant
        for part in reversed(str(key).split(".")):
            tree = {part: tree}
        _merge(cfg, tree, source)


def parse_value(value: Any) -> Any:
    """What a word of the command line says: a number, a list, ..., or itself."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _read_with_bases(path: Path, chain: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """The file and its bases with what each says, the lowest base first."""
    path = path.resolve()
    if path in chain:
        circle = " -> ".join(str(p) for p in (*chain, path))
        raise ConfigError(f"{BASE_KEY} goes round in a circle: {circle}.")
    tree = read_yaml(path)
    base = tree.pop(BASE_KEY, None)
    if base is None:
        return [(path, tree)]
    if not isinstance(base, str):
        raise ConfigError(f"{path}: {BASE_KEY} must be the path of one YAML file, got {base!r}.")
    beside = path.parent / expand_path(base, f"{path}: {BASE_KEY}")
    if not beside.is_file():
        raise ConfigError(f"{path}: {BASE_KEY} names {beside}, which does not exist.")
    return [*_read_with_bases(beside, (*chain, path)), (path, tree)]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, by the safe loader only: a tag that would run code is refused.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, source: str | Path) -> dict[str, Any]:
    """The mapping that a YAML text holds; `source` is what a sentence calls it.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(
            f"{source}: {error.problem}{_line_number(error)}. Only plain values are read; tags that build Python "
            f"objects are "
            "refused."
        ) from error
    # Besides YAMLError: what a date that is none, a number of thousands of digits, or a tag on the wrong kind of value
    # makes the loader stumble over.
    except Exception as error:
        raise ConfigError(f"{source} is not valid YAML: {_one_line(error)}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{source} must hold a mapping of keys to values, got {type(tree).__name__}.")
    waiting, count = [tree], 0
    while waiting:  # a value that stands for others counts as often as it is named: it may hold itself
        value = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise ConfigError(f"{source} holds more than {MAX_VALUES} values, its '*' names written out. Shorten it.")
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return tree


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which besides refuses a key that is used twice (YAML would keep the last one silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen and key_node.value != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{key_node.value}' is used twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _line_number(error: yaml.MarkedYAMLError) -> str:
    return f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _merge(cfg: CfgNode, tree: Mapping[str, Any], source: str, *, shipped: Mapping[str, Any] | None = None) -> None:
    if PLUGINS in tree:  # before other keys, which plugins may have added
        require_plugins(tree[PLUGINS], source)
    for key, value in flatten(tree):
        if key == PLUGINS:
            continue
        node, name = _find(cfg, key, source)
        node[name] = _coerce(value, node[name], key, source)
        ours = shipped is not None and key in shipped and shipped[key] == value
        provenance.record(cfg, key, node[name], None if ours else source)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("A.B.C", value) of every key in a tree of mappings."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def dump_keys(values: Mapping[str, Any]) -> str:
    """YAML of {"A.B.C": value}, nested: what `flatten` takes apart."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, name = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[name] = value
    return yaml.safe_dump(tree, sort_keys=False)


def get_key(cfg: CfgNode, key: str) -> Any:
    """The value of "A.B.C"."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def set_key(cfg: CfgNode, key: str, value: Any) -> None:
    """Give "A.B.C" a value as it is: neither checked nor recorded as anybody's."""
    *parents, name = key.split(".")
    for part in parents:
        cfg = cfg[part]
    cfg[name] = value


def _find(cfg: CfgNode, key: str, source: str) -> tuple[CfgNode, str]:
    node, parts = cfg, key.split(".")
    for depth, part in enumerate(parts):
        if isinstance(node, CfgNode) and part not in node:
            add_installed_keys(cfg)
        if not isinstance(node, CfgNode) or part not in node:
            here = ".".join(parts[: depth + 1])
            if any(f"{key}.".startswith(f"{only}.") or only.startswith(f"{key}.") for only in DETECTRON2_ONLY):
                raise ConfigError(
                    f"{source}: {key} is a key of Detectron2's that the builtin engine does not implement. Remove it, "
                    "or run with --engine detectron2."
                )
            known = [path for path, _ in flatten(cfg)]
            raise ConfigError(f"{source}: there is no key {here}.{suggestion(key, known)}")
        if depth < len(parts) - 1:
            node = node[part]
    if isinstance(node[parts[-1]], CfgNode):
        raise ConfigError(f"{source}: {key} is a section, not a key: set one of {', '.join(node[parts[-1]])}.")
    return node, parts[-1]


def _coerce(value: Any, default: Any, key: str, source: str) -> Any:
    """`value` as the type that the key has, where nothing is lost by it."""
    # SOLVER.WEIGHT_DECAY_BIAS is the one key that may be None.
    if default is None or (value is None and key == "SOLVER.WEIGHT_DECAY_BIAS"):
        if value is None:
            return None
        if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
            return _coerce(value, 0.0, key, source)
    elif isinstance(value, str) and not isinstance(default, str):
        # YAML reads `(600, 800)` and `1e-4` as words.
        parsed = parse_value(value)
        if not isinstance(parsed, str):
            return _coerce(parsed, default, key, source)
        if isinstance(default, bool) and value.lower() in SWITCHES:
            return SWITCHES[value.lower()]
        if isinstance(default, (list, tuple)) and all(isinstance(item, str) for item in default) and value:
            return type(default)(item.strip() for item in value.split(",") if item.strip())
    elif isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        inner = (
            type(default[0]) if default and isinstance(default[0], (list, tuple)) else None
        )  # YAML knows lists alone
        return type(default)(inner(x) if inner and isinstance(x, (list, tuple)) else x for x in value)
    elif isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
    elif isinstance(default, float) and isinstance(value, int):
        if abs(value) <= sys.float_info.max:
            return float(value)
    elif isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    elif isinstance(default, (list, tuple)) and len(default) == 1 and isinstance(default[0], (int, float)):
        if isinstance(value, (int, float)) and not isinstance(value, bool):  # one of a list of any length
            return type(default)([value])
    elif isinstance(value, type(default)):
        return value
    kind = "number or None" if default is None else type(default).__name__
    raise ConfigError(f"{source}: {key} must be a {kind}, got {value!r}.")
