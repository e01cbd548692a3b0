"""PyTorch's .pt2: programs of torch.export, and packages of AOTInductor, which are compiled."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...internals import aot_inductor
from .protocol import METADATA_KEY, RUNTIMES, unreadable


@RUNTIMES.register(name=".pt2")
class TorchRuntime:
    """See `Runtime`. Both kinds call torchvision's operators, which are registered when it is imported."""

    def __init__(self, path: Path, device: str) -> None:
        import torchvision  # noqa: F401

        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # about the archive's insides
                if is_compiled(path):
                    self._network = aot_inductor.load_package(path)
                    kept = self._network.get_metadata().get(METADATA_KEY, "")
                    self._device = _device_of(self._network)
                else:
                    extra = {METADATA_KEY: ""}
                    self._network = torch.export.load(path, extra_files=extra).module()
                    kept, self._device = extra[METADATA_KEY], torch.device("cpu")
        except Exception as error:  # of many kinds
            raise unreadable(path, error) from error
        self.metadata = json.loads(kept) if kept else {}
        kind = "AOTInductor" if is_compiled(path) else "torch.export"
        self.description = f"{kind}, PyTorch {torch.__version__}, {self._device}"

    @torch.no_grad()
    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the order in which they were exported."""
        found = self._network(*(torch.from_numpy(np.ascontiguousarray(one)).to(self._device) for one in inputs))
        return [one.cpu().numpy() for one in ([found] if isinstance(found, torch.Tensor) else found)]


def is_compiled(path: Path) -> bool:
    """Whether a .pt2 is a package of AOTInductor."""
    with zipfile.ZipFile(path) as archive:
        return any("/aotinductor/" in name for name in archive.namelist())


def _device_of(package: object) -> torch.device:
    key = package.get_metadata().get("AOTI_DEVICE_KEY", "cpu")
    return torch.device(key)
