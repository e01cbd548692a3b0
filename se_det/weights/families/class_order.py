"""The order of a classifier's classes: the SENet authors' differs from everybody else's.

The standard order is that of the sorted synsets (WordNet ids such as n01440764). In the authors' list the first
validation image has the label 489, in the standard order 65.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ...errors import WeightsError


def read_class_order(path: str | Path) -> torch.Tensor:
    """Where the standard order's classes stand in another order: `weight[order]` is in the standard order.

    The file has one line a class: either a synset, in the other order (further words are left out), or a number, line
    k saying where the k-th class of the standard order stands (counted from 0 or from 1; mcnSENets' `label_map.txt`).

    Raises:
        WeightsError: there is no such file, or it is not such a list.
    """
    path = Path(path)
    try:
        lines = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise WeightsError(f"The class order {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"The class order {path} is no text file.") from error
    if lines and all(re.fullmatch(r"\d{1,6}", line) for line in lines):
        places = [int(line) for line in lines]
        first = min(places)
        if first > 1 or sorted(places) != list(range(first, first + len(places))):
            raise WeightsError(f"The class order {path} must have every number from 0 or 1 on once.")
        return torch.tensor([place - first for place in places])
    strange = [line for line in lines if not re.fullmatch(r"n\d{8}", line)]
    if not lines or strange:
        raise WeightsError(
            f"The class order {path} must have a synset such as n01440764, or a number, on every line"
            + (f"; it has '{strange[0]}'." if strange else ", and is empty.")
        )
    if len(set(lines)) < len(lines):
        raise WeightsError(f"The class order {path} has a synset twice.")
    return torch.tensor(sorted(range(len(lines)), key=lambda k: lines[k]))
