"""A study's file: which runs there are, and which keys each of them has."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..classification.defaults import load_recipe
from ..config import get_cfg
from ..config.loading import find_config, get_key, load_config, merge_overrides, parse_value, read_yaml
from ..errors import ConfigError, suggestion

KINDS = ("train", "pretrain")
FIELDS = ("title", "about", "kind", "config", "keys", "rows", "axes", "seeds", "metric", "also", "same_start")
METRICS = {"train": "bbox/AP", "pretrain": "classification/top1"}
NAME = re.compile(r"[\w.+-]+( [\w.+-]+)*")  # of a row, which names a folder
PLACEHOLDER = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        row: the name of its row.
        seed: its SEED.
        keys: what it has beside the study's config, in order.
    """

    row: str
    seed: int
    keys: dict[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        """Row and seed, for sentences."""
        return f"{self.row}, seed {self.seed}"

    def folder(self, output: str | Path) -> Path:
        """The run's output folder in that of the study."""
        return Path(output) / "runs" / self.row / f"seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Attributes:
        title, about: for its report.
        kind: "train" (detectors) or "pretrain" (classifiers).
        config: the config or recipe of all runs.
        rows: the keys of each row; differences are to the first.
        seeds: one run of every row for each.
        metric: "task/name" of the last evaluation, on which rows are compared.
        also: further metrics, of which the table has the means.
        same_start: runs of a seed begin with the same random weights wherever they have the same parameters.
    """

    title: str
    about: str
    kind: str
    config: str
    rows: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    metric: str
    also: tuple[str, ...]
    same_start: bool

    def runs(self) -> list[Run]:
        """All runs, a seed after another, so that a study that is not done yet has compared all rows."""
        return [
            Run(row, seed, {key: _filled(value, row, seed) for key, value in keys.items()} | {"SEED": seed})
            for seed in self.seeds
            for row, keys in self.rows.items()
        ]

    def load_config(self, run: Run, output: str | Path) -> CfgNode:
        """The config of a run whose study has this folder.

        Raises:
            ConfigError: a key is unknown, or has a value of the wrong type.
        """
        overrides = [part for key, value in run.keys.items() for part in (key, _word(value))]
        overrides += ["OUTPUT_DIR", str(run.folder(output))]
        if self.kind == "train":
            return load_config(self.config, overrides, defaults=get_cfg())
        cfg = load_recipe(self.config)
        merge_overrides(cfg, overrides)
        return cfg


def read_study(path: str | Path, overrides: Sequence[Any] = ()) -> Study:
    """Read a study's YAML file, or a shipped one of `configs/studies` by its name.

    Args:
        overrides: `[key, value, ...]` of every run, after the file's own keys and before those of a row.

    Raises:
        ConfigError: it is no study; the sentence names the file, the field and its value.
    """
    file = _find(path)
    tree = read_yaml(file)
    for name in tree:
        if name not in FIELDS:
            raise ConfigError(f"{file}: a study has no field '{name}'.{suggestion(name, FIELDS)}")
    kind = tree.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{file}: kind is {kind!r}: give train (detectors) or pretrain (classifiers).")
    if not isinstance(tree.get("config"), str):
        raise ConfigError(f"{file}: config must name the config or recipe of all runs, got {tree.get('config')!r}.")
    common = _keys(tree.get("keys") or {}, f"{file}: keys")
    common |= {str(key): parse_value(value) for key, value in zip(overrides[::2], overrides[1::2])}
    rows = _rows(tree, file)
    for name, keys in rows.items():
        if "SEED" in keys or "OUTPUT_DIR" in keys or "SEED" in common or "OUTPUT_DIR" in common:
            raise ConfigError(f"{file}: a study sets SEED (by seeds) and OUTPUT_DIR itself: leave them out.")
        rows[name] = common | keys
    study = Study(
        title=str(tree.get("title", file.stem)),
        about=str(tree.get("about", "")).strip(),
        kind=kind,
        config=tree["config"],
        rows=rows,
        seeds=_seeds(tree.get("seeds", [1]), file),
        metric=str(tree.get("metric", METRICS[kind])),
        also=_metrics(tree.get("also", []), file),
        same_start=_flag(tree.get("same_start", True), file),
    )
    for metric in (study.metric, *study.also):
        if "/" not in metric:
            raise ConfigError(f"{file}: the metric '{metric}' must be task/name, such as {METRICS[kind]}.")
    _check_rows(study, file)
    return study


def _find(path: str | Path) -> Path:
    """The file, or the shipped study of that name."""
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(f"{path.name}.yaml")
    if path.is_file() or len(path.parts) > 1:
        return find_config(path)
    return find_config(Path("configs", "studies", path))


def _rows(tree: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """The rows: as they are listed, or the product of axes, of which each lists its values' keys by name."""
    if ("rows" in tree) == ("axes" in tree):
        raise ConfigError(f"{file}: give either rows (the keys of each row) or axes (their product).")
    if "rows" in tree:
        rows = _named(tree["rows"], f"{file}: rows")
    else:
        axes = tree["axes"]
        if not isinstance(axes, Mapping) or not axes:
            raise ConfigError(f"{file}: axes must map names to the values of each, got {axes!r}.")
        parts = [_named(values, f"{file}: axes: {name}") for name, values in axes.items()]
        rows = {}
        for chosen in itertools.product(*(part.items() for part in parts)):
            name = " ".join(label for label, _ in chosen)
            rows[name] = {key: value for _, keys in chosen for key, value in keys.items()}
    for name in rows:
        if not NAME.fullmatch(name) or name in (".", ".."):
            raise ConfigError(f"{file}: the row '{name}' names a folder: use letters, digits, '_', '-', '+' and '.'.")
    if len({name.casefold() for name in rows}) < len(rows):
        raise ConfigError(f"{file}: two rows have the same name but for upper and lower case: {', '.join(rows)}.")
    return rows


def _named(values: Any, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{where} must map names to keys and their values, got {values!r}.")
    return {str(name): _keys(keys or {}, f"{where}: {name}") for name, keys in values.items()}


def _keys(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must map config keys to values, got {values!r}.")
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": deep for inner, deep in _keys(value, f"{where}: {key}").items()}
        else:
            flat[str(key)] = value
    return flat


def _seeds(seeds: Any, file: Path) -> tuple[int, ...]:
    sound = isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not sound or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{file}: seeds must be different whole numbers from 0 on, got {seeds!r}.")
    return tuple(seeds)


def _metrics(names: Any, file: Path) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise ConfigError(f"{file}: also must list further metrics, such as [bbox/AP50], got {names!r}.")
    return tuple(map(str, names))


def _flag(value: Any, file: Path) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{file}: same_start must be true or false, got {value!r}.")
    return value


def _check_rows(study: Study, file: Path) -> None:
    """Refuse keys that are none, and weights that the common start would replace."""
    for row in study.rows:
        run = next(run for run in study.runs() if run.row == row)
        try:
            cfg = study.load_config(run, ".")
        except ConfigError as error:
            told = str(error).removeprefix("the command line: ")
            raise ConfigError(f"{file}, row '{row}': {told}") from None
        if study.same_start and get_key(cfg, "MODEL.WEIGHTS"):
            raise ConfigError(
                f"{file}: the row '{row}' starts from MODEL.WEIGHTS {cfg.MODEL.WEIGHTS}, and same_start gives all rows "
                "the same random weights: set same_start: false, or MODEL.WEIGHTS to ''."
            )


def _filled(value: Any, row: str, seed: int) -> Any:
    """`value` with {row} and {seed} replaced, which name other studies' files."""
    if not isinstance(value, str):
        return value
    known = {"row": row, "seed": str(seed)}
    return PLACEHOLDER.sub(lambda found: known.get(found[1], found[0]), value)


def _word(value: Any) -> Any:
    """A value as overrides have it: text that would be read as something else keeps its quotes."""
    return repr(value) if isinstance(value, str) else value
