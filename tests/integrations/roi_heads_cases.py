"""Detectors of RoI heads other than Mask R-CNN's, ours and Detectron2's on the same weights, and what they compute.

`python tests/integrations/roi_heads_cases.py <commit of the installed Detectron2> [case ...]` writes
tests/detection/golden/roi_heads_*.npz; it needs Detectron2. Our backbone, with SE, is in Detectron2's detector.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from se_det.config import load_config
from se_det.detection.build import build_detector
from tests.integrations.known_weights import SAMPLE_ALL, SLIM, fill, samples

FOLDER = Path(__file__).resolve().parents[1] / "detection" / "golden"
DETECTIONS = 20


class Case(NamedTuple):
    """A config, and what makes its network small."""

    config: str
    keys: Sequence[Any] = ()

    def overrides(self, *more: Any) -> list[Any]:
        return [*SLIM, "TEST.DETECTIONS_PER_IMAGE", DETECTIONS, *self.keys, *more]


KEYPOINTS = ["MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (32, 32), "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 4]
CASES = {
    "cascade": Case("configs/cascade_mask_rcnn_se_r50_fpn.yaml"),
    "cascade_sigmoid": Case(
        "configs/cascade_mask_rcnn_se_r50_fpn.yaml",
        ["MODEL.MASK_ON", False, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
         "giou", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.65),
         "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", ((10.0, 10.0, 5.0, 5.0), (16.0, 16.0, 8.0, 8.0))],
    ),
    "keypoint": Case("configs/keypoint_rcnn_se_r50_fpn.yaml", KEYPOINTS),
    "keypoint_by_all": Case(
        "configs/keypoint_rcnn_se_r50_fpn.yaml",
        [*KEYPOINTS, "MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS", False,
         "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT", 4.0, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads",
         "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
    ),
    "point_rend": Case(
        "configs/point_rend_se_r50_fpn.yaml",
        ["MODEL.ROI_MASK_HEAD.FC_DIM", 64, "MODEL.ROI_MASK_HEAD.CONV_DIM", 24, "MODEL.POINT_HEAD.FC_DIM", 32,
         "MODEL.POINT_HEAD.NUM_CLASSES", 5, "MODEL.POINT_HEAD.SUBDIVISION_STEPS", 4],
    ),
}  # fmt: skip


@contextmanager
def even_points() -> Iterator[None]:
    """Inside, points of boxes are drawn alike for every box, so that the order of boxes changes nothing."""
    drawn = torch.rand

    def rand(*size: Any, **options: Any) -> torch.Tensor:
        if len(size) != 3:
            return drawn(*size, **options)
        values = np.random.RandomState(size[1]).rand(1, *size[1:])
        return torch.from_numpy(values).float().repeat(size[0], 1, 1)

    torch.rand = rand
    try:
        yield
    finally:
        torch.rand = drawn


def inputs() -> list[dict[str, Any]]:
    """`samples` with keypoints, of which some are hidden, not labelled, or outside their box."""
    found, random = samples(), np.random.RandomState(9)
    for sample in found:
        boxes = sample["instances"]["gt_boxes"].numpy()
        xy = boxes[:, None, :2] + random.uniform(-0.1, 1.1, (len(boxes), 4, 2)) * (
            boxes[:, None, 2:] - boxes[:, None, :2]
        )
        seen = random.randint(0, 3, (len(boxes), 4, 1))
        keypoints = np.concatenate([xy * (seen > 0), seen], 2)
        keypoints[0, 0] = [*boxes[0, 2:], 2]  # on the far corner
        sample["instances"]["gt_keypoints"] = torch.from_numpy(keypoints).float()
    return found


def our_detector(case: Case, *more: Any) -> nn.Module:
    """In evaluation mode, of known weights."""
    return fill(build_detector(load_config(case.config, case.overrides(*more)))).eval()


def their_detector(case: Case, *more: Any) -> nn.Module:
    """`our_detector` by Detectron2."""
    from se_det.integrations.detectron2_peer import build_peer

    return build_peer(case.config, case.overrides(*more), our_detector(case, *more).state_dict()).eval()


def our_numbers(case: Case) -> dict[str, np.ndarray]:
    """Detections, losses, and the norm of each parameter's gradient."""
    found = {}
    with torch.no_grad():
        for i, image in enumerate(our_detector(case)(inputs())):
            found |= _detections(i, image["instances"])
    model = our_detector(case, *SAMPLE_ALL).train()
    with even_points():
        losses = model(inputs())
    return found | _gradients(model, losses)


def their_numbers(case: Case) -> dict[str, np.ndarray]:
    """`our_numbers` by Detectron2."""
    from detectron2.utils.events import EventStorage

    from se_det.integrations.detectron2_peer import to_detectron2

    given, found = [to_detectron2(sample) for sample in inputs()], {}
    with torch.no_grad():
        for i, image in enumerate(their_detector(case)(given)):
            fields = image["instances"].get_fields()
            found |= _detections(i, {**fields, "pred_boxes": fields["pred_boxes"].tensor})
    model = their_detector(case, *SAMPLE_ALL).train()
    if "PointRend" in type(getattr(model.roi_heads, "mask_head", None)).__name__:
        given = [as_bitmaps(sample) for sample in given]
    with EventStorage(), even_points():
        losses = model(given)
    return found | _gradients(model, losses)


def as_bitmaps(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample of Detectron2's with its masks as INPUT.MASK_FORMAT bitmask gives them."""
    from detectron2.structures import BitMasks

    height, width = sample["image"].shape[1:]
    truth = sample["instances"]
    truth.gt_masks = BitMasks.from_polygon_masks(truth.gt_masks, height, width)
    return sample


def _detections(i: int, instances: dict[str, Any]) -> dict[str, np.ndarray]:
    names = ("pred_boxes", "scores", "pred_classes", "pred_masks", "pred_keypoints")
    return {f"detections/{i}/{name}": instances[name].numpy() for name in names if name in instances}


def _gradients(model: nn.Module, losses: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    sum(losses.values()).backward()
    found = {f"loss/{name}": value.detach().double().numpy() for name, value in losses.items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient/{name}"] = parameter.grad.double().norm().numpy()
    return found


def check(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Fail where boxes or keypoints differ by 1e-2 px, scores by 1e-4, masks by a pixel in a thousand, losses by 1e-4
    or gradients by 1e-3 of their size."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    largest = max(float(value) for name, value in theirs.items() if name.startswith("gradient/"))
    for name, value in ours.items():
        kind, other = name.rpartition("/")[2], theirs[name]
        if name.startswith("loss/"):
            np.testing.assert_allclose(value, other, rtol=1e-4, atol=0, err_msg=name)
        elif name.startswith("gradient/"):
            np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-6 * largest, err_msg=name)
        elif kind == "pred_classes":
            assert len(other) and (value == other).all(), name
        elif kind == "pred_masks":
            assert other.sum() > 1000 and (value != other).sum() <= 1e-3 * other.sum(), name
        elif kind == "pred_keypoints":
            assert len(other), name
            np.testing.assert_allclose(value[..., :2], other[..., :2], rtol=0, atol=1e-2, err_msg=name)
            # Unlike a detection's, a keypoint's score may be above 1: 9.4 here.
            np.testing.assert_allclose(value[..., 2], other[..., 2], rtol=1e-4, atol=1e-4, err_msg=name)
        else:
            np.testing.assert_allclose(value, other, rtol=0, atol=1e-4 if kind == "scores" else 1e-2, err_msg=name)


def read_golden(name: str) -> dict[str, np.ndarray]:
    """What Detectron2 computed for a case."""
    with np.load(FOLDER / f"roi_heads_{name}.npz") as file:
        found = {key: value for key, value in file.items() if key not in ("made_with", "names", "norms")}
        found |= {f"gradient/{name}": norm for name, norm in zip(file["names"], file["norms"], strict=True)}
    for key in [key for key in found if key.endswith("/mask_shape")]:
        shape, masks = found.pop(key), key.replace("mask_shape", "pred_masks")
        found[masks] = np.unpackbits(found[masks])[: shape.prod()].reshape(shape).astype(bool)
    return found


def main() -> None:
    """Write the golden files."""
    import detectron2

    commit, *names = sys.argv[1:]
    for name in names or CASES:
        found = their_numbers(CASES[name])
        for key in [key for key in found if key.endswith("/pred_masks")]:
            found[key.replace("pred_masks", "mask_shape")] = np.array(found[key].shape)
            found[key] = np.packbits(found[key])
        gradients = {key.partition("/")[2]: found.pop(key) for key in list(found) if key.startswith("gradient/")}
        found |= {"names": np.array(list(gradients)), "norms": np.array(list(gradients.values()))}
        found["made_with"] = np.array(f"Detectron2 {detectron2.__version__} ({commit}), PyTorch {torch.__version__}")
        path = FOLDER / f"roi_heads_{name}.npz"
        np.savez_compressed(path, **found)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
