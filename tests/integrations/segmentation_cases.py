"""Inputs on which semantic and panoptic models are compared with Detectron2, and what each of the two computes.

`python tests/integrations/segmentation_cases.py <commit of the installed Detectron2>` writes
tests/detection/golden/segmentation.npz; it needs Detectron2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from se_det.config import load_config
from se_det.detection.architectures.panoptic_fpn import combine_segments
from se_det.detection.build import build_detector
from tests.integrations.known_weights import SAMPLE_ALL, SLIM, fill, samples

GOLDEN = Path(__file__).resolve().parents[1] / "detection" / "golden" / "segmentation.npz"
CLASSES, IGNORE = 6, 255
KEYS = [
    *SLIM, *SAMPLE_ALL, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", CLASSES, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 200, "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.3,
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 0.7, "TEST.DETECTIONS_PER_IMAGE", 30,
]  # fmt: skip
# By name: the config, and keys besides. `padded` images are of different sizes and results of another one.
CASES = {
    "semantic": ("configs/semantic_fpn_r50_fpn.yaml", ["MODEL.GATE.NAME", "none"]),
    "semantic_se": ("configs/semantic_fpn_se_r50_fpn.yaml", []),
    "panoptic": ("configs/panoptic_fpn_r50_fpn.yaml", ["MODEL.GATE.NAME", "none"]),
    "panoptic_rg_se": ("configs/panoptic_fpn_rg_se_r50_fpn.yaml", []),
}
IN_FILE = ("semantic", "panoptic_rg_se")
# Gradients that the golden file keeps: one of each part.
KEPT = (
    "backbone.bottom_up.res2.0.conv1.weight", "backbone.fpn_lateral2.weight",
    "sem_seg_head.p3.0.norm.weight", "sem_seg_head.predictor.weight",
    "sem_seg_head.predictor.bias", "roi_heads.mask_head.predictor.bias", "roi_heads.box_predictor.cls_score.bias",
)  # fmt: skip


def inputs() -> list[dict[str, Any]]:
    """Two images of different sizes with labels of their pixels, some of which have none."""
    found = samples()
    random = np.random.RandomState(8)
    for sample in found:
        height, width = sample["image"].shape[-2:]
        coarse = random.randint(0, CLASSES, (height // 16, width // 16))
        labels = np.kron(coarse, np.ones((16, 16), int))
        labels[: height // 5, width // 2 :] = IGNORE
        sample["sem_seg"] = torch.from_numpy(labels.astype(np.uint8))
        sample["height"], sample["width"] = height + 13, width - 9
    return found


def ours(case: str) -> dict[str, np.ndarray]:
    """Losses, gradients, logits and segments of our model."""
    config, keys = CASES[case]
    model = fill(build_detector(load_config(config, [*KEYS, *keys])))
    return _numbers(case, model, model.train()(inputs()), lambda: model.eval()(inputs()))


def theirs(case: str) -> dict[str, np.ndarray]:
    """The same of Detectron2's, with the gated ResNet where the case has gates, else with its own."""
    from detectron2.utils.events import EventStorage

    from se_det.integrations.detectron2_peer import build_peer, to_detectron2

    config, keys = CASES[case]
    state = fill(build_detector(load_config(config, [*KEYS, *keys]))).state_dict()
    own = ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"] if "none" in keys else []
    model = build_peer(config, [*KEYS, *keys, *own], state)

    def given() -> list[dict[str, Any]]:
        return [{**to_detectron2(s), "sem_seg": s["sem_seg"].long()} for s in inputs()]

    with EventStorage():
        losses = model.train()(given())
    return _numbers(case, model, losses, lambda: model.eval()(_tested(given())))


def _tested(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in sample.items() if key != "sem_seg"} for sample in given]


def _numbers(case: str, model: nn.Module, losses: dict[str, torch.Tensor], infer: Any) -> dict[str, np.ndarray]:
    sum(losses.values()).backward()
    found = {f"{case}/{name}": value.detach().numpy() for name, value in losses.items()}
    found |= {f"{case}/gradient/{name}": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        results = infer()
    for number, result in enumerate(results):
        found[f"{case}/{number}/sem_seg"] = result["sem_seg"].numpy()
        if "panoptic_seg" in result:
            segments, infos = result["panoptic_seg"]
            found[f"{case}/{number}/segments"] = segments.numpy()
            found[f"{case}/{number}/infos"] = np.array(
                [[i["id"], i["isthing"], i["category_id"], i.get("instance_id", -1), i.get("area", -1)] for i in infos]
            )
            found[f"{case}/{number}/scores"] = np.array([i.get("score", 0.0) for i in infos])
    return found


def combining() -> dict[str, Any]:
    """Instances that overlap a little and too much, are too faint and empty, and regions of stuff, one too small."""
    labels = torch.zeros(60, 80, dtype=torch.int64)
    labels[30:], labels[:8, :8], labels[10:13, 40:43] = 2, 3, 4
    masks = torch.zeros(6, 60, 80, dtype=torch.bool)
    masks[0, 5:25, 5:35], masks[1, 10:30, 30:60], masks[2, 6:20, 10:30] = True, True, True
    masks[4, 40:55, 50:79], masks[5, 0:50, 60:80] = True, True
    return {
        "masks": masks,
        "scores": torch.tensor([0.9, 0.95, 0.85, 0.8, 0.7, 0.4]),
        "classes": torch.tensor([1, 0, 1, 2, 3, 4]),
        "labels": labels,
    }


def our_combination() -> dict[str, np.ndarray]:
    segments, infos = combine_segments(
        **combining(), overlap_threshold=0.5, stuff_area_limit=50, score_threshold=0.5
    )  # fmt: skip
    return {"combined/segments": segments.numpy(), "combined/infos": _listed(infos)}


def their_combination() -> dict[str, np.ndarray]:
    from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
    from detectron2.structures import Instances

    given = combining()
    instances = Instances((60, 80), pred_masks=given["masks"], scores=given["scores"], pred_classes=given["classes"])
    segments, infos = combine_semantic_and_instance_outputs(instances, given["labels"], 0.5, 50, 0.5)
    return {"combined/segments": segments.numpy(), "combined/infos": _listed(infos)}


def _listed(infos: list[dict[str, Any]]) -> np.ndarray:
    return np.array(
        [[i["id"], i["isthing"], i["category_id"], i.get("instance_id", -1), i.get("area", -1)] for i in infos]
    )


def check(found: dict[str, np.ndarray], golden: dict[str, np.ndarray], case: str) -> None:
    """Fail where losses or logits differ by more than 1e-4, gradients by 1e-3 of their size, or segments at all."""
    names = [name for name in golden if name.startswith(f"{case}/")]
    assert names
    for name in names:
        one, other = found[name], golden[name]
        if "/gradient/" in name:
            assert np.abs(one - other).max() <= 1e-3 * np.abs(other).max(), name
        elif name.endswith(("/segments", "/infos")):
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            scale = max(1.0, float(np.abs(other).max()))
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


def thinned(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the golden file keeps of it."""
    found = {name: value for name, value in found.items() if "/gradient/" not in name or name.split("/")[-1] in KEPT}
    for name in found:
        if name.endswith("/sem_seg"):
            found[name] = found[name][:, ::13, ::13]
        elif name.endswith("/segments"):
            found[name] = found[name][::3, ::3].astype(np.uint8)
    return found


def main() -> None:
    """Write the golden file."""
    import detectron2

    [commit] = sys.argv[1:]
    found = their_combination()
    for case in IN_FILE:
        found |= thinned(theirs(case))
    found["made_with"] = np.array(f"Detectron2 {detectron2.__version__} ({commit}), PyTorch {torch.__version__}")
    np.savez_compressed(GOLDEN, **found)
    print(GOLDEN.stat().st_size)


if __name__ == "__main__":
    main()
