"""The preview as one page of HTML, without scripts or anything from outside, as the report is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape

import numpy as np

from ... import __version__
from ...config.resolution import decided_by, dump_config, show
from ...data.coco_json import shorten
from ...evaluation.report.bars import bar_chart
from ...evaluation.report.html import table
from ...evaluation.report.page import document
from ...evaluation.report.pictures import data_uri
from ..recipe.decide import LEAST_RECALL, SOURCE
from .anchors import best_of_levels, recall_of
from .facts import Preview

LONG_SIDE = 560  # px of a sample: two beside each other fill a desktop page
LISTED = 500  # names of files at most
SIZE_EDGES = (2.0 ** np.arange(0, 11.5, 0.5)).tolist()  # px
RATIO_EDGES = (2.0 ** np.arange(-3.25, 3.5, 0.5)).tolist()
MOST_BARS = 30  # of objects per image


def preview_page(preview: Preview) -> str:
    """The whole page; of the data set's names everything is escaped."""
    title = f"Preview of {preview.title}"
    body = [
        f"<h1>{escape(title)}</h1>",
        "<p class='note'>What se-det train will see with the same options. Nothing was trained.</p>",
        _tiles(preview),
        *_read(preview),
        *_split(preview),
        *_samples(preview),
        *_sizes(preview),
        *_classes(preview),
        *_recipe(preview),
        f"<details><summary>Config</summary><pre>{escape(dump_config(preview.cfg))}</pre></details>",
        f"<footer>se_det {escape(__version__)}, {time.strftime('%Y-%m-%d %H:%M')}</footer>",
    ]
    return document(title, body)


def _tiles(preview: Preview) -> str:
    trained = [part.objects for part in preview.parts if part.use == "trained on"]
    empty = sum(int((objects.per_image == 0).sum()) for objects in trained)
    held = sum(len(part.dataset) for part in preview.parts if part.use == "evaluated on")
    recall = recall_of(best_of_levels(preview.levels))
    tiles = [
        ("images to train on", preview.trained),
        ("to evaluate on", held),
        ("objects to train on", sum(len(objects.classes) for objects in trained)),
        ("classes", len(preview.class_names)),
        ("images without objects", empty),
        ("found by an anchor", "–" if math.isnan(recall) else f"{recall:.1%}"),
    ]
    inner = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles)
    return f"<div class='tiles'>{inner}</div>"


def _read(preview: Preview) -> list[str]:
    if preview.own is None:
        return []
    return ["<h2>What was read</h2>", f"<pre>{escape(preview.own.opened.summary())}</pre>"]


def _split(preview: Preview) -> list[str]:
    rows = [
        (
            part.name,
            part.use,
            len(part.dataset),
            int((part.objects.per_image == 0).sum()),
            len(part.objects.classes),
            part.objects.crowds,
            str(part.dataset.json_path),
        )
        for part in preview.parts
    ]
    head = ("split", "use", "images", "without objects", "objects", "crowds", "annotations")
    parts = ["<h2>Split</h2>", table(head, rows, texts=2)]
    if preview.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and any(row[3] for row in rows if row[1] == "trained on"):
        parts.append("<p>Images without objects are left out of training (DATALOADER.FILTER_EMPTY_ANNOTATIONS).</p>")
    if not any(part.use == "evaluated on" for part in preview.parts):
        parts.append("<p>Nothing is evaluated on: give a validation split.</p>")
    made = preview.own.made if preview.own else None
    if made is None:
        return parts
    total = made.train_images + made.val_images
    parts.append(
        f"<p>The data has no validation split: {made.val_images} of its {total} images are held out, every class in "
        f"its proportion as far as that goes. {made.grouped} images are near-duplicates of another, and on its "
        "side.</p>"
    )
    if made.warning:
        parts.append(f"<p><b>Note:</b> {escape(made.warning)}.</p>")
    held = next(part.dataset.file_names for part in preview.parts if part.use == "evaluated on")
    parts.append(_listing(f"{len(held)} images that are held out", held))
    if made.alike:
        groups = [" = ".join(group) for group in made.alike]
        parts.append(_listing(f"{len(groups)} groups of near-duplicates", groups))
    return parts


def _listing(title: str, names: Sequence[str]) -> str:
    shown = [*names[:LISTED], *([f"... and {len(names) - LISTED} more"] if len(names) > LISTED else [])]
    return f"<details><summary>{escape(title)}</summary><pre>{escape(chr(10).join(shown))}</pre></details>"


def _samples(preview: Preview) -> list[str]:
    own = "" if preview.cfg.SEED >= 0 else " A training draws a seed of its own unless SEED is given."
    parts = [
        "<h2>Samples</h2>",
        f"<p class='note'>The first images of a training with seed {preview.seed}, augmented and resized as the "
        f"network gets them; where it learns from images without objects too, one of these is among them.{own}</p>",
        "<div class='sides'>",
    ]
    for sample in preview.samples:
        height, width = sample.pixels.shape[:2]
        count = len(sample.boxes)
        objects = f"{count} object{'s' * (count != 1)}" if count else "no object"
        x0, y0, x1, y1 = sample.window or (0, 0, *sample.size)
        where = f", from {x0}, {y0} on," if sample.window else ""
        text = f"step {sample.step}: {x1 - x0} x {y1 - y0} px{where} became {width} x {height}, {objects}"
        picture = sample.picture(preview.class_names, LONG_SIDE)
        parts.append(
            f"<div class='pair'><p><b>{escape(sample.file.name)}</b> {text}</p>"
            f"<img alt='sample' width='{picture.shape[1]}' height='{picture.shape[0]}' src='{data_uri(picture)}'></div>"
        )
    return [*parts, "</div>"]


def _sizes(preview: Preview) -> list[str]:
    resized, boxes = preview.resized, preview.boxes
    if resized is None:
        note = "Of the samples above: INPUT.AUGMENTATIONS resizes by other means than ResizeShortestEdge."
    else:
        side = f"a short side of {resized.short_side} px" if resized.short_side else "their own size"
        seen = f"windows of {resized.tile} px, resized to" if resized.tile else "images of"
        note = f"All objects to train on, in {seen} {side} and a long side of at most {resized.max_size} px" + (
            "." if len(set(preview.cfg.INPUT.MIN_SIZE_TRAIN)) < 2 else ", the middle of the sizes that are drawn."
        )
        if resized.others:
            note += f" {', '.join(resized.others)} changes them besides."
    sides = np.sqrt(boxes.prod(1))
    counts = np.histogram(np.clip(sides, SIZE_EDGES[0], SIZE_EDGES[-1] * 0.999), SIZE_EDGES)[0].tolist()
    best = best_of_levels(preview.levels)
    parts = [
        "<h2>Sizes and anchors</h2>",
        f"<p class='note'>{escape(note)} {_about_anchors(preview)}</p>",
        "<div class='charts'>",
        bar_chart(
            SIZE_EDGES, counts, x="square root of the area, px", y="objects", logarithmic=True,
            marks={f"anchors of {level.name}": level.sizes for level in preview.levels},
        ),
        _ratio_chart(preview),
        _number_chart(preview),
        "</div>",
    ]  # fmt: skip
    rows = [
        (
            level.name,
            "–" if level.stride is None else level.stride,
            ", ".join(f"{size:g}" for size in level.sizes),
            ", ".join(f"{ratio:g}" for ratio in level.ratios),
            100 * level.recall,
        )
        for level in preview.levels
    ]
    if not rows:
        return parts
    rows.append(("all", "", "", "", 100 * recall_of(best)))
    parts.append(table(("level", "stride px", "anchors px", "heights over widths", "best possible recall %"), rows))
    if best is not None and len(best):
        smallest, largest = (pick(size for level in preview.levels for size in level.sizes) for pick in (min, max))
        missed = sides[best < 0.5]
        below, above = int((missed < smallest).sum()), int((missed > largest).sum())
        if len(missed):
            parts.append(
                f"<p>{len(missed)} of {len(best)} objects have no such anchor: {below} of them are smaller than the "
                f"smallest anchor, {above} larger than the largest, {len(missed) - below - above} lie between, or are "
                "of another shape.</p>"
            )
    return parts


def _about_anchors(preview: Preview) -> str:
    if not preview.levels:
        return f"MODEL.META_ARCHITECTURE {preview.cfg.MODEL.META_ARCHITECTURE} has no anchors."
    return (
        "An object is learned easily when an anchor overlaps it with IoU 0.5; the share that some anchor does is the "
        f"best possible recall, of which the recipe wants {LEAST_RECALL:.0%}."
    )


def _ratio_chart(preview: Preview) -> str:
    ratios = preview.boxes[:, 1] / np.maximum(preview.boxes[:, 0], 1e-6)
    counts = np.histogram(np.clip(ratios, RATIO_EDGES[0], RATIO_EDGES[-1] * 0.999), RATIO_EDGES)[0].tolist()
    ratios_of_anchors = sorted({ratio for level in preview.levels for ratio in level.ratios})
    marks = {"anchors": ratios_of_anchors} if ratios_of_anchors else {}
    return bar_chart(RATIO_EDGES, counts, x="height over width", y="objects", logarithmic=True, marks=marks)


def _number_chart(preview: Preview) -> str:
    per_image = np.concatenate([p.objects.per_image for p in preview.parts if p.use == "trained on"])
    most = int(per_image.max(initial=1))
    width = max(1, math.ceil((most + 1) / MOST_BARS))
    edges = np.arange(0, most + 1 + width, width) - 0.5
    counts = np.histogram(per_image, edges)[0].tolist()
    return bar_chart(edges.tolist(), counts, x="objects in an image", y="images")


def _classes(preview: Preview) -> list[str]:
    names = preview.class_names
    head, columns = ["class"], []
    for part in preview.parts:
        # A split that is not used may have its classes in another order.
        counts = dict(zip(part.dataset.category_names, part.objects.per_class(len(part.dataset.category_names))))
        images = np.unique(np.stack([part.objects.image, part.objects.classes]), axis=1)[1]
        there = dict(zip(part.dataset.category_names, np.bincount(images, minlength=len(counts))))
        head += [f"{part.name}: objects", f"{part.name}: images"]
        columns += [[int(found.get(name, 0)) for name in names] for found in (counts, there)]
    without = [name for name, count in zip(names, columns[0]) if not count]
    parts = ["<h2>Classes</h2>", table(head, zip(names, *columns))]
    if without:
        listed = ", ".join(shorten(name) for name in without[:20]) + (", ..." if len(without) > 20 else "")
        parts.append(f"<p>{len(without)} classes have no object to learn from: {escape(listed)}.</p>")
    return parts


def _recipe(preview: Preview) -> list[str]:
    decided = decided_by(preview.cfg)
    if not decided:
        return []
    by_recipe = any(decision.source == SOURCE for decision in decided)
    rows = [(d.key, show(d.value), d.reason, d.source) for d in decided]
    note = "" if not preview.cfg.MODEL.WEIGHTS else (
        " What the pretrained weights decide besides is settled when training reads them."
    )  # fmt: skip
    return [
        "<h2>Recipe</h2>" if by_recipe else "<h2>Decisions</h2>",
        f"<p class='note'>What was decided for this data, machine and goal; a key that you set is left as it is.{note}"
        "</p>",
        table(("key", "value", "reason", "by"), rows, texts=4),
    ]
