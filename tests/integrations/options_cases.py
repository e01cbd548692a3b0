"""Inputs on which training's and inference's options are compared with Detectron2, and what each of the two computes.

`python tests/integrations/options_cases.py <commit of the installed Detectron2>` writes
tests/detection/golden/options.npz; it needs Detectron2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from se_det.config import load_config
from se_det.detection.box_head import BoxPredictor
from se_det.detection.box_loss import BOX_LOSSES, box_loss
from se_det.detection.build import build_detector
from se_det.evaluation.test_time_augmentation import build_augmented_inference
from tests.integrations.known_weights import SLIM, fill, image

GOLDEN = Path(__file__).resolve().parents[1] / "detection" / "golden" / "options.npz"
CLASSES, BOXES, WIDTH, SEED = 7, 40, 16, 11
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
COUNTS = (3, 700, 90, 1, 45, 12, 250)  # images that have each class
POWER, FEDERATED = 0.5, 5
AUGMENTED = [
    *SLIM, "MODEL.GATE.NAME", "none", "TEST.DETECTIONS_PER_IMAGE", 30, "TEST.AUG.ENABLED", True,
    "TEST.AUG.MIN_SIZES", (96, 120, 150), "TEST.AUG.MAX_SIZE", 200,
]  # fmt: skip
# (sigmoid, federated) of the predictor's cases.
PREDICTORS = {"softmax": (False, False), "sigmoid": (True, False), "federated": (True, True)}


def inputs() -> dict[str, torch.Tensor]:
    """Features, boxes with their truth and classes (the last is background), logits and deltas of anchors."""
    random = np.random.RandomState(5)
    corner, sides = random.uniform(0, 200, (BOXES, 2)), random.uniform(8, 120, (BOXES, 2))
    boxes = np.concatenate([corner, corner + sides], 1)
    shift = random.uniform(-0.3, 0.3, (BOXES, 4)) * np.tile(sides, 2)
    return {
        "features": torch.from_numpy(random.standard_normal((BOXES, WIDTH))).float(),
        "boxes": torch.from_numpy(boxes).float(),
        "truth": torch.from_numpy(boxes + shift).float(),
        "classes": torch.from_numpy(random.choice([0, 1, 4, CLASSES], BOXES)),
        "deltas": torch.from_numpy(0.4 * random.standard_normal((BOXES, 4))).float(),
    }


def class_weights() -> torch.Tensor:
    return torch.tensor(COUNTS).float() ** POWER


def our_box_losses() -> dict[str, np.ndarray]:
    """The sum of each loss over all boxes, and its gradient with respect to the deltas."""
    given, found = inputs(), {}
    for kind in BOX_LOSSES:
        deltas = given["deltas"].clone().requires_grad_()
        loss = box_loss(deltas, given["boxes"], given["truth"], weights=BOX_WEIGHTS, kind=kind, beta=0.3).sum()
        loss.backward()
        found |= {f"{kind}/loss": loss.detach().numpy(), f"{kind}/gradient": deltas.grad.numpy()}
    return found


def our_predictor_losses() -> dict[str, np.ndarray]:
    """Losses of the second stage and the gradients of its two layers, for each way to classify and a loss of boxes."""
    found = {}
    for (name, (sigmoid, federated)), kind in zip(PREDICTORS.items(), ("giou", "diou", "ciou"), strict=True):
        predictor = BoxPredictor(
            in_features=WIDTH, num_classes=CLASSES, box_weights=BOX_WEIGHTS, box_loss_type=kind, box_loss_weight=2.0,
            sigmoid=sigmoid, federated=FEDERATED if federated else 0,
        )  # fmt: skip
        fill(predictor)
        if federated:
            predictor.fed_loss_cls_weights.copy_(class_weights())
        given = inputs()
        torch.manual_seed(SEED)
        losses = predictor.losses(*predictor(given["features"]), given["boxes"], given["classes"], given["truth"])
        found |= _numbers(name, predictor, losses)
        with torch.no_grad():
            scores = predictor.probabilities(predictor(given["features"])[0])
        found[f"{name}/probabilities"] = scores.numpy()
    return found


def _numbers(name: str, predictor: torch.nn.Module, losses: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    sum(losses.values()).backward()
    found = {f"{name}/{key}": value.detach().numpy() for key, value in losses.items()}
    return found | {f"{name}/{key}": p.grad.numpy() for key, p in predictor.named_parameters()}


def views_sample() -> dict[str, Any]:
    """An image as it is tested, of a larger original."""
    return {"image": image(110, 140, 4), "height": 165, "width": 210, "image_id": 1}


def our_augmented(config: str = "configs/mask_rcnn_r50_fpn.yaml", keys: Sequence[Any] = ()) -> dict[str, np.ndarray]:
    """Detections under test-time augmentation."""
    cfg = load_config(config, [*AUGMENTED, *keys])
    model = fill(build_detector(cfg)).eval()
    [found] = build_augmented_inference(cfg, model)([views_sample()])
    from se_det.detection.rcnn import paste_detections

    found = paste_detections(found["instances"])
    return {
        "views/boxes": found["pred_boxes"].numpy(), "views/scores": found["scores"].numpy(),
        "views/classes": found["pred_classes"].numpy(), "views/masks": found["pred_masks"].numpy(),
    }  # fmt: skip


def their_box_losses() -> dict[str, np.ndarray]:
    """`our_box_losses` by Detectron2."""
    from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss

    given, found = inputs(), {}
    for kind in BOX_LOSSES:
        deltas = given["deltas"].clone().requires_grad_()
        loss = _dense_box_regression_loss(
            [given["boxes"]], Box2BoxTransform(weights=BOX_WEIGHTS), [deltas[None]], [given["truth"]], ..., kind, 0.3
        )
        loss.backward()
        found |= {f"{kind}/loss": loss.detach().numpy(), f"{kind}/gradient": deltas.grad.numpy()}
    return found


def their_predictor_losses() -> dict[str, np.ndarray]:
    """`our_predictor_losses` by Detectron2."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    found = {}
    for (name, (sigmoid, federated)), kind in zip(PREDICTORS.items(), ("giou", "diou", "ciou"), strict=True):
        predictor = FastRCNNOutputLayers(
            ShapeSpec(channels=WIDTH), box2box_transform=Box2BoxTransform(weights=BOX_WEIGHTS), num_classes=CLASSES,
            box_reg_loss_type=kind, loss_weight={"loss_box_reg": 2.0}, use_sigmoid_ce=sigmoid, use_fed_loss=federated,
            get_fed_loss_cls_weights=class_weights, fed_loss_num_classes=FEDERATED,
        )  # fmt: skip
        fill(predictor)
        if federated:
            predictor.fed_loss_cls_weights.copy_(class_weights())
        given = inputs()
        sampled = Instances((400, 400))
        sampled.proposal_boxes, sampled.gt_boxes = Boxes(given["boxes"]), Boxes(given["truth"])
        sampled.gt_classes = given["classes"]
        torch.manual_seed(SEED)
        with EventStorage():
            losses = predictor.losses(predictor(given["features"]), [sampled])
        found |= _numbers(name, predictor, losses)
        with torch.no_grad():
            [scores] = predictor.predict_probs(predictor(given["features"]), [sampled])
        found[f"{name}/probabilities"] = scores.numpy()
    return found


def their_augmented(
    config: str = "configs/mask_rcnn_r50_fpn.yaml", more: Sequence[Any] = ()
) -> dict[str, np.ndarray]:  # fmt: skip
    """`our_augmented` by Detectron2, its ResNet too."""
    from detectron2.modeling import GeneralizedRCNNWithTTA

    from se_det.integrations.detectron2_engine import default_config
    from se_det.integrations.detectron2_peer import build_peer

    keys = [*AUGMENTED, *more, "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"]
    ours = fill(build_detector(load_config(config, [*AUGMENTED, *more])))
    model = build_peer(config, keys, ours.state_dict()).eval()
    cfg = load_config(config, keys, defaults=default_config())
    with torch.no_grad():
        [found] = GeneralizedRCNNWithTTA(cfg, model)([views_sample()])
    found = found["instances"]
    return {
        "views/boxes": found.pred_boxes.tensor.numpy(), "views/scores": found.scores.numpy(),
        "views/classes": found.pred_classes.numpy(), "views/masks": found.pred_masks.numpy(),
    }  # fmt: skip


def check_losses(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Fail where a loss or a gradient differs by more than 1e-5 of its size."""
    assert ours.keys() <= theirs.keys() and ours
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-5 * np.abs(theirs[name]).max(), err_msg=name)


def check_augmented(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Fail where boxes differ by 1e-2 px, scores by 1e-4, or a mask's IoU is below 0.999."""
    np.testing.assert_array_equal(ours["views/classes"], theirs["views/classes"])
    np.testing.assert_allclose(ours["views/scores"], theirs["views/scores"], atol=1e-4)
    np.testing.assert_allclose(ours["views/boxes"], theirs["views/boxes"], atol=1e-2)
    one, other = ours["views/masks"], theirs["views/masks"]
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    assert either.sum() > 1000 and (both >= 0.999 * either).all(), both / np.maximum(either, 1)


def main() -> None:
    """Write the golden file."""
    import detectron2

    [commit] = sys.argv[1:]
    found = their_box_losses() | their_predictor_losses() | their_augmented()
    masks = found.pop("views/masks")
    found |= {"views/masks": np.packbits(masks), "views/mask_shape": np.array(masks.shape)}
    found["made_with"] = np.array(f"Detectron2 {detectron2.__version__} ({commit}), PyTorch {torch.__version__}")
    np.savez_compressed(GOLDEN, **found)
    print(GOLDEN.stat().st_size)


if __name__ == "__main__":
    main()
