"""The pictures that the tests of this folder share, and the tiny network in the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from picture_sets import add_tiny_host, class_folders

from se_det.backbones.catalog import HOSTS


@pytest.fixture(autouse=True)
def tiny_host() -> Iterator[None]:
    add_tiny_host()
    yield
    HOSTS.pop("tiny", None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 pictures of three classes in `train`, 9 in `val`."""
    folder = tmp_path_factory.mktemp("pictures")
    class_folders(folder / "train")
    class_folders(folder / "val", per_class=3, first=100)
    return folder
