from __future__ import annotations

import logging

import pytest

from se_det.config.defaults import get_cfg
from se_det.errors import ConfigError
from se_det.training.config_checks import check_training

SCRATCH = {"MODEL.RESNETS.NORM": "GN", "MODEL.BACKBONE.FREEZE_AT": 0, "MODEL.DEVICE": "cpu"}
SP_BN = {**SCRATCH, "MODEL.RESNETS.NORM": "BN", "MODEL.GATE.NAME": "sp_se"}


def check(keys: dict, world_size: int = 1) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([part for pair in keys.items() for part in pair])
    check_training(cfg, world_size)


REFUSED = [
    ({}, 1, r"NORM FrozenBN and MODEL.BACKBONE.FREEZE_AT 2 .*MODEL.WEIGHTS is empty.*NORM GN \(or BN\) and "
            r"MODEL.BACKBONE.FREEZE_AT 0"),
    ({**SCRATCH, "MODEL.RESNETS.NORM": "FrozenBN"}, 1, r"^MODEL.RESNETS.NORM FrozenBN would"),
    ({**SCRATCH, "MODEL.BACKBONE.FREEZE_AT": 1}, 1, r"^MODEL.BACKBONE.FREEZE_AT 1 would"),
    ({**SCRATCH, "MODEL.GATE.NAME": "cbam", "MODEL.GATE.NORM": "FrozenBN"}, 1, r"^MODEL.GATE.NORM FrozenBN would"),
    ({**SCRATCH, "MODEL.RESNETS.NORM": "SyncBN"}, 1, r"MODEL.RESNETS.NORM SyncBN works on GPUs only"),
    ({**SCRATCH, "MODEL.FPN.NORM": "SyncBN"}, 2, r"MODEL.FPN.NORM SyncBN works on GPUs only"),
    ({**SP_BN, "SOLVER.IMS_PER_BATCH": 1}, 1, r"MODEL.GATE.NORM \(empty, so MODEL.RESNETS.NORM\) is BN and "
                                              r"MODEL.GATE.NAME is sp_se.*1 image at a time.*MODEL.GATE.NORM GN"),
    ({**SP_BN, "SOLVER.IMS_PER_BATCH": 16, "SOLVER.ACCUMULATE": 4}, 4, r"1 image at a time"),
    ({**SCRATCH, "MODEL.GATE.NAME": "rg_se", "MODEL.GATE.NORM": "BN", "SOLVER.IMS_PER_BATCH": 2}, 2,
     r"MODEL.GATE.NORM is BN and MODEL.GATE.NAME is rg_se"),
    ({**SCRATCH, "MODEL.BACKBONE.NAME": "rg_se_vgg16_bn", "MODEL.RESNETS.NORM": "BN", "SOLVER.IMS_PER_BATCH": 1}, 1,
     r"the gate of rg_se_vgg16_bn is rg_se, .*1 image at a time"),
    ({**SCRATCH, "SOLVER.IMS_PER_BATCH": 10, "SOLVER.ACCUMULATE": 2}, 2,
     r"SOLVER.IMS_PER_BATCH 10 .* 2 processes times SOLVER.ACCUMULATE 2: give a multiple of 4, such as 8"),
    ({**SCRATCH, "SOLVER.IMS_PER_BATCH": 1}, 2, r"such as 2"),
    ({**SCRATCH, "SOLVER.ACCUMULATE": 0}, 1, r"SOLVER.ACCUMULATE must be at least 1, got 0"),
    ({**SCRATCH, "SOLVER.EMA.DECAY": 1.0}, 1, r"SOLVER.EMA.DECAY must be"),
    ({**SCRATCH, "TEST.EARLY_STOP": 3}, 1, r"TEST.EARLY_STOP is 3 and TEST.EVAL_PERIOD is 0"),
    ({**SCRATCH, "SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "all"}, 1,
     r"CLIP_TYPE 'all'"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "world_size", "sentence"), REFUSED)
def test_what_cannot_train_is_refused(keys: dict, world_size: int, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check(keys, world_size)


@pytest.mark.parametrize(
    ("keys", "world_size", "warnings"),
    [
        ({"MODEL.WEIGHTS": "r50.pth"}, 1, 0),
        (SCRATCH, 1, 0),
        ({**SCRATCH, "MODEL.RESNETS.NORM": "BN", "SOLVER.IMS_PER_BATCH": 1}, 1, 0),
        ({**SCRATCH, "MODEL.GATE.NAME": "se", "MODEL.RESNETS.NORM": "BN", "SOLVER.IMS_PER_BATCH": 1}, 1, 0),
        ({**SCRATCH, "MODEL.GATE.NAME": "sp_se", "SOLVER.IMS_PER_BATCH": 1}, 1, 0),
        ({**SP_BN, "MODEL.GATE.NORM": "GN", "SOLVER.IMS_PER_BATCH": 1}, 1, 0),
        ({**SP_BN, "SOLVER.IMS_PER_BATCH": 8}, 1, 0),
        ({**SP_BN, "SOLVER.IMS_PER_BATCH": 8}, 2, 1),
        ({**SP_BN, "SOLVER.IMS_PER_BATCH": 2}, 1, 1),
        ({**SP_BN, "MODEL.DEVICE": "cuda", "MODEL.GATE.NORM": "SyncBN", "SOLVER.IMS_PER_BATCH": 8}, 8, 0),
        ({**SCRATCH, "MODEL.DEVICE": "cuda", "MODEL.RESNETS.NORM": "SyncBN"}, 1, 0),
    ],
)
def test_what_can_train_is_not(keys: dict, world_size: int, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check(keys, world_size)
    assert len(caplog.records) == warnings
