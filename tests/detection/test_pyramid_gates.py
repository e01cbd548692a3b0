"""MODEL.GATE.FPN: gates on the pyramid's outputs."""

import copy

import pytest
import torch

from se_det.backbones.trunk import image_area
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.detection.fuse import prepare_for_inference
from se_det.errors import ConfigError

GATES = ("se", "sp_se", "rg_se", "cbam")


def detector(gate, *more):
    torch.manual_seed(0)
    keys = ["MODEL.GATE.NAME", gate, "MODEL.GATE.FPN", True, "MODEL.MASK_ON", False, "MODEL.DEVICE", "cpu", *more]
    return build_detector(load_config("quickstart.yaml", keys)).eval()


@pytest.mark.parametrize("gate", GATES)
def test_each_output_is_gated_and_p6_is_of_the_gated_p5(gate):
    backbone = detector(gate).backbone
    plain = copy.deepcopy(backbone)
    plain.gated = False
    x = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        gated, without = backbone(x), plain(x)
        for level in (2, 3, 4, 5):
            expected = getattr(backbone, f"fpn_gate{level}")(without[f"p{level}"])
            assert torch.equal(gated[f"p{level}"], expected) and not torch.equal(expected, without[f"p{level}"])
    assert torch.equal(gated["p6"], gated["p5"][..., ::2, ::2])


def test_off_nothing_changes_and_the_pyramid_alone_may_have_them():
    off = build_detector(load_config("quickstart.yaml", ["MODEL.DEVICE", "cpu"]))
    assert not any("fpn_gate" in name for name in off.state_dict())
    alone = [name for name in detector("se", "MODEL.GATE.STAGES", []).state_dict() if "gate" in name]
    assert alone and all(".fpn_gate" in name for name in alone)


@pytest.mark.parametrize("gate", GATES)
def test_padding_exact_is_as_each_image_alone(gate):
    backbone = detector(gate, "MODEL.GATE.PADDING", "exact").backbone
    images = [torch.randn(3, 96, 64), torch.randn(3, 64, 128)]
    batch = torch.zeros(2, 3, 96, 128)
    for row, image in zip(batch, images):
        row[:, : image.shape[1], : image.shape[2]] = image
    with torch.no_grad():
        maps, _ = backbone.features(batch, image_area("exact", [tuple(i.shape[1:]) for i in images]))
        for number, image in enumerate(images):
            own = backbone(image[None], [tuple(image.shape[1:])])
            for name, expected in own.items():
                height, width = expected.shape[-2:]
                torch.testing.assert_close(maps[name][number, :, :height, :width], expected[0], atol=1e-4, rtol=1e-4)


def test_prepared_for_inference_it_computes_the_same():
    model = detector("rg_se")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before = model.backbone(x)
        after = prepare_for_inference(copy.deepcopy(model)).backbone(x)
    for name, expected in before.items():
        torch.testing.assert_close(after[name], expected, atol=1e-4, rtol=1e-3)


def test_without_a_gate_there_is_nothing_to_put_there():
    with pytest.raises(ConfigError, match=r"MODEL.GATE.FPN True .* MODEL.GATE.NAME is none"):
        detector("none")
