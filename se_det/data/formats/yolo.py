"""YOLO's layouts: data.yaml of ultralytics and Roboflow, obj.data of Darknet, or label files beside their images."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.loading import read_yaml
from ...errors import ConfigError, DataError
from ..coco_json import shorten
from .others import refuse_others
from .protocol import Category, Found, Picture, Reading
from .reading import class_name, read_text, whole
from .sizes import ImageSizes
from .tree import SPLITS, Tree, extension, split_in, split_of
from .yolo_lines import MOST_CLASSES, looks_like_labels, read_labels

LOOKED_AT = 5  # label files of a folder
NAMES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt", "labels.txt", "predefined_classes.txt")
NO_LABELS = frozenset((*NAMES, "readme.txt", "readme.roboflow.txt", "readme.dataset.txt", "requirements.txt"))
SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class _Plan:
    """Where the images of each split are, and what the classes are called."""

    splits: dict[str, list[Path]]
    names: list[str] | None
    keypoints: tuple[int, int] | None = None
    points: tuple[str, ...] = ()
    flip: tuple[tuple[str, str], ...] = ()
    notes: list[str] = field(default_factory=list)


class YoloFormat:
    """A text file per image, found by its image's name."""

    name = "YOLO"
    looks_for = "a data.yaml with train and names, an obj.data, or a .txt of 'class cx cy w h' lines per image"

    def recognise(self, tree: Tree) -> Found | None:
        """By a YAML with `train` and `names`, else by Darknet's .data, else by label files that images go with."""
        if tree.chosen.is_file() and extension(tree.chosen.name) not in ("yaml", "yml", "data"):
            return None
        descriptions = [path for path in tree.of("yaml", "yml") if _is_data_yaml(path)]
        descriptions = descriptions or [path for path in tree.of("data") if _is_darknet(path)]
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
        descriptions = [path for path in found.files if path.suffix.lower() in (".yaml", ".yml", ".data")]
        if len(descriptions) > 1:
            listed = " and ".join(str(path) for path in descriptions[:4])
            raise DataError(f"{len(descriptions)} files describe YOLO sets: {listed}. Give the one that is meant.")
        if not descriptions:
            plan = _from_folders(tree, found)
        elif descriptions[0].suffix.lower() == ".data":
            plan = _from_darknet(descriptions[0], tree)
        else:
            plan = _from_yaml(descriptions[0], tree)
        names = plan.names
        if names is None:
            names = _names_file(tree)
        labels = _LabelFiles(tree, found.files)
        if names is None:
            count = 1 + max((_highest(path) for path in labels.files), default=-1)
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
                    f"have {_beside(images[0])[0]}. Put the label files there."
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
            texts = [text for path in some if (text := _text(path)).strip()]
            if texts and all(map(looks_like_labels, texts)):
                found.append(folder)
        return found


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except DataError:
        return "?"


def _pictures(
    images: list[tuple[Path, Path | None]], sizes: ImageSizes, plan: _Plan, classes: int, reading: Reading
) -> Iterator[Picture]:
    sizes.load(image for image, _ in images)
    for image, label in images:
        size = sizes[image].shown
        shapes = read_labels(label, size, classes, plan.keypoints, reading) if label is not None else []
        yield Picture(image, shapes, str(label or image))


def _beside(image: Path) -> list[Path]:
    """Where an image's label file may be: `images` of its path replaced by `labels`, the last one first; beside it."""
    parts = image.with_suffix(".txt").parts
    places = []
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() in ("images", "image", "imgs", "img", "jpegimages"):
            places += [Path(*parts[:at], folder, *parts[at + 1 :]) for folder in ("labels", "label")]
    places.append(image.with_suffix(".txt"))
    for folder in (image.parent, image.parent.parent):
        places += [folder / "labels" / f"{image.stem}.txt", folder / "labels" / image.parent.name / f"{image.stem}.txt"]
    return places


class _LabelFiles:
    """The label files of a tree, by their images."""

    def __init__(self, tree: Tree, folders: Sequence[Path]) -> None:
        """`folders`: those that have label files, whatever they are called."""
        self.files = [path for path in tree.of("txt") if path.name.lower() not in NO_LABELS]
        self._inside = {str(path) for path in self.files}
        self._root, self._partial = tree.root, tree.partial
        known = set(folders)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.files:
            if path.parent in known:
                self._by_stem[path.stem].append(path)
        self._stems = Counter(path.stem for path in tree.images.paths)

    def of(self, image: Path) -> Path | None:
        """An image's label file; None where it has none."""
        unlisted = self._partial or not image.is_relative_to(self._root)
        for path in _beside(image):
            if str(path) in self._inside or (unlisted and path.is_file()):
                return path
        # In a folder of another name: the only one so called, or the only one in a folder called as the image's.
        found = self._by_stem.get(image.stem, [])
        if len(found) == 1 and self._stems[image.stem] == 1:
            return found[0]
        found = [path for path in found if path.parent.name == image.parent.name]
        return found[0] if len(found) == 1 else None


def _highest(path: Path) -> int:
    """The highest class of a label file; what is no number is refused when its line is read."""
    found = -1
    for line in _text(path).splitlines():
        with suppress(ValueError, IndexError, OverflowError):
            label = float(line.split()[0])
            if label < MOST_CLASSES:
                found = max(found, int(label))
    return found


def _names_file(tree: Tree) -> list[str] | None:
    for wanted in NAMES:
        for path in tree.files:
            if path.name.lower() == wanted:
                return _name_lines(path)
    return None


def _name_lines(path: Path) -> list[str]:
    names = [line.strip() for line in read_text(path).splitlines()]
    while names and not names[-1]:
        names.pop()
    return _checked_names(dict(enumerate(names)), str(path))


def _checked_names(names: dict[int, Any], where: str) -> list[str]:
    texts = [class_name(names[at], where, f"the name of class {at}") for at in sorted(names)]
    if not texts:
        raise DataError(f"{where} has no class names. Add them.")
    twice = next((name for name in texts if texts.count(name) > 1), None) if len(set(texts)) < len(texts) else None
    if twice is not None:
        raise DataError(f"{where}: the class name {twice!r} is used twice. Give each class a name of its own.")
    return texts


def _is_data_yaml(path: Path) -> bool:
    try:
        if path.stat().st_size > 2**22:
            return False
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    keys = {line.split(":")[0].strip(" '\"") for line in text.splitlines() if ":" in line and not line.startswith(" ")}
    return bool(keys & {"train", "val"}) and bool(keys & {"names", "nc"})


def _is_darknet(path: Path) -> bool:
    text = _text(path) if path.stat().st_size < 2**16 else ""
    keys = {line.split("=")[0].strip() for line in text.splitlines() if "=" in line}
    return {"train", "names"} <= keys or {"classes", "names"} <= keys


def _from_yaml(path: Path, tree: Tree) -> _Plan:
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise DataError(str(error)) from error
    names = _yaml_names(content, path)
    plan = _Plan({}, names)
    plan.keypoints, plan.points, plan.flip = _yaml_keypoints(content, path)
    bases = [path.parent]
    if content.get("path") is not None:
        if not isinstance(content["path"], str):
            raise DataError(f"{path}: path is {shorten(content['path'])}; it must be the path of a folder.")
        bases.insert(0, path.parent / Path(content["path"]).expanduser())
    for key, split in SPLIT_KEYS.items():
        value = content.get(key)
        if value is None or value == "" or split in plan.splits:
            continue
        values = value if isinstance(value, list) else [value]
        images: list[Path] = []
        for one in values:
            if not isinstance(one, str) or "\0" in one:
                raise DataError(
                    f"{path}: {key} is {shorten(value)}; it must be a folder, a list file, or a list of both."
                )
            place = _place(one, [*bases, tree.root], split)
            if place is None:
                tried = " nor ".join(str(Path(os.path.normpath(base / one))) for base in dict.fromkeys(bases))
                if split == "train" or not (split == "test" or one.startswith("..")):
                    raise DataError(
                        f"{path}: {key} is {one!r}, but there is no {tried}. Correct it (a folder of images or a .txt "
                        "of their paths, from 'path' or from the file's own folder), or remove the key."
                    )
                plan.notes.append(f"{key} of {path.name} is {one!r}, which is not there: there is no such split")
                continue
            images += _images_at(place, tree, f"{path}: {key}")
        if images:
            plan.splits[split] = list(dict.fromkeys(images))
    if "train" not in plan.splits and not plan.splits:
        raise DataError(f"{path} names no folder with an image. Correct its train and val.")
    return plan


def _place(text: str, bases: list[Path], split: str) -> Path | None:
    """Where a path of a data.yaml leads, also one that was written on another machine or from another folder: its end
    is looked for in `bases`, but never so short an end that the split's name is lost, which others would share."""
    text = text.replace("\\", "/") if not os.path.exists(text) else text
    for base in bases:
        place = Path(os.path.normpath(base / text))
        if place.exists():
            return place
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    said = any(split_in(os.path.splitext(part)[0]) == split for part in parts)
    tails = [parts[at:] for at in range(len(parts))]
    if said:
        words = [word for word, meant in SPLITS.items() if meant == split and word != "trainval"]
        last = next(part for part in reversed(parts) if split_in(os.path.splitext(part)[0]) == split)
        tails = [tail for tail in tails if last in tail]
        if not os.path.splitext(last)[1]:
            tails += [[*order] for word in (last, *words) for order in ((word, "images"), ("images", word), (word,))]
    return next((place for tail in tails for base in bases if tail and (place := base.joinpath(*tail)).exists()), None)


def _images_at(place: Path, tree: Tree, where: str) -> list[Path]:
    """The images in a folder, or those that a list file names."""
    inside = place.is_relative_to(tree.root)
    if place.is_dir():
        images = (tree.images.below(place) if inside else []) or Tree(place).images.paths  # one is a link, perhaps
        if not images:
            raise DataError(f"{where} leads to {place}, which has no image. Correct it.")
        return images
    if extension(place.name) != "txt":
        raise DataError(f"{where} leads to {place}, which is neither a folder nor a .txt of image paths. Correct it.")
    images = []
    for at, line in enumerate(read_text(place).splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        path = Path(os.path.normpath(place.parent / name)) if "\0" not in name else None
        if path is None or not path.is_file():
            path = tree.images.find(name, (place.parent, tree.root), f"{place}, line {at}")
        if path is None:
            raise DataError(
                f"{place}, line {at}: there is no image {shorten(name)}, neither from {place.parent} nor by its name "
                f"in {tree.root}. Correct the line, or add the image."
            )
        images.append(path)
    if not images:
        raise DataError(f"{where} leads to {place}, which names no image. Correct it.")
    return images


def _yaml_names(content: dict[str, Any], path: Path) -> list[str] | None:
    found, count = content.get("names"), content.get("nc")
    if isinstance(found, dict):
        if not all(type(key) is int or (isinstance(key, str) and key.isdecimal()) for key in found):
            raise DataError(f"{path}: the keys of names are {shorten(list(found))}; they must be the classes' numbers.")
        by_number = {int(key): name for key, name in found.items()}
        if sorted(by_number) != list(range(len(by_number))):
            raise DataError(
                f"{path}: names has the numbers {shorten(sorted(by_number))}; they must go from 0 without a gap."
            )
    elif isinstance(found, list):
        by_number = dict(enumerate(found))
    elif found is None:
        return None
    else:
        raise DataError(f"{path}: names is {shorten(found)}; it must be a list, or number: name pairs.")
    if any(isinstance(name, bool) for name in by_number.values()):
        raise DataError(f"{path}: YAML takes yes, no, on, off, true and false among the names for no text: quote them.")
    by_number = {at: str(name) if isinstance(name, float) else name for at, name in by_number.items()}
    names = _checked_names(by_number, f"{path}: names")
    if count is not None and whole(count, str(path), "nc") != len(names):
        raise DataError(f"{path}: nc is {count}, but names has {len(names)} names. Make the two agree.")
    return names


def _yaml_keypoints(
    content: dict[str, Any], path: Path
) -> tuple[tuple[int, int] | None, tuple[str, ...], tuple[tuple[str, str], ...]]:
    shape = content.get("kpt_shape")
    if shape is None:
        return None, (), ()
    sound = isinstance(shape, list) and len(shape) == 2 and all(type(v) is int for v in shape)
    if not sound or not 0 < shape[0] < 10_000 or shape[1] not in (2, 3):
        raise DataError(f"{path}: kpt_shape is {shorten(shape)}; it must be [number of keypoints, 2 or 3].")
    given = content.get("kpt_names")
    given = next(iter(given.values()), None) if isinstance(given, dict) else given
    if isinstance(given, list) and len(given) == shape[0] and len(set(map(str, given))) == shape[0]:
        points = tuple(map(str, given))
    else:
        points = tuple(f"keypoint_{at}" for at in range(shape[0]))
    flip = content.get("flip_idx")
    if flip is None:
        return (shape[0], shape[1]), points, ()
    whole_numbers = isinstance(flip, list) and all(type(at) is int for at in flip)
    if not whole_numbers or sorted(flip) != list(range(shape[0])) or any(flip[flip[at]] != at for at in flip):
        raise DataError(
            f"{path}: flip_idx is {shorten(flip)}; it must give each of the {shape[0]} keypoints its mirror's."
        )
    pairs = tuple((points[at], points[other]) for at, other in enumerate(flip) if at < other)
    return (shape[0], shape[1]), points, pairs


def _from_darknet(path: Path, tree: Tree) -> _Plan:
    values = dict((part.strip() for part in line.split("=", 1)) for line in read_text(path).splitlines() if "=" in line)
    plan = _Plan({}, None)
    for key, split in SPLIT_KEYS.items():
        value = values.get(key)
        if value and split not in plan.splits:
            place = _place(value, [path.parent, path.parent.parent, tree.root], split)
            place = place or next((file for file in tree.files if file.name == Path(value).name), None)
            if place is None:
                raise DataError(
                    f"{path}: {key} is {value!r}, but there is no such file. Correct it, or remove the key."
                )
            plan.splits[split] = list(dict.fromkeys(_images_at(place, tree, f"{path}: {key}")))
    if not plan.splits:  # an export before anybody split it
        plan.splits["train"] = list(tree.images.paths)
    if values.get("names"):
        place = _place(values["names"], [path.parent, path.parent.parent, tree.root], "")
        place = place or next((file for file in tree.files if file.name == Path(values["names"]).name), None)
        if place is None:
            raise DataError(f"{path}: names is {values['names']!r}, but there is no such file. Correct it.")
        plan.names = _name_lines(place)
    return plan


def _from_folders(tree: Tree, found: Found) -> _Plan:
    labels = _LabelFiles(tree, found.files)
    splits: dict[str, list[Path]] = defaultdict(list)
    chosen = [folder for folder in found.files if folder.is_relative_to(tree.chosen)] or [tree.root]
    for image in tree.images.paths:
        if tree.chosen == tree.root or labels.of(image) is None or labels.of(image).parent in chosen:
            splits[split_of(image.parent / "x", tree.root) or "train"].append(image)
    # A folder of pictures without one label file has nothing to do with the labels: those are no backgrounds.
    labelled = {image.parent for images in splits.values() for image in images if labels.of(image) is not None}
    kept = {name: [image for image in images if image.parent in labelled] for name, images in splits.items()}
    return _Plan({name: images for name, images in kept.items() if images}, None)
