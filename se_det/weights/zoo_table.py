"""The zoo as Markdown tables; `python -m se_det.weights.zoo_table model_zoo/README.md` brings that file up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from ..files import write_text
from .zoo import ClassifierEntry, classifier_entries, detector_entries

BEGIN, END = "<!-- made by se_det.weights.zoo_table -->\n", "<!-- end -->\n"
BEGIN_DETECTORS = "<!-- detectors, made by se_det.weights.zoo_table -->\n"
HEAD = (
    "| `zoo://` name | top-1 / top-5 % | stride in | stem pool | input | sha256 | family | licence |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def zoo_table() -> str:
    """A row for each entry with a file, sorted by architecture, the best first."""
    published = [entry for entry in classifier_entries() if entry.url]
    published.sort(key=lambda entry: (entry.architecture, -entry.reports[0].top1, entry.name))
    return HEAD + "".join(map(_row, published))


def detector_table() -> str:
    """A row for each trained detector, in the order of its file."""
    rows = ["| `zoo://` name | reported | input | md5 |\n|---|---|---|---|\n"]
    for entry in detector_entries():
        told = ", ".join(f"{key} {value:g}" for key, value in entry.reported.items())
        sides = f"{entry.config.get('INPUT.MIN_SIZE_TEST', 800)}, {entry.config.get('INPUT.MAX_SIZE_TEST', 1333)} px"
        scale = "" if set(entry.facts.pixel_std) != {1.0} else ", mean only"
        rows.append(
            f"| [{entry.name}]({entry.url}) | {told} | {entry.facts.input_format}{scale}; {sides} | {entry.md5} |\n"
        )
    return "".join(rows)


def with_table(text: str) -> str:
    """`text` with what is between the marks replaced by the tables."""
    for begin, table in ((BEGIN, zoo_table()), (BEGIN_DETECTORS, detector_table())):
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}{table}{END}{rest.split(END, 1)[1]}"
    return text


def _row(entry: ClassifierEntry) -> str:
    facts, report = entry.facts, entry.reports[0]
    stride = {True: "1x1", False: "3x3", None: "-"}[facts.stride_in_1x1]
    scale = "" if set(facts.pixel_std) != {1.0} else ", mean only"
    crop = "" if report.crop == 224 else f" at {report.crop}"
    return (
        f"| [{entry.name}]({entry.url}) | {report.top1:.2f} / {report.top5:.2f}{crop} | {stride} "
        f"| {facts.stem_pool or '-'} | {facts.input_format}{scale} | {entry.sha256 or 'unknown'} "
        f"| {entry.family} | {entry.license} |\n"
    )


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    write_text(readme, with_table(readme.read_text(encoding="utf-8")))
