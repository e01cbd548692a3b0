"""Every kind of detector that is exported finds what PyTorch's does, images without detections included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from se_det.detection.masks import paste_masks
from se_det.export import detector
from se_det.inference.exported import ExportedDetector
from se_det.inference.runtimes import open_runtime

from .batches import FEW, MANY, both, raise_threshold
from .cases import ENDINGS, ExportCase
from .test_detectors import GraphRuntime
from .tiny import KINDS, tiny


def assert_same(ours: dict, theirs: dict, *, ties: bool = False) -> int:
    """Detections by matching, as those of one score may change places; classes of pixels but for ties. How many
    detections there were.

    Args:
        ties: of cells that all see the same, any may be chosen: scores alone are compared.
    """
    assert ours.keys() == theirs.keys()
    if "sem_seg" in theirs:
        assert_same_pixels(ours["sem_seg"], theirs["sem_seg"])
    if "panoptic_seg" in theirs:
        (segments, infos), (known, known_infos) = ours["panoptic_seg"], theirs["panoptic_seg"]
        assert [(i["isthing"], i["category_id"]) for i in infos] == [
            (i["isthing"], i["category_id"]) for i in known_infos
        ]
        assert (segments != known).float().mean() < 1e-3
    if "proposals" in theirs:
        ours, theirs = ours["proposals"], theirs["proposals"]
        torch.testing.assert_close(ours["objectness_logits"], theirs["objectness_logits"], rtol=0, atol=1e-3)
        torch.testing.assert_close(ours["proposal_boxes"], theirs["proposal_boxes"], rtol=0, atol=1e-2)
        return len(theirs["objectness_logits"])
    if "instances" not in theirs:
        return 0
    ours, theirs = ours["instances"], theirs["instances"]
    assert ours.keys() == theirs.keys() and len(ours["scores"]) == len(theirs["scores"])
    torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-4)
    for at, box in enumerate([] if ties else theirs["pred_boxes"]):
        near = (ours["pred_boxes"] - box).abs().amax(1) + 1e6 * (ours["pred_classes"] != theirs["pred_classes"][at])
        here = int(near.argmin())
        assert near[here] < 1e-2
        assert abs(ours["scores"][here] - theirs["scores"][at]) < 1e-4
        if "pred_keypoints" in theirs:
            apart = (ours["pred_keypoints"][here] - theirs["pred_keypoints"][at]).abs()
            assert apart[:, :2].max() < 1e-2 and apart[:, 2].max() < 1e-4
        if "box_masks" in theirs:
            # Both in the same box: px where they differ are the masks'.
            one, other = (
                paste_masks(found["box_masks"][k][None], box[None], *theirs["image_size"])[0]
                for found, k in ((ours, here), (theirs, at))
            )
            assert (one & other).sum() >= 0.999 * (one | other).sum() or (one ^ other).sum() <= 1
    return len(theirs["scores"])


def assert_same_pixels(labels: torch.Tensor, logits: torch.Tensor) -> None:
    assert labels.shape == logits.shape[1:]
    chosen = logits.gather(0, labels[None].long())[0]
    assert (logits.amax(0) - chosen).max() < 1e-3


def check(kind: str, model: torch.nn.Module, cfg, exported: ExportedDetector, batches: list) -> tuple[int, int]:
    """How many detections there were in all, and in how many images none."""
    found, none = 0, 0
    for seed, sizes in enumerate(batches):
        given, known = both(sizes, cfg, seed)
        with torch.no_grad():
            results = list(zip(sizes, exported.detect(given), model.detect(known), strict=True))
        for size, ours, theirs in results:
            # Res4 of one colour is the same in all cells that do not touch the border.
            count = assert_same(ours, theirs, ties=kind == "c4" and size == (1, 1))
            found, none = found + count, none + (count == 0)
    return found, none


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_graph_before_any_export(kind: str) -> None:
    model, cfg = tiny(kind)
    network = detector(model, cfg)
    exported = ExportedDetector(GraphRuntime(network), kind)
    found, _ = check(kind, model, cfg, exported, FEW)
    assert found > 10 or kind == "semantic"
    raise_threshold(model, 2.0)
    _, none = check(kind, model, cfg, exported, FEW[:1])
    assert none == 1 or kind == "proposals"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_files(case_of: Callable[[str], ExportCase], kind: str, ending: str) -> None:
    """As `se-det export` writes them, at 25 sizes from one px to 8,000 in batches of 1, 2 and 5; some images have no
    detection."""
    case = case_of(kind)
    exported = ExportedDetector(open_runtime(case.file(ending)), kind)
    found, none = check(kind, case.model, case.cfg, exported, MANY)
    assert (found > 20 and none >= 3) or kind in ("semantic", "proposals")
