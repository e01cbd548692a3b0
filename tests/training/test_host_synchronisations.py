"""How often a step of the training loop waits for the device: each has a line in docs/training.md."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import ops

from se_det.detection import build_detector, matching, pooler
from se_det.training import build, loop
from tests.detection.conftest import make_sample, small_config

# Operators whose result, or its size, the host has to know.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "equal", "is_nonzero", "bincount", "repeat_interleave", "nms",
}  # fmt: skip
# Ways to the host, and from it, that on a CPU are no operators of their own.
CROSSING = {"tolist", "cpu", "numpy", "__array__", "tensor", "as_tensor", "new_tensor"}


class Operators(TorchDispatchMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        masks = []
        if name.startswith(("index", "_unsafe_index", "_index_put")) and len(args) > 1 and isinstance(args[1], list):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        if masks:
            self.seen["index with a mask"] += 1
        elif name in WAITING:
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in CROSSING:
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


class Quiet:
    """What the loop asks of milestones and progress, without files."""

    def __call__(self, done):
        return False

    def due(self, done):
        return False

    def add(self, losses):
        pass

    def line(self, done):
        pass

    def data_time(self):
        return torch.no_grad()


def _step(masks: bool, monkeypatch, **how) -> Counter:
    monkeypatch.setattr(matching, "_may_ask", lambda tensor: False)  # this CPU stands for a device
    torch.manual_seed(0)
    # A GPU has torchvision's operator, not the sum of table rows.
    monkeypatch.setattr(pooler, "has_fast_path", lambda x: False)
    monkeypatch.setattr(
        pooler,
        "roi_align",
        lambda x, rois, size, scale, ratio, aligned: ops.roi_align(x, rois, size, scale, ratio, aligned),
    )
    cfg = small_config(masks=masks, overrides=("MODEL.RESNETS.NORM", "GN"))
    model = build_detector(cfg)
    optimizer = build.optimizer(cfg, model, base_lr=1e-6, scaled=False)
    samples = [make_sample(64, 96, [[8, 8, 40, 44], [20, 4, 60, 30]], seed=s) for s in (0, 1)]
    seen: Counter = Counter()

    def steps(count, start=0):
        loop.train(
            model, iter([samples] * count), optimizer, lambda step: 1e-6, start=start, max_iter=start + count,
            seed=0, actions=Quiet(), progress=Quiet(), **how,
        )  # fmt: skip

    steps(1)  # momentum is made
    with Functions(seen), Operators(seen):
        steps(1, start=1)
    return seen


# Two images: what their proposals are and how many are left of each (`tolist`); all that is asked of the samples
# (`cpu`; what follows, the other `tolist` and `numpy`, is on the host); and NMS of each image, for which torchvision
# sends a 1 to the device.
FASTER = {"tolist": 2, "cpu": 1, "numpy": 1, "nms": 2, "tensor": 2}
# Besides: the samples' boxes, right after their numbers (`cpu`). All else is of what is on the host already: the ground
# truth's masks (ten `cpu`), and which mask each box sees (`nonzero`).
MASK = {**FASTER, "cpu": 12, "numpy": 12, "nonzero": 4, "_local_scalar_dense": 2}


@pytest.mark.parametrize("masks, allowed", [(False, FASTER), (True, MASK)], ids=["faster", "mask"])
def test_a_step_waits_no_more_often_than_the_documentation_says(masks, allowed, monkeypatch):
    assert _step(masks, monkeypatch, read_every_step=False) == allowed


def test_looking_at_the_losses_in_every_step_waits_once_more(monkeypatch):
    seen = _step(False, monkeypatch, read_every_step=True)
    assert seen - Counter(FASTER) == {"cpu": 1, "nonzero": 1, "tolist": 2}  # what follows `cpu` is on the host


@pytest.mark.parametrize(
    "wait", [lambda x: x[x > 0], lambda x: float(x.sum()), lambda x: x.unique(), lambda x: x.tolist()]
)
def test_the_count_sees_a_wait(wait):
    seen: Counter = Counter()
    with Functions(seen), Operators(seen):
        wait(torch.arange(3.0))
    assert seen.total() >= 1
