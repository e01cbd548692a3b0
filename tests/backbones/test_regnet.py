"""RegNets: widths, torchvision's outputs on the same weights, and where gates are."""

from __future__ import annotations

import pytest
import torch
import torchvision

from se_det.backbones import create_backbone, create_model
from se_det.backbones.catalog import REGNET_X, REGNET_Y
from se_det.backbones.regnet import stage_widths
from se_det.errors import ConfigError
from se_det.weights import load_weights
from se_det.weights.conversion import convert, write_weights
from tests.weights.family_cases import with_random_statistics

# (blocks, channels) of each stage, as pycls's model zoo lists them.
PUBLISHED = {
    "x400mf": [(1, 32), (2, 64), (7, 160), (12, 384)], "x800mf": [(1, 64), (3, 128), (7, 288), (5, 672)],
    "x4gf": [(2, 80), (5, 240), (14, 560), (2, 1360)], "y400mf": [(1, 48), (3, 104), (6, 208), (6, 440)],
    "y800mf": [(1, 64), (3, 128), (8, 320), (2, 768)], "y4gf": [(2, 128), (6, 192), (12, 512), (2, 1088)],
}  # fmt: skip


def test_widths_are_the_published_ones():
    found = {f"{kind}{size}": [(n, width) for n, width, _ in stage_widths(**arguments)]
             for kind, table in (("x", REGNET_X), ("y", REGNET_Y)) for size, arguments in table.items()}  # fmt: skip
    assert found == PUBLISHED


@pytest.mark.parametrize("name", ["regnet_y_400mf", "regnet_x_800mf"])
def test_outputs_are_torchvisions(name, tmp_path):
    theirs = with_random_statistics(getattr(torchvision.models, name)(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = create_model(name.replace("t_", "t")).eval()
    report = load_weights(ours, tmp_path / "theirs.pth", strict=True)
    assert report.missing == report.unexpected == [] and "torchvision_regnet" in report.source
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).abs().max() / expected.abs().max() < 1e-5
    # To Detectron2's names and back, bit for bit.
    there, back = tmp_path / "detectron2.pth", tmp_path / "back.pth"
    write_weights(there, convert(tmp_path / "theirs.pth", to="detectron2_regnet"))
    assert "s1.b1.f.a_bn.weight" in torch.load(there)["model"]
    write_weights(back, convert(there, to="torchvision_regnet"))
    found = torch.load(back)["model"]
    assert all(torch.equal(tensor, found[key]) for key, tensor in theirs.state_dict().items())


def test_a_gate_is_where_the_host_has_it(tmp_path):
    with torch.device("meta"):
        trunks = {name: create_backbone(name) for name in ("rg_se_regnety_400mf", "rg_se_regnetx_400mf")}
    widths = {name: (trunk.res3[0].gate.fc1.in_features, trunk.res3[0].gate.hidden) for name, trunk in trunks.items()}
    # Inside, of a quarter of the 48 channels that the block reads; on the branch, 64 channels by MODEL.GATE.REDUCTION.
    assert widths == {"rg_se_regnety_400mf": (104, 12), "rg_se_regnetx_400mf": (64, 4)}
    with pytest.raises(ConfigError, match="MODEL.GATE.REDUCTION is 8, and a RegNetY's gates have a quarter"):
        create_backbone("regnety_400mf", reduction=8)
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    for host, plain in (("regnetx_400mf", {}), ("regnety_400mf", {"gate": "none"})):
        ungated = with_random_statistics(create_backbone(host, **plain))
        torch.save(ungated.state_dict(), tmp_path / "plain.pth")
        gated = create_backbone(f"rg_se_{host}").eval()
        assert len(load_weights(gated, tmp_path / "plain.pth").fresh_gates) == len(gated.blocks())
        with torch.no_grad():
            for name, expected in ungated(x).items():
                assert (gated(x)[name] - expected).abs().max() / expected.abs().max() < 1e-5


def test_exact_padding():
    """The features of an image in a padded batch are those that it has alone."""
    torch.manual_seed(0)
    trunk = with_random_statistics(create_backbone("regnety_400mf", padding="exact"))
    alone, batch = torch.randn(1, 3, 78, 101), torch.zeros(1, 3, 96, 128)
    batch[..., :78, :101] = alone
    with torch.no_grad():
        expected, found = trunk(alone, [(78, 101)]), trunk(batch, [(78, 101)])
    for name, x in expected.items():
        assert (found[name][..., : x.shape[2], : x.shape[3]] - x).abs().max() / x.abs().max() < 1e-5, name
