"""The backbone and its pyramid through torch.compile, for a bounded number of shapes.

A shape is compiled as it is. Padding images to fewer shapes would change results unless MODEL.GATE.PADDING is "exact"
(zeros beyond an image have an effect), and there the image's own size is part of what is compiled.
"""

from __future__ import annotations

import logging

import torch
from torch import nn

from ..errors import ConfigError
from ..layers.valid_area import ValidArea
from .rcnn import Detector

# Compiling one takes most of a minute. PyTorch by itself would stop at as many, and run the rest as if not compiled.
MAX_SHAPES = 8
COMPILER = ("torch._dynamo", "torch._inductor")  # whose errors say that code could not be made

logger = logging.getLogger(__name__)

Maps = tuple[dict[str, torch.Tensor], dict[str, ValidArea | None]]


def check_compiler(device: torch.device) -> None:
    """Compile something small.

    Raises:
        ConfigError: torch.compile does not work here.
    """
    _compiled_or_refused(torch.compile(_small), torch.zeros(8, device=device))


def compile_backbone(model: Detector) -> Detector:
    """Have the maps of `model`, which is prepared for inference, computed by compiled code, in place.

    Gates are then the plain formula, which the compiler fuses itself. Results are equal up to rounding.
    """
    if model.device.type == "cpu" and next(model.backbone.parameters()).dtype == torch.float32:
        logger.warning("TEST.COMPILE is True: on the CPUs that were measured, float32 networks became slower by it.")
    model.backbone.features = CompiledFeatures(model.backbone)
    return model


class CompiledFeatures:
    """What `features` of a backbone gives, compiled for the first `MAX_SHAPES` shapes that come."""

    def __init__(self, backbone: nn.Module) -> None:
        self._plain = backbone.features
        self._compiled = torch.compile(self._plain, dynamic=False)
        self._shapes: set[tuple] = set()
        self._told = False

    def __call__(self, x: torch.Tensor, area: ValidArea | None = None) -> Maps:
        """(N, 3, H, W) to the maps and the area of each, see `FPN.features`.

        Raises:
            ConfigError: it cannot be compiled.
        """
        # Sizes of images are constants of the code, too, where padding is told from them ("squeeze", "exact").
        shape = (tuple(x.shape), area)
        if shape not in self._shapes:
            if len(self._shapes) == MAX_SHAPES:
                if not self._told:
                    logger.warning(
                        "TEST.COMPILE: images have more than %d shapes; those that come now are not compiled.",
                        MAX_SHAPES,
                    )
                    self._told = True
                return self._plain(x, area)
            self._shapes.add(shape)
            logger.info("Compiling the backbone for %d x %d x %d px.", x.shape[0], x.shape[2], x.shape[3])
            return _compiled_or_refused(self._compiled, x, area)
        return self._compiled(x, area)


def _small(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x + 1) * 2


def _compiled_or_refused(function, *args):
    try:
        return function(*args)
    except Exception as error:
        if not any(kind.__module__.startswith(COMPILER) for kind in type(error).__mro__):
            raise
        cause = getattr(error, "inner_exception", error)
        said = " ".join([f"{type(cause).__name__}:", *str(cause).strip().splitlines()[:1]])
        raise ConfigError(
            f"TEST.COMPILE is True, and torch.compile does not work here ({said.rstrip('.')}): install what it needs "
            "(a C++ compiler; on a GPU Triton, too), or set TEST.COMPILE False."
        ) from error
