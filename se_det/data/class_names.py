"""Classes by what people call them: a name, or the id that the annotation file gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import ConfigError, suggestion

MAX_NAMED = 20  # classes in a sentence


def distinct_names(names: Sequence[str], ids: Sequence[int]) -> list[str]:
    """The names; one that two classes share is followed by the class's id."""
    uses = Counter(names)
    return [name if uses[name] == 1 else f"{name} ({category_id})" for name, category_id in zip(names, ids)]


def find_classes(wanted: Iterable[str | int], names: Sequence[str], ids: Sequence[int]) -> list[int]:
    """The indices of classes, ascending.

    Args:
        wanted: names (of classes that share one, all are meant; see `distinct_names`), or ids as numbers or their
            digits. A class that is called by a number is found by its name first.
        names, ids: of the classes, by index.

    Raises:
        ConfigError: there is no such class; the sentence names the nearest, and those there are.
    """
    labels, found = distinct_names(names, ids), set()
    for one in wanted:
        text = str(one)
        here = [] if isinstance(one, int) else [k for k, pair in enumerate(zip(names, labels)) if text in pair]
        here = here or [k for k, category_id in enumerate(ids) if str(category_id) == text]
        if not here:
            listed = ", ".join(f"{label} (id {i})" for label, i in list(zip(labels, ids))[:MAX_NAMED])
            more = f", and {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
            raise ConfigError(f"There is no class '{text}'.{suggestion(text, labels)} There are {listed}{more}.")
        found.update(here)
    return sorted(found)
