"""YOLO's layouts: data.yaml of ultralytics and Roboflow, obj.data of Darknet, or label files beside their images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from .others import refuse_others
from .protocol import Category, Found, Picture, Reading
from .sizes import ImageSizes
from .tree import Tree, extension
from .yolo_files import NO_LABELS, LabelFiles, highest_class, label_places, label_text
from .yolo_lines import looks_like_labels, read_labels
from .yolo_plan import YoloPlan, class_names, is_darknet, is_data_yaml, read_plan

LOOKED_AT = 5  # label files of a folder


class YoloFormat:
    """A text file per image, found by its image's name."""

    name = "YOLO"
    looks_for = "a data.yaml with train and names, an obj.data, or a .txt of 'class cx cy w h' lines per image"

    def recognise(self, tree: Tree) -> Found | None:
        """By a YAML with `train` and `names`, else by Darknet's .data, else by label files that images go with."""
        if tree.chosen.is_file() and extension(tree.chosen.name) not in ("yaml", "yml", "data"):
            return None
        descriptions = [path for path in tree.of("yaml", "yml") if is_data_yaml(path)]
        descriptions = descriptions or [path for path in tree.of("data") if is_darknet(path)]
        if tree.chosen in descriptions:
            descriptions = [tree.chosen]
        labels = self._label_folders(tree)
        if descriptions:
            return Found(self, os.path.relpath(descriptions[0], tree.root), (*descriptions, *labels))
        if labels:
            shown = os.path.relpath(labels[0], tree.root)
            return Found(self, f"label files in {'the folder itself' if shown == '.' else shown}", tuple(labels))
        return None

    def read(self, tree: Tree, found: Found) -> Reading:
        """Find the images of each split; their label files are read while pictures are gone through."""
        plan = read_plan(tree, found)
        names = plan.names
        if names is None:
            names = class_names(tree)
        labels = LabelFiles(tree, found.files)
        if names is None:
            count = 1 + max((highest_class(path) for path in labels.files), default=-1)
            names = [str(at) for at in range(count)]
            plan.notes.append("there is no file of class names (data.yaml, classes.txt): classes are called 0, 1, ...")
        categories = [Category(name, plan.points, plan.flip) for name in names]
        reading = Reading(splits={}, categories=categories, notes=plan.notes)
        for split, images in plan.splits.items():
            with_file = [(image, labels.of(image)) for image in images]
            if images and not any(label for _, label in with_file):
                refuse_others(tree)
                raise DataError(
                    f"None of the {len(images)} images of the split {split!r} has a label file: {images[0]} should "
                    f"have {label_places(images[0])[0]}. Put the label files there."
                )
            backgrounds = sum(label is None for _, label in with_file)
            if backgrounds:
                reading.notes.append(f"{split}: {backgrounds} images without a label file are backgrounds")
            reading.splits[split] = _pictures(with_file, tree.sizes, plan, len(names), reading)
        return reading

    def _label_folders(self, tree: Tree) -> list[Path]:
        """Folders with label files that go with images."""
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in tree.of("txt"):
            if path.name.lower() not in NO_LABELS:
                by_folder[path.parent].append(path)
        stems = {path.stem for path in tree.images.paths}
        found = []
        for folder, paths in by_folder.items():
            some = [path for path in paths if path.stem in stems and path.stat().st_size < 2**24][:LOOKED_AT]
            texts = [text for path in some if (text := label_text(path)).strip()]
            if texts and all(map(looks_like_labels, texts)):
                found.append(folder)
        return found


def _pictures(
    images: list[tuple[Path, Path | None]], sizes: ImageSizes, plan: YoloPlan, classes: int, reading: Reading
) -> Iterator[Picture]:
    sizes.load(image for image, _ in images)
    for image, label in images:
        size = sizes[image].shown
        shapes = read_labels(label, size, classes, plan.keypoints, reading) if label is not None else []
        yield Picture(image, shapes, str(label or image))
