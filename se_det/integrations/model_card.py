"""The page of a model on a hub: what it is, how it is used, what it measures, what it was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml

from .. import __version__
from ..errors import DataError

LIBRARY = "se_det"
NO_LICENCE = "No licence was stated. Ask the author before using these weights."
TASKS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint", "classification": "classification"}
# Of the recipe, what a reader would ask first.
RECIPE = (
    "MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME", "MODEL.RESNETS.DEPTH", "MODEL.GATE.NAME", "MODEL.NAME",
    "MODEL.WEIGHTS",
    "SOLVER.MAX_ITER", "SOLVER.EPOCHS", "SOLVER.IMS_PER_BATCH", "SOLVER.OPTIMIZER", "SOLVER.BASE_LR",
    "SOLVER.LR_SCHEDULER_NAME", "SOLVER.WEIGHT_DECAY", "SOLVER.EMA.DECAY", "SOLVER.AMP.ENABLED", "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.IMAGE_SIZE", "SEED",
)  # fmt: skip


def metrics_of(run: Path, step: int | None) -> dict[str, float]:
    """What the run in `run` measured of its weights after `step` steps, as "task/name"; {} where it did not.

    Raises:
        DataError: its metrics.json cannot be read.
    """
    found: dict[str, float] = {}
    path = run / "metrics.json"
    if step is None or not path.is_file():
        return found
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            if values.get("iteration") == step:
                found |= {name: x for name, x in values.items() if "/" in name and isinstance(x, (int, float))}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    return found


def model_card(
    repository: str,
    *,
    config: Mapping[str, Any],
    names: Sequence[str],
    metrics: Mapping[str, float],
    classifier: bool = False,
    license: str | None = None,
    step: int | None = None,
) -> str:
    """The README.md of a repository, with the metadata that the Hub reads before it.

    Args:
        config: the run's, as nested plain values.
        names: of the classes.
        metrics: see `metrics_of`.
        license: an identifier of the Hub's, such as apache-2.0; None says that none was stated.
        step: after how many steps.
    """
    flat = dict(_flatten(config))
    masks = bool(flat.get("MODEL.MASK_ON"))
    task = "image-classification" if classifier else "image-segmentation" if masks else "object-detection"
    data = _data_name(flat)
    results = [
        {"type": name.rpartition("/")[2], "name": _metric_name(name), "value": round(float(value), 3)}
        for name, value in metrics.items()
        if _is_shown(name)
    ]
    head: dict[str, Any] = {
        **({"license": license} if license else {}),
        "library_name": LIBRARY,
        "pipeline_tag": task,
        "tags": [LIBRARY, task],
    }
    if results:
        entry = {"task": {"type": task}, "dataset": {"type": data, "name": data}, "metrics": results}
        head["model-index"] = [{"name": repository.partition("/")[2], "results": [entry]}]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {repository.partition('/')[2]}",
        f"A {'classifier' if classifier else 'detector'} of {len(names)} classes, of {LIBRARY} {__version__}.",
        "## Use",
        _use(repository, classifier),
        "## Results",
    ]
    if results:
        rows = [f"| {result['name']} | {result['value']:g} |" for result in results]
        lines.append(
            "\n".join([f"On the validation data, after {step} steps.\n", "| metric | value |", "|---|---|", *rows])
        )
    else:
        lines.append("No evaluation of these weights was found beside them.")
    shown = ", ".join(str(name).replace("`", "'") for name in names[:100])
    more = f", and {len(names) - 100} more" if len(names) > 100 else ""
    lines += ["## Data", f"Trained on {data}. Classes: {shown}{more}.", "## Recipe"]
    rows = [f"| `{key}` | `{flat[key]}` |" for key in RECIPE if flat.get(key) not in (None, "")]
    lines.append("\n".join(["| key | value |", "|---|---|", *rows, "", "All keys are in `config.yaml`."]))
    lines += ["## Licence", license or NO_LICENCE]
    return "\n\n".join(lines) + "\n"


def _use(repository: str, classifier: bool) -> str:
    call = (
        f'se_det.classify("hf://{repository}", "photo.jpg")'
        if classifier
        else f'predictor = se_det.Predictor("hf://{repository}")\npredictor("photo.jpg").above_thresholds()'
    )
    return f"```python\nimport se_det\n\n{call}\n```"


def _flatten(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        found += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _data_name(flat: Mapping[str, Any]) -> str:
    """What the data is called, without the place where it lay."""
    own = flat.get("DATASETS.TRAIN_JSON")
    if own:
        return PurePath(str(own)).stem
    named = flat.get("DATASETS.TRAIN") or ""
    names = [named] if isinstance(named, str) else list(named)
    return ", ".join(PurePath(str(name)).name for name in names if name) or "data of the author's own"


def _is_shown(name: str) -> bool:
    """AP and accuracy of whole sets, not of each class."""
    return "AP-" not in name and not name.startswith("validation/")


def _metric_name(name: str) -> str:
    task, _, metric = name.rpartition("/")
    return f"{TASKS.get(task, task)} {metric}"
