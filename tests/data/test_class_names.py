"""Classes by name and id."""

from __future__ import annotations

import pytest

from se_det.data.class_names import MAX_NAMED, distinct_names, find_classes
from se_det.errors import ConfigError


def test_classes_are_found_by_name_before_id() -> None:
    names, ids = ["car", "90", "car", "owl"], [1, 3, 7, 90]
    assert distinct_names(names, ids) == ["car (1)", "90", "car (7)", "owl"]
    assert find_classes(["car"], names, ids) == [0, 2]
    assert find_classes(["car (7)", "owl", "owl"], names, ids) == [2, 3]
    assert find_classes(["90"], names, ids) == [1] and find_classes([90], names, ids) == [3]
    assert find_classes(["3", 1], names, ids) == [0, 1]


def test_of_many_classes_some_are_named() -> None:
    names = [f"class{k}" for k in range(30)]
    with pytest.raises(ConfigError, match=rf"Did you mean 'class7'\?.*class19 \(id 19\), and {30 - MAX_NAMED} more"):
        find_classes(["clas7"], names, range(30))
