"""What a collection's results are of: model, options and images, written down by the first call and held to by all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ... import __version__
from ...config.loading import flatten
from ...config.resolution import plain
from ...errors import CheckpointError, ConfigError
from ...files import open_temporary
from ...weights import resolve_weights
from ..predictor import Predictor
from .containers import Container, Unit
from .parts import FOLDER

PLAN = "collection.json"
SECTIONS = ("MODEL.", "INPUT.", "TEST.")  # keys that results depend on
NOT_RESULTS = ("MODEL.WEIGHTS", "MODEL.DEVICE")
MOST_NAMED = 4
CHUNK = 2**20


def share_of(units: Sequence[Unit], share: int, shares: int) -> list[int]:
    """The numbers of the units that one of several processes does: every `shares`-th, from `share` (from 0) on."""
    return list(range(share, len(units), shares))


def make_plan(
    predictor: Predictor, containers: Sequence[Container], *, format: str, classes: Sequence[int] | None, images: int
) -> dict[str, Any]:
    """What is held to, for JSON.

    Args:
        classes: indices of those that are kept; None is all.
        images: of a part, at most.
    """
    keys = {
        key: plain(value)
        for key, value in flatten(predictor.cfg)
        if key.startswith(SECTIONS) and key not in NOT_RESULTS
    }
    names = zip(predictor.category_ids, predictor.class_names)
    return {
        "model": _hash(resolve_weights(predictor.cfg.MODEL.WEIGHTS)[0]),
        "options": {
            "--format": format,
            "--part-images": images,
            "--classes": None if classes is None else [predictor.class_names[k] for k in sorted(classes)],
            **keys,
        },
        "categories": [{"id": number, "name": name} for number, name in names],
        "inputs": [container.identity() for container in containers],
        "made_by": f"se_det {__version__}",
    }


def hold_to(output: Path, plan: Mapping[str, Any]) -> None:
    """Write `collection.json`, or compare with the one that is there.

    Raises:
        CheckpointError: it is of another model, other options or other images; or the folder cannot be written.
    """
    path = output / PLAN
    plan = json.loads(json.dumps(plan))
    if not path.exists():
        if any((output / FOLDER).glob("*")):
            raise CheckpointError(f"{output / FOLDER} has files, and {path} is not there: give another --output.")
        _create(path, plan)
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        changes = list(_changes(there, plan))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): give another --output.") from error
    if changes:
        more = f", and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
        raise CheckpointError(
            f"The results in {output} are of another call: {'; '.join(changes[:MOST_NAMED])}{more}. Repeat that call "
            "to go on with it, or give another --output."
        )


def _changes(there: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[str]:
    if there["model"] != plan["model"]:
        yield "the weights were others"
    if there["categories"] != plan["categories"]:
        yield "the classes had other names or ids"
    before, now = there["options"], plan["options"]
    for key in [*before, *(key for key in now if key not in before)]:
        if before.get(key) != now.get(key):
            yield f"{key} was {_show(before.get(key))} and is {_show(now.get(key))}"
    old, new = there["inputs"], plan["inputs"]
    for was, is_now in zip(old, new):
        if was != is_now:
            if was["name"] != is_now["name"]:
                yield f"the input {was['name']} was where {is_now['name']} is"
            elif was.get("images") != is_now.get("images"):
                yield f"{was['name']} had {was.get('images')} images and has {is_now.get('images')}"
            else:
                yield f"{was['name']} has changed"
            return
    if len(old) != len(new):
        yield f"there were {len(old)} lists, folders and shards, and there are {len(new)}"


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _create(path: Path, plan: Mapping[str, Any]) -> None:
    """Write the file where there is none; of several processes one does, and the others find it whole."""
    handle, temporary = open_temporary(path)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(plan, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                digest.update(data)
    except OSError as error:
        raise ConfigError(f"The weights {path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
