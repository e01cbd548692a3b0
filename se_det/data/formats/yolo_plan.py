"""What describes a YOLO set: a data.yaml, Darknet's .data file, or its folders alone."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.loading import read_yaml
from ...errors import ConfigError, DataError
from ..coco_json import shorten
from .protocol import Found
from .reading import class_name, read_text, whole
from .tree import SPLITS, Tree, extension, split_in, split_of
from .yolo_files import CLASS_FILES, LabelFiles, label_text

SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class YoloPlan:
    """Where the images of each split are, and what the classes are called."""

    splits: dict[str, list[Path]]
    names: list[str] | None
    keypoints: tuple[int, int] | None = None
    points: tuple[str, ...] = ()
    flip: tuple[tuple[str, str], ...] = ()
    notes: list[str] = field(default_factory=list)


def is_data_yaml(path: Path) -> bool:
    """Whether a file has a data.yaml's keys; it is looked at, not parsed."""
    try:
        if path.stat().st_size > 2**22:
            return False
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    keys = {line.split(":")[0].strip(" '\"") for line in text.splitlines() if ":" in line and not line.startswith(" ")}
    return bool(keys & {"train", "val"}) and bool(keys & {"names", "nc"})


def is_darknet(path: Path) -> bool:
    """Whether a file has the keys of Darknet's .data files."""
    text = label_text(path) if path.stat().st_size < 2**16 else ""
    keys = {line.split("=")[0].strip() for line in text.splitlines() if "=" in line}
    return {"train", "names"} <= keys or {"classes", "names"} <= keys


def read_plan(tree: Tree, found: Found) -> YoloPlan:
    """What the set's description says, or its folders where there is none.

    Raises:
        DataError: several files describe sets, or the one does not lead to images, or contradicts itself.
    """
    descriptions = [path for path in found.files if path.suffix.lower() in (".yaml", ".yml", ".data")]
    if len(descriptions) > 1:
        listed = " and ".join(str(path) for path in descriptions[:4])
        raise DataError(f"{len(descriptions)} files describe YOLO sets: {listed}. Give the one that is meant.")
    if not descriptions:
        return _from_folders(tree, found)
    return (_from_darknet if descriptions[0].suffix.lower() == ".data" else _from_yaml)(descriptions[0], tree)


def _from_yaml(path: Path, tree: Tree) -> YoloPlan:
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise DataError(str(error)) from error
    names = _yaml_names(content, path)
    plan = YoloPlan({}, names)
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


def _from_darknet(path: Path, tree: Tree) -> YoloPlan:
    values = dict((part.strip() for part in line.split("=", 1)) for line in read_text(path).splitlines() if "=" in line)
    plan = YoloPlan({}, None)
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


def _from_folders(tree: Tree, found: Found) -> YoloPlan:
    labels = LabelFiles(tree, found.files)
    splits: dict[str, list[Path]] = defaultdict(list)
    chosen = [folder for folder in found.files if folder.is_relative_to(tree.chosen)] or [tree.root]
    for image in tree.images.paths:
        if tree.chosen == tree.root or labels.of(image) is None or labels.of(image).parent in chosen:
            splits[split_of(image.parent / "x", tree.root) or "train"].append(image)
    # A folder of pictures without one label file has nothing to do with the labels: those are no backgrounds.
    labelled = {image.parent for images in splits.values() for image in images if labels.of(image) is not None}
    kept = {name: [image for image in images if image.parent in labelled] for name, images in splits.items()}
    return YoloPlan({name: images for name, images in kept.items() if images}, None)


def class_names(tree: Tree) -> list[str] | None:
    """The names in a file of names alone, a line each; None where there is no such file."""
    for wanted in CLASS_FILES:
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
