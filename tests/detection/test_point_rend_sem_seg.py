"""PointRend for classes of pixels; its numbers beside Detectron2's are in tests/integrations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from se_det.config import load_config
from se_det.detection.build import build_detector
from se_det.detection.point_rend_sem_seg import uncertainty
from se_det.errors import ConfigError
from tests.integrations.known_weights import SLIM

KEYS = [*SLIM, "MODEL.GATE.NAME", "se", "MODEL.SEM_SEG_HEAD.NAME", "PointRendSemSegHead",
        "MODEL.SEM_SEG_HEAD.CONVS_DIM",
        32, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.POINT_HEAD.SUBDIVISION_STEPS", 2, "MODEL.POINT_HEAD.FC_DIM", 16,
        "MODEL.POINT_HEAD.TRAIN_NUM_POINTS", 40, "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS", 50]  # fmt: skip


def test_only_the_least_certain_cells_are_looked_at_anew():
    torch.manual_seed(0)
    head = build_detector(load_config("configs/semantic_fpn_r50_fpn.yaml", KEYS)).sem_seg_head.eval()
    maps = {f"p{level}": torch.randn(2, 32, 64 >> level, 96 >> level) for level in (2, 3, 4, 5)}
    head.subdivisions = 1
    with torch.no_grad():
        torch.nn.init.normal_(head.point_head.predictor.weight)
        coarse = head.coarse_sem_seg_head.coarse(maps, dict.fromkeys(maps))
        doubled = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        found = head(maps, dict.fromkeys(maps))
    changed = (found != doubled).any(1).flatten(1)
    assert changed.sum(1).tolist() == [50, 50]
    doubt = uncertainty(doubled.flatten(2))
    for image in range(2):
        assert doubt[image][changed[image]].min() >= doubt[image][~changed[image]].max()


def test_both_parts_learn_and_what_cannot_be_is_said():
    torch.manual_seed(0)
    model = build_detector(load_config("configs/semantic_fpn_r50_fpn.yaml", KEYS))
    labels = torch.randint(0, 5, (64, 64))
    losses = model([{"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), "sem_seg": labels}])
    assert losses.keys() == {"loss_sem_seg", "loss_sem_seg_point"}
    sum(losses.values()).backward()
    head = model.sem_seg_head
    for part in (head.point_head, head.coarse_sem_seg_head, model.backbone.fpn_output2):
        assert all(p.grad.abs().sum() > 0 for name, p in part.named_parameters() if name.endswith("weight"))
    for keys, sentence in (
        (["MODEL.POINT_HEAD.SUBDIVISION_STEPS", 3], "SUBDIVISION_STEPS 3 doublings do not bring"),
        (["MODEL.GATE.PADDING", "exact"], "MODEL.GATE.PADDING exact does not reach the points"),
        (["MODEL.POINT_HEAD.IN_FEATURES", ["p9"]], "must name maps of the backbone"),
        (["MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK", True], "CLS_AGNOSTIC_MASK is True"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            build_detector(load_config("configs/semantic_fpn_r50_fpn.yaml", [*KEYS, *keys]))
