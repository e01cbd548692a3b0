"""What becomes of Detectron2's evaluations: the best weights, `inference/metrics.json`, the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from .. import comm
from ..data.coco import CocoDataset
from ..evaluation.coco_eval import CocoEvaluator, metric_names
from ..evaluation.report import write_report
from ..files import write_json
from ..training.config_checks import check_best_metric

Metrics = dict[str, dict[str, float]]


def best_metric(cfg: CfgNode) -> str:
    """What decides which weights are kept as the best."""
    return cfg.TEST.BEST_METRIC or ("bbox/AP" if len(cfg.DATASETS.TEST) == 1 else f"{cfg.DATASETS.TEST[0]}/bbox/AP")


def _tasks(cfg: CfgNode) -> tuple[str, ...]:
    return ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)  # keypoints are Detectron2's own business there


def check_evaluation(cfg: CfgNode, test_datasets: Mapping[str, CocoDataset | None]) -> None:
    """Refuse a TEST.BEST_METRIC that no evaluation will give, where it is known what Detectron2 will evaluate.

    Raises:
        ConfigError: naming some that there will be.
    """
    if test_datasets and None not in test_datasets.values() and not cfg.MODEL.KEYPOINT_ON:
        several = len(test_datasets) > 1
        known = [
            f"{name}/{metric}" if several else metric
            for name, dataset in test_datasets.items()
            for metric in metric_names(dataset, _tasks(cfg), cfg.TEST.MAX_DETS_PER_IMAGE)
        ]
        check_best_metric(cfg.TEST.BEST_METRIC, known)


def write_results(cfg: CfgNode, results: dict[str, Any], test_datasets: Mapping[str, CocoDataset | None]) -> Metrics:
    """Write `inference/metrics.json`, and `report.html` on the sets that are read by us.

    Args:
        results: of Detectron2, by task, or by set and task where there are several sets.
        test_datasets: from `resolve_datasets`.

    Returns:
        The numbers by task, which the set's name is before where there are several; `{}` but on the first process.

    Raises:
        CheckpointError: they cannot be written.
    """
    if not comm.is_main_process():
        return {}
    outcomes = {}
    for name, dataset in test_datasets.items():
        found = results.get(name) if len(test_datasets) > 1 else results
        folder = Path(cfg.OUTPUT_DIR, "inference", *([name] if len(test_datasets) > 1 else []))
        path = folder / "coco_instances_results.json"  # of the evaluator
        if dataset is not None and found and path.is_file():
            tasks = [task for task in _tasks(cfg) if task in found]
            outcomes[name] = CocoEvaluator(dataset, tasks, max_dets_per_image=cfg.TEST.MAX_DETS_PER_IMAGE).score(
                json.loads(path.read_bytes())
            )
    write_report(cfg.OUTPUT_DIR, outcomes, config=cfg.dump())
    if len(cfg.DATASETS.TEST) > 1:
        results = {f"{name}/{task}": v for name, tasks in results.items() for task, v in tasks.items()}
    plain = {
        task: {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
        for task, values in results.items()
    }
    if plain:
        Path(cfg.OUTPUT_DIR, "inference").mkdir(parents=True, exist_ok=True)
        safe = {t: {k: v if math.isfinite(v) else None for k, v in values.items()} for t, values in plain.items()}
        write_json(Path(cfg.OUTPUT_DIR) / "inference" / "metrics.json", safe)
    return plain
