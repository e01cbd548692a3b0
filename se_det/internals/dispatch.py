"""Looking at every tensor that PyTorch's operations make.

Uses: `torch.utils._python_dispatch.TorchDispatchMode`. There from PyTorch 2.6, the lowest that the package runs on, to
2.14.

Without: the memory of inference cannot be counted, and the command that asks for it is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import SeDetError


@contextmanager
def each_result(note: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Inside, `note` is given every tensor that an operation returns.

    Raises:
        SeDetError: this PyTorch has no way to it.
    """
    try:
        from torch.utils._python_dispatch import TorchDispatchMode
    except ImportError:
        raise SeDetError(
            f"The memory of inference cannot be counted with PyTorch {torch.__version__}: use a version between 2.6 "
            "and 2.14 for it."
        ) from None

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(value, torch.Tensor):
                    note(value)
                elif isinstance(value, (tuple, list)):
                    for inner in value:
                        note(inner)
            return result

    with Mode():
        yield
