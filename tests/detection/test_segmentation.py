"""The models that label pixels: shapes aside, padding, fusing, precision, losses and how segments are combined."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from se_det.config import load_config
from se_det.detection.architectures.panoptic_fpn import combine_segments
from se_det.detection.build import build_detector
from se_det.detection.fuse import prepare_for_inference
from se_det.detection.sem_seg_head import SemSegFPNHead
from se_det.errors import ConfigError

from .conftest import SMALL, make_sample

GATES = ["none", "se", "sp_se", "rg_se", "cbam"]


def model_of(kind: str, gate: str = "se", *overrides, norm: str = "GN"):
    torch.manual_seed(3)
    keys = [*SMALL, "MODEL.RESNETS.NORM", norm, "MODEL.GATE.NAME", gate, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4,
            "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, *overrides]  # fmt: skip
    cfg = load_config("configs/mask_rcnn_se_r18_fpn.yaml", keys)
    cfg.MODEL.META_ARCHITECTURE = kind
    return build_detector(cfg)


def labelled(sample, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = sample["image"].shape[-2:]
    labels = torch.randint(0, 4, size, generator=generator, dtype=torch.uint8)
    labels[:5] = 255
    return {**sample, "sem_seg": labels}


@pytest.mark.parametrize("gate", GATES)
def test_under_exact_padding_batch_mates_change_no_logit(gate):
    small, large = make_sample(90, 123, [], seed=1), make_sample(160, 150, [], seed=2)
    model = model_of("SemanticSegmentor", gate, "MODEL.GATE.PADDING", "exact").eval()
    with torch.no_grad():
        alone, beside = model([small])[0]["sem_seg"], model([small, large])[0]["sem_seg"]
        model.backbone.size_divisibility = 0
        unpadded = model([small])[0]["sem_seg"]
        kept = model_of("SemanticSegmentor", gate).eval()
        difference = (kept([small])[0]["sem_seg"] - kept([small, large])[0]["sem_seg"]).abs().max()
    assert alone.shape == (4, 90, 123) and alone.std() > 0.1
    torch.testing.assert_close(beside, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unpadded, alone, atol=1e-4, rtol=1e-4)
    assert difference > 1e-4  # under "keep" they do


@pytest.mark.parametrize("gate", ["se", "rg_se"])
def test_squeezed_gates_leave_an_image_without_padding_as_it_is(gate):
    sample = make_sample(96, 128, [])
    with torch.no_grad():
        one, other = (
            model_of("SemanticSegmentor", gate, "MODEL.GATE.PADDING", padding).eval()([sample])[0]["sem_seg"]
            for padding in ("keep", "squeeze")
        )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["SemanticSegmentor", "PanopticFPN"])
@pytest.mark.parametrize("norm", ["GN", "BN", ""])
def test_prepared_models_give_the_same(kind, norm):
    model = model_of(kind, "se", "MODEL.SEM_SEG_HEAD.NORM", norm, norm="BN").eval()
    sample = {**make_sample(90, 123, [], seed=1), "height": 130, "width": 180}
    with torch.no_grad():
        expected = model([sample])[0]["sem_seg"]
        fused = prepare_for_inference(copy.deepcopy(model)).detect([sample])[0]["sem_seg"]
        halved = prepare_for_inference(copy.deepcopy(model), precision="bfloat16").detect([sample])[0]["sem_seg"]
    scale = expected.abs().max()
    assert expected.shape == (4, 130, 180) and halved.dtype == torch.float32
    assert (fused - expected).abs().max() < 1e-3 * scale
    assert (halved - expected).abs().mean() < 0.03 * scale


@pytest.mark.parametrize("gate", GATES)
def test_a_training_step_reaches_every_parameter(gate):
    samples = [
        labelled(make_sample(64, 96, [[5, 5, 40, 30], [30, 20, 90, 60]])), labelled(make_sample(80, 64, []), seed=1),
    ]  # fmt: skip
    model = model_of("PanopticFPN", gate)
    losses = model(samples)
    assert set(losses) == {"loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_instances_of_a_panoptic_model_may_come_from_a_cascade():
    samples = [labelled(make_sample(64, 96, [[5, 5, 40, 30], [30, 20, 90, 60]]))]
    cascade = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    model = model_of("PanopticFPN", "se", *cascade, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50)
    losses = model(samples)
    assert {f"loss_cls_stage{stage}" for stage in range(3)} < set(losses)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_the_loss_is_the_mean_over_labelled_pixels():
    head = SemSegFPNHead(in_features={"p2": (32, 4)}, num_classes=3, conv_dims=32, loss_weight=0.5)
    logits = torch.randn(2, 3, 16, 16)
    labels = [torch.randint(0, 3, (12, 16)), torch.full((16, 10), 255)]
    labels[0][0] = 255
    expected = 0.5 * F.cross_entropy(logits[0, :, 1:12].flatten(1).T, labels[0][1:].flatten())
    torch.testing.assert_close(head.loss(logits, labels)["loss_sem_seg"], expected)
    nothing = head.loss(logits.requires_grad_(), [torch.full((16, 16), 255)] * 2)["loss_sem_seg"]
    nothing.backward()
    assert nothing == 0 and logits.grad.abs().max() == 0


def test_maps_that_cannot_be_brought_to_the_stride_are_refused():
    with pytest.raises(ConfigError, match="COMMON_STRIDE 8 times a power of two"):
        SemSegFPNHead(in_features={"p2": (32, 4), "p3": (32, 8)}, num_classes=3, common_stride=8)
    with pytest.raises(ConfigError, match=r"IN_FEATURES \['p9'\] must name maps"):
        model_of("SemanticSegmentor", "se", "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p9"])
    with pytest.raises(ConfigError, match="MODEL.MASK_ON is False"):
        model_of("PanopticFPN", "se", "MODEL.MASK_ON", False)
    with pytest.raises(ConfigError, match="semantic head"):
        model_of("SemanticSegmentor", "se", "MODEL.SEM_SEG_HEAD.NAME", "NoSuchHead")


def test_nothing_found_is_an_empty_map():
    segments, infos = combine_segments(
        torch.zeros(0, 6, 7, dtype=torch.bool), torch.zeros(0), torch.zeros(0, dtype=torch.int64),
        torch.zeros(6, 7, dtype=torch.int64), overlap_threshold=0.5, stuff_area_limit=1, score_threshold=0.5,
    )  # fmt: skip
    assert segments.shape == (6, 7) and segments.dtype == torch.int32 and not segments.any() and infos == []
