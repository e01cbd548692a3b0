"""`se-det analyze-model`: cost of networks, comparison with the papers, activations of gates on images."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FORMATS = ("table", "csv", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--papers", action="store_true", help="compare with the costs that the papers report")
    what.add_argument(
        "--gates", metavar="FOLDER", help="plot the mean activation of each gate on class folders of images"
    )
    parser.add_argument(
        "--config-file", metavar="F", help="a detector's config: measure its parts, or with --gates its trunk"
    )
    parser.add_argument("--weights", metavar="W", help="with --gates: the network's weights")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"),
        help="size of the image in px; default: 224 224, for a detector 800 1088",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N", help="with --gates: number of images of each class; default: all"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="output format; default: table")
    parser.add_argument(
        "--output", metavar="FILE", help="write the results there; with --gates a folder for results and plots"
    )
    parser.add_argument(
        "names", nargs="*", metavar="MODEL",
        help="models or shell patterns, such as 'se_*' or '*'; also timm/<name>. With --config-file: KEY=VALUE",
    )  # fmt: skip
    parser.set_defaults(wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Print or write the figures."""
    from ..errors import ConfigError

    if not (args.names or args.papers or args.config_file or args.gates):
        args.wrong_usage("name models ('*' is all), or give --papers, --config-file or --gates")
    for flag, value in (("--size", min(args.size or (1,))), ("--limit", 1 if args.limit is None else args.limit)):
        if value < 1:
            raise ConfigError(f"{flag} must be at least 1, got {value}.")
    if args.gates is None and (args.weights or args.limit):
        raise ConfigError("--weights and --limit go with --gates FOLDER.")
    if args.gates is not None:
        return _gates(args)
    if args.papers:
        if args.config_file or args.size:
            raise ConfigError("--papers compares classifiers at the papers' 224 x 224 px: leave out the other options.")
        rows = _papers(args.names)
    elif args.config_file:
        rows = _detector(args.config_file, args.names, tuple(args.size or (800, 1088)))
    else:
        rows = _models(args.names, tuple(args.size or (224, 224)))
    if args.format == "table":
        rows = [_readable(row) for row in rows]
    _write_output(render(rows, args.format), args.output)
    return 0


def _names(patterns: Sequence[str]) -> list[str]:
    from ..backbones import list_models
    from ..backbones.catalog import parse_name
    from ..backbones.timm_trunk import PREFIX

    found: dict[str, None] = {}
    for pattern in patterns:
        matching = [pattern] if pattern.startswith(PREFIX) else list_models(pattern)
        if not matching:
            parse_name(pattern)  # refuses it with the nearest name
        found.update(dict.fromkeys(matching))
    return list(found)


def _models(patterns: Sequence[str], size: tuple[int, int]) -> list[dict[str, Any]]:
    import torch

    from ..analysis.cost import measure
    from ..backbones import create_model
    from ..backbones.timm_trunk import PREFIX

    rows = []
    for name in _names(patterns):
        # timm's constructors compute with values, which tensors on the meta device have none of.
        with torch.device("cpu" if name.startswith(PREFIX) else "meta"):
            model = create_model(name)
        rows.append({"model": name, "height": size[0], "width": size[1], **measure(model, (3, *size)).as_dict()})
    return rows


def _papers(patterns: Sequence[str]) -> list[dict[str, Any]]:
    from ..analysis.paper_tables import compare_with_papers
    from ..errors import ConfigError

    rows = [row for pattern in patterns or ["*"] for row in compare_with_papers(pattern)]
    if not rows:
        raise ConfigError(f"No network of the papers' tables matches {' '.join(patterns)}.")
    return rows


def _detector(config: str, overrides: Sequence[str], size: tuple[int, int]) -> list[dict[str, Any]]:
    from ..analysis.detector_cost import measure_detector
    from ..config import load_config
    from ..config.overrides import parse_overrides

    parts = [
        (name, cost.as_dict()) for name, cost in measure_detector(load_config(config, parse_overrides(overrides)), size)
    ]
    rows = [{"part": name, **cost} for name, cost in parts]
    total = {key: sum(cost[key] for _, cost in parts) for key in parts[0][1]}
    # Parts run one after the other: the most of any is a lower bound of the whole's.
    total["inference_bytes"] = max(cost["inference_bytes"] for _, cost in parts)
    return [*rows, {"part": "all", **total}]


def _gates(args: argparse.Namespace) -> int:
    from ..analysis.gate_statistics import collect_gate_statistics
    from ..backbones import create_backbone
    from ..config import load_config
    from ..config.overrides import parse_overrides
    from ..detection.build import build_bottom_up, check_model
    from ..errors import ConfigError
    from ..files import atomic_write, check_writable, write_json, write_text
    from ..plots import plot_lines
    from ..weights import load_weights

    if not args.output or not args.weights:
        raise ConfigError("--gates needs --weights W, as random gates say nothing, and --output DIR for its plots.")
    if args.size and args.size[0] != args.size[1]:
        raise ConfigError(f"--gates crops squares: give --size two equal numbers, not {args.size[0]} {args.size[1]}.")
    # The input of torchvision's and timm's weights, which the shipped configs have too.
    pixels: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "channels": "RGB"}
    if args.config_file:
        cfg = load_config(args.config_file, parse_overrides(args.names))
        check_model(cfg)
        trunk = build_bottom_up(cfg)
        pixels = {"mean": cfg.MODEL.PIXEL_MEAN, "std": cfg.MODEL.PIXEL_STD, "channels": cfg.INPUT.FORMAT}
    elif len(args.names) == 1:
        trunk = create_backbone(args.names[0])
    else:
        raise ConfigError("--gates looks at one network: name one model, or give --config-file.")
    load_weights(trunk, args.weights)
    output = Path(args.output)
    check_writable(output)
    found = collect_gate_statistics(trunk, args.gates, size=(args.size or (224,))[0], limit=args.limit, **pixels)
    if args.format == "csv":
        write_text(output / "gates.csv", render(found.rows(), "csv"))
    else:
        write_json(output / "gates.json", found.as_dict())

    def save(name: str, series: list, **options: Any) -> None:
        picture = plot_lines(series, y_label="mean activation", **options)
        atomic_write(output / f"{name}.png", lambda file: file.write(picture))

    for name, mean in found.mean.items():
        # In the order of the mean: by index, hundreds of channels would only be noise to the eye.
        mean = mean[:, mean.mean(0).argsort()]
        save(name, [*zip(found.classes, mean), ("all", mean.mean(0))], title=name,
             x_label="channels, sorted by their mean over all classes", bold="all")  # fmt: skip
    depth = [mean.mean(1) for mean in found.mean.values()]
    series = [(label, [d[i] for d in depth]) for i, label in enumerate(found.classes)]
    low, high = min(map(min, depth)), max(map(max, depth))
    save("all_gates", [*series, ("all", [d.mean() for d in depth])], title="mean over the channels of each gate",
         x_label="gate, first to last", bold="all",
         y_range=(max(0.0, low - (high - low) / 8 - 0.01), min(1.0, high + (high - low) / 8 + 0.01)))  # fmt: skip
    stages = found.by_stage()
    rows = [{"class": label, "images": found.images[i], **{s: f"{stages[s][i]:.4f}" for s in stages}}
            for i, label in enumerate(found.classes)]  # fmt: skip
    _write_output(render(rows, "table"), None)
    roles = [{name: value if name == "gate" else f"{value:.4f}" for name, value in row.items()}
             for row in found.by_gate()]  # fmt: skip
    _write_output(render(roles, "table"), None)
    logger.info("%s with the figures of %d gates, and a plot of each beside it.",
                output / ("gates.csv" if args.format == "csv" else "gates.json"), len(found.mean))  # fmt: skip
    return 0


def _readable(row: dict[str, Any]) -> dict[str, str]:
    """Counts in M and G, bytes in MiB."""
    shown = {}
    for key, value in row.items():
        name, text = key, "" if value is None else str(value)
        if key.endswith("_bytes"):
            name, text = key.replace("_bytes", "_mib"), f"{value / 2**20:.1f}"
        elif key.startswith("multiply_adds") and isinstance(value, int):
            name, text = f"{key}_g", f"{value / 1e9:.3f}"
        elif key.startswith("multiply_adds") and value is None and not key.endswith("difference"):
            name = f"{key}_g"
        elif key in ("parameters", "parameters_published") and isinstance(value, int):
            text = f"{value:,}"
        elif key == "parameters_published" and value is not None:
            text = f"{value} M"
        shown[name.replace("_", " ")] = text
    return shown


def render(rows: Any, output_format: str) -> str:
    """Rows of equal keys as an aligned table, CSV or JSON, with a newline at the end."""
    rows = list(rows)
    if output_format == "json":
        return json.dumps(rows, indent=1) + "\n"
    keys = list(rows[0])
    if output_format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    cells = [[str(row[key]) for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in [keys, *cells]) for i in range(len(keys))]

    def line(values: Sequence[str]) -> str:
        return (
            "| "
            + " | ".join(v.ljust(w) if not i else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths)))
            + " |"
        )

    rule = "|" + "|".join("-" * (w + 2) if not i else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(keys), rule, *map(line, cells)]) + "\n"


def _write_output(text: str, path: str | None) -> None:
    from ..files import write_text

    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text(path, text)
        logger.info("Wrote %s.", path)
