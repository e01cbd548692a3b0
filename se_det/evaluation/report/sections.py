"""The parts of a report that tell of one data set's evaluation."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from ...errors import DataError
from ..coco_eval import EvaluationResult
from ..confusion_matrix import confusion_matrix, largest_confusions
from ..overlaps import ImageOverlaps, image_overlaps
from ..precision_recall import precision_recall
from ..ranking import ImageScore, rank_images
from ..tide import ERROR_TYPES, error_types
from .html import as_text, table, tiles
from .pictures import Pictures
from .svg import COLORS, line_chart

TASK_NAMES = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
SHOWN_IMAGES = 6  # of the worst, and of the best
SHOWN_CLASSES = 20  # in the confusion matrix
SHOWN_CURVES = len(COLORS)
SHOWN_CONFUSIONS = 15


def evaluation(outcome: EvaluationResult, score_threshold: float) -> list[str]:
    """Everything about one data set."""
    objects = np.zeros(len(outcome.truth.class_labels), np.int64)
    for annotation in outcome.truth.annotations:
        objects[annotation["category_id"] - 1] += not annotation["iscrowd"]
    parts = [_tiles(outcome), _summary(outcome), _classes(outcome, objects)]
    overlaps = {task: image_overlaps(outcome.truth, outcome.results, task) for task in outcome.metrics}
    for task in outcome.metrics:
        parts += _curves(outcome, task, objects)
    parts += _errors(outcome, overlaps)
    parts.append(_thresholds(outcome, objects))
    boxes = next(iter(overlaps.values()))
    parts += _confusion(outcome, boxes, objects, score_threshold)
    return parts + _images(outcome, rank_images(boxes, score_threshold=score_threshold), score_threshold)


def _tiles(outcome: EvaluationResult) -> str:
    return tiles(
        (f"{TASK_NAMES[task]} {name}", values[name])
        for task, values in outcome.metrics.items()
        for name in ("AP", "AP50", "AP75")
    )


def _summary(outcome: EvaluationResult) -> str:
    names = (name for values in outcome.metrics.values() for name in values if not name.startswith("AP-"))
    summary = list(dict.fromkeys(names))
    rows = [
        (TASK_NAMES[task], *(values.get(name, math.nan) for name in summary))
        for task, values in outcome.metrics.items()
    ]
    return (
        "<h3>Average precision and recall</h3><p class='note'>COCO protocol, percent; s, m, l: objects under "
        "32², up to 96², and over 96² px. A dash: nothing of the kind is annotated.</p>" + table(("", *summary), rows)
    )


def _classes(outcome: EvaluationResult, objects: np.ndarray) -> str:
    head = ["class", "objects"]
    columns = []
    for task, precision in outcome.precision.items():
        known = np.where((precision > -1).all(axis=(0, 1)), 100.0, np.nan)
        head += [f"{TASK_NAMES[task]} {name}" for name in ("AP", "AP50", "AP75")]
        columns += [(p * known).tolist() for p in (precision.mean((0, 1)), precision[0].mean(0), precision[5].mean(0))]
    rows = zip(outcome.truth.class_labels, objects.tolist(), *columns)
    return "<h3>Per class</h3>" + table(head, rows)


def _thresholds(outcome: EvaluationResult, objects: np.ndarray) -> str:
    rows = [
        (label, count, f"{point.score:.3f}", *(100 * x for x in (point.f1, point.precision, point.recall)))
        if point
        else (label, count, *["–"] * 4)
        for label, count, point in zip(outcome.truth.class_labels, objects.tolist(), outcome.thresholds)
    ]
    task = TASK_NAMES[next(iter(outcome.metrics))]
    return (
        "<h3>Score thresholds</h3><p class='note'>The score of each class with the best F1 on these images ("
        f"{task} IoU 0.5). Checkpoints of the builtin engine keep it (with several sets, of the one that "
        "TEST.BEST_METRIC names or the first), and se-det predict draws from it. Percent; a dash: no object is "
        "annotated or none is found, and 0.5 is taken.</p>"
        + table(("class", "objects", "score", "F1", "precision", "recall"), rows)
    )


def _curves(outcome: EvaluationResult, task: str, objects: np.ndarray) -> list[str]:
    curves = precision_recall(outcome.precision[task])
    recalls = np.linspace(0, 1, 101).tolist()
    axes = {"x": "recall", "y": "precision", "x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
    common = [c for c in np.argsort(-objects, kind="stable")[:SHOWN_CURVES] if objects[c]]
    overall = {name: list(zip(recalls, curve.tolist())) for name, curve in curves.overall.items()}
    labels = outcome.truth.class_labels
    per_class = {labels[c]: list(zip(recalls, curves.per_class[c].tolist())) for c in common}
    note = f"First the mean over classes, then at IoU 0.50 the {len(common)} classes with the most objects."
    return [
        f"<h3>Precision over recall, {TASK_NAMES[task]}</h3><p class='note'>{note}</p>",
        f"<div class='charts'>{line_chart(overall, **axes)}{line_chart(per_class, **axes)}</div>",
    ]


def _errors(outcome: EvaluationResult, overlaps: dict[str, list[ImageOverlaps]]) -> list[str]:
    parts = [
        "<h3>Error kinds</h3><p class='note'>After TIDE (Bolya et al., ECCV 2020): what AP50 would gain were one kind "
        "of error alone put right. All detections count, whatever their score; gains do not add up.</p>"
    ]
    for task, images in overlaps.items():
        kinds = error_types(images, len(outcome.truth.class_labels))
        largest = max([1e-9, *(v for v in kinds.losses.values() if math.isfinite(v))])
        rows = []
        for kind, meaning in ERROR_TYPES.items():
            loss = kinds.losses[kind]
            width = 0 if math.isnan(loss) else round(120 * max(loss, 0) / largest)
            bar = f"<span class='bar' style='width:{width}px'></span>"
            rows.append(
                f"<tr><td class=t>{kind}</td><td>{kinds.counts[kind]}</td><td>{as_text(loss)}</td>"
                f"<td class=t>{bar}</td><td class='t line'>{escape(meaning)}</td></tr>"
            )
        parts.append(
            f"<p>{TASK_NAMES[task]}: AP50 {as_text(kinds.ap50)}</p><div class='scroll'><table><thead><tr>"
            "<th class=t>kind</th><th>number</th><th>costs AP50</th><th class=t></th><th class=t>meaning</th></tr>"
            f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
        )
    return parts


def _confusion(
    outcome: EvaluationResult, images: list[ImageOverlaps], objects: np.ndarray, score_threshold: float
) -> list[str]:
    labels = outcome.truth.class_labels
    matrix = confusion_matrix(images, len(labels), score_threshold=score_threshold)
    shown = sorted(np.argsort(-objects, kind="stable")[:SHOWN_CLASSES].tolist())
    left = "" if len(shown) == len(labels) else (
        f" The {len(shown)} classes with the most objects are shown; the others are one row and column."
    )  # fmt: skip
    others = [c for c in range(len(labels)) if c not in set(shown)]
    groups = [[c] for c in shown] + ([others] if others else []) + [[len(labels)]]
    small = np.array([[matrix[np.ix_(rows, columns)].sum() for columns in groups] for rows in groups])
    names = [labels[c] for c in shown] + (["other classes"] if others else [])
    per_row = np.maximum(small.sum(axis=1), 1)
    lines = ["".join(f"<th><span>{escape(name)}</span></th>" for name in ("", *names, "not found"))]
    for row, name in enumerate((*names, "nothing")):
        cells = []
        for column, count in enumerate(small[row].tolist()):
            share = count / per_row[row]
            color = "31,111,180" if row == column else "217,95,2"
            style = f" style='background:rgba({color},{0.1 + 0.7 * share:.2f})'" if count else ""
            cells.append(f"<td{style}>{count or ''}</td>")
        lines.append(f"<th>{escape(name)}</th>{''.join(cells)}")
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    parts = [
        "<h3>Confusion matrix</h3><p class='note'>Row: what is annotated; column: what was detected, by boxes of IoU "
        f"0.5 and more and scores of {score_threshold:g} and more. Colour: share of the row.{left}</p>",
        f"<div class='scroll matrix'><table><thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table></div>",
    ]
    confusions = largest_confusions(matrix, SHOWN_CONFUSIONS)
    if confusions:
        rows = [(labels[row], labels[column], count) for row, column, count in confusions]
        parts.append(f"<h3>Most frequent confusions</h3>{table(('annotated', 'detected', 'times'), rows, texts=2)}")
    return parts


def _images(outcome: EvaluationResult, ranking: list[ImageScore], score_threshold: float) -> list[str]:
    parts = []
    worst = ranking[: min(SHOWN_IMAGES, len(ranking))]
    # An image is shown once; with few images the worse half is the worst.
    best = [score for score in ranking[len(worst) :][::-1][:SHOWN_IMAGES] if score.found]
    pictures = Pictures(outcome)
    for title, scores in (("Worst images", worst), ("Best images", best)):
        if scores:
            parts.append(
                f"<h3>{title}</h3><p class='note'>By F1 of boxes at IoU 0.5; detections of {score_threshold:g} and "
                "more are counted and drawn.</p>"
            )
        for score in scores:
            text = f"F1 {score.f1:.2f}: {score.found} found, {score.missed} not found, {score.false} false"
            try:
                name, truth, found = pictures.pair(score, score_threshold=score_threshold)
            except DataError as error:
                parts.append(f"<div class='pair'><p>{text}</p><p class='note'>{escape(str(error))}</p></div>")
                continue
            sides = "".join(
                f"<div><span>{side}</span><img alt='{side}' src='{uri}'></div>"
                for side, uri in (("annotated", truth), ("detected", found))
            )
            parts.append(f"<div class='pair'><p><b>{escape(name)}</b> {text}</p><div class='sides'>{sides}</div></div>")
    return parts
