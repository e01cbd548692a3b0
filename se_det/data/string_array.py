"""Many texts as two tensors, which the processes that load data can share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class StringArray:
    """A list of texts in one tensor of bytes: Python lists are copied by every process that only reads them."""

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._bytes = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
        ends = np.cumsum([0, *map(len, encoded)])
        self._ends = torch.from_numpy(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self._ends[index : index + 2].tolist()
        return self._bytes[start:end].numpy().tobytes().decode("utf-8", "surrogatepass")
