"""A few steps of a real detector in float64, alone or as one of several processes."""

from __future__ import annotations

import torch

from se_det import comm
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.training.distributed import wrap_distributed

EVERYTHING = [
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 100_000, "MODEL.RPN.POSITIVE_FRACTION", 1.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0,
    "MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.FPN.OUT_CHANNELS", 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1,
]  # fmt: skip
TRUTH = [[8.0, 8, 40, 44], [20, 4, 60, 30]]
PROPOSALS = [[8.0, 10, 38, 44], [18, 4, 60, 32], [0, 0, 16, 16], [30, 30, 64, 64], [10, 10, 50, 40]]


def samples(total: int) -> list[dict]:
    """Images that differ, with the same boxes: so every process has equally many positives."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[[a, b], [c, b], [c, d], [a, d]] for a, b, c, d in TRUTH], dtype=torch.float64)
    masks = {
        "polygons": corners.reshape(-1, 2),
        "polygon_points": torch.full((2,), 4),
        "polygon_owner": torch.arange(2),
        "bitmaps": torch.zeros(0, 64, 64, dtype=torch.uint8),
        "bitmap_owner": torch.zeros(0, dtype=torch.int64),
    }
    instances = {"gt_boxes": torch.tensor(TRUTH), "gt_classes": torch.arange(2), "gt_masks": masks}
    images = torch.randint(0, 256, (total, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return [{"image": image, "height": 64, "width": 64, "instances": instances} for image in images]


def train_detector(path: str, config: str, gate: str) -> None:
    """Ten steps on four images, divided among the processes; the first one writes gradients and weights to `path`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cfg = load_config(config, [*EVERYTHING, "MODEL.GATE.NAME", gate, "MODEL.RESNETS.NORM", "FrozenBN",
                               "MODEL.BACKBONE.FREEZE_AT", 0])  # fmt: skip
    model = build_detector(cfg).double()
    fixed = torch.tensor(PROPOSALS, dtype=torch.float64)
    model.proposal_generator.predict_proposals = lambda anchors, logits, deltas, sizes: [
        (fixed, fixed[:, 0]) for _ in sizes
    ]
    each = 4 // comm.get_world_size()
    mine = samples(4)[comm.get_rank() * each : (comm.get_rank() + 1) * each]
    replica = wrap_distributed(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    gradients = {}
    for step in range(10):
        optimizer.zero_grad()
        sum(replica(mine).values()).backward()
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
    if comm.is_main_process():
        torch.save({"gradients": gradients, "weights": model.state_dict()}, path)
