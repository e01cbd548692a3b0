"""Fast R-CNN: proposals come with the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..known_weights import SAMPLE_ALL, samples
from .family import GATES, PADDINGS, SLIM_TRUNK, Family


def with_proposals() -> list[dict[str, Any]]:
    """The known images, with boxes drawn at random, best first."""
    found, random = samples(), np.random.RandomState(3)
    for sample in found:
        height, width = sample["image"].shape[-2:]
        corners = random.uniform(0, 1, (60, 2, 2)) * [width, height]
        boxes = np.concatenate([corners.min(1), corners.max(1) + 4], 1).clip(0, [width, height] * 2)
        sample["proposals"] = {
            "proposal_boxes": torch.from_numpy(boxes.astype(np.float32)),
            "objectness_logits": torch.linspace(2, -2, 60),
        }
    return found


FAMILY = Family(
    config="configs/faster_rcnn_r50_fpn.yaml",
    keys=[*SLIM_TRUNK, *SAMPLE_ALL, "MODEL.ROI_HEADS.NUM_CLASSES", 5, "MODEL.MASK_ON", True,
          "MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32, "TEST.DETECTIONS_PER_IMAGE", 30,
          "MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3"],  # on which the known images have boxes
          "MODEL.LOAD_PROPOSALS", True, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"],
    axes=[GATES, PADDINGS, [["MODEL.MASK_ON", value] for value in (True, False)]],
    samples=with_proposals,
    golden={"se": ["MODEL.GATE.NAME", "se"]},
)  # fmt: skip
