"""Every key of a weight file is accounted for, and nothing in it is executed."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from se_det.backbones import create_backbone, create_model
from se_det.config import load_config
from se_det.detection import build_detector
from se_det.errors import WeightsError
from se_det.weights import load_weights, read_weights
from se_det.weights.class_rows import ClassRows


def save(path: Path, content) -> Path:
    torch.save(content, path)
    return path


def detector(gate: str = "se", overrides: tuple = ()):
    options = ["MODEL.GATE.NAME", gate, "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "BN", *overrides]
    return build_detector(load_config("configs/faster_rcnn_se_r18_fpn.yaml", options))


def test_a_classifiers_trunk_starts_a_detector(tmp_path):
    classifier = create_model("se_resnet18", num_classes=7)
    path = save(tmp_path / "c.pth", {"model": classifier.state_dict(), "iteration": 3})
    model = detector()
    report = load_weights(model, path)
    trunk = classifier.trunk.state_dict()
    loaded = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trunk.items())
    assert len(report.loaded) == sum(not n.endswith("num_batches_tracked") for n in trunk)
    assert report.unexpected == ["linear.weight", "linear.bias"]
    assert all(not name.startswith("backbone.bottom_up") for name in report.missing) and report.missing
    assert f"{len(report.loaded)} loaded, {len(report.missing)} missing, 2 unexpected, 0 reshaped" in report.summary()


def test_a_detectors_trunk_starts_a_classifier_and_safetensors_are_read(tmp_path):
    model = detector()
    save_file(model.state_dict(), tmp_path / "d.safetensors")
    classifier = create_model("se_resnet18")
    report = load_weights(classifier, tmp_path / "d.safetensors")
    assert report.missing == ["linear.weight", "linear.bias"]
    weight = classifier.trunk.res5[1].gate.fc2.weight
    assert torch.equal(weight, model.backbone.bottom_up.res5[1].gate.fc2.weight)


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_se_weights_under_another_gate_train_the_rest_of_it(tmp_path, norm):
    path = save(tmp_path / "se.pth", {"state_dict": create_backbone("se_resnet18").state_dict()})
    frozen = ("MODEL.BACKBONE.FREEZE_AT", 2, "MODEL.GATE.NORM", norm)
    model = detector("rg_se", overrides=frozen)
    if norm == "BN":  # whose frozen copy has nothing to train
        with pytest.raises(WeightsError, match="parts of the gate of backbone.bottom_up.res2.0, .*MODEL.GATE.NORM GN"):
            load_weights(model, path, allow_partial=True)
        return
    report = load_weights(model, path, allow_partial=True)
    assert len(report.fresh_gates) == 6  # in res5 an RG gate has what an SE gate has
    trunk = model.backbone.bottom_up
    assert all(p.requires_grad for block in trunk.blocks() for p in block.gate.parameters())
    assert not any(p.requires_grad for p in trunk.res2[0].conv1.parameters())


def test_half_a_backbone_is_an_error_unless_allowed(tmp_path):
    weights = {k: v for k, v in create_backbone("se_resnet18").state_dict().items() if not k.startswith("res4")}
    path = save(tmp_path / "half.pth", weights)
    with pytest.raises(WeightsError, match=r"half.pth lacks \d+ weights of the backbone: .*res4.*--allow-partial"):
        load_weights(detector(), path)
    assert len(load_weights(detector(), path, allow_partial=True).loaded) > 50


def test_four_dimensional_gates_are_reshaped(tmp_path):
    weights = create_backbone("se_resnet18").state_dict()
    weights = {k: v[:, :, None, None] if k.endswith(("fc1.weight", "fc2.weight")) else v for k, v in weights.items()}
    report = load_weights(create_backbone("se_resnet18"), save(tmp_path / "a.pth", weights))
    assert len(report.reshaped) == 16 and not report.missing


def test_plain_weights_start_a_gated_network_whose_function_they_keep(tmp_path):
    plain = create_backbone("resnet18").eval()
    path = save(tmp_path / "plain.pth", plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    expected = plain(x)["res5"]
    for gate in ("se", "sp_se", "rg_se"):
        gated = create_backbone(f"{gate}_resnet18", norm="BN").eval()
        gated.freeze(2)
        if gate != "se":  # a frozen norm inside a gate without weights would stay as it is for ever
            with pytest.raises(WeightsError, match=r"MODEL.GATE.NORM GN .*MODEL.BACKBONE.FREEZE_AT 0"):
                load_weights(gated, path)
            gated = create_backbone(f"{gate}_resnet18", norm="BN", gate_norm="GN").eval()
            gated.freeze(2)
        report = load_weights(gated, path)
        assert len(report.fresh_gates) == 8
        assert (gated(x)["res5"] - expected).abs().max() / expected.abs().max() < 1e-5
        # Frozen blocks train their gate, and nothing else.
        trained = {n.split(".")[2] for n, p in gated.named_parameters() if n.startswith("res2") and p.requires_grad}
        assert trained == {"gate"}
    kept = create_backbone("se_resnet18").eval()
    load_weights(kept, path, gate_init="paper")
    assert (kept(x)["res5"] - expected).abs().max() / expected.abs().max() > 0.1


def test_other_classes_keep_everything_but_the_predictors(tmp_path):
    source = detector(overrides=("MODEL.ROI_HEADS.NUM_CLASSES", 5))
    path = save(tmp_path / "five.pth", source.state_dict())
    report = load_weights(detector(overrides=("MODEL.ROI_HEADS.NUM_CLASSES", 2)), path)
    assert {name.rsplit(".", 1)[0].rsplit(".", 1)[1] for name in report.resized} == {"cls_score", "bbox_pred"}
    with pytest.raises(
        WeightsError, match=r"cls_score.weight has the shape \(6, 1024\), and this network's is \(3, 1024\)"
    ):
        load_weights(detector(overrides=("MODEL.ROI_HEADS.NUM_CLASSES", 2)), path, strict=True)


def test_another_architecture_is_refused(tmp_path):
    path = save(tmp_path / "wide.pth", create_backbone("resnet50").state_dict())
    with pytest.raises(WeightsError, match="MODEL.RESNETS"):
        load_weights(create_backbone("resnet18"), path)
    with pytest.raises(WeightsError, match="none of its 2 keys"):
        load_weights(create_backbone("resnet18"), save(tmp_path / "b.pth", {"a": torch.ones(1), "b": torch.ones(1)}))


def test_averaged_weights_are_preferred(tmp_path):
    raw = create_backbone("resnet18").state_dict()
    averaged = {k: v + 1 for k, v in raw.items() if v.is_floating_point()}
    file = read_weights(save(tmp_path / "e.pth", {"model": raw, "ema": averaged}))
    assert file.averaged and torch.equal(file.tensors["res2.0.conv1.weight"], raw["res2.0.conv1.weight"] + 1)


AVERAGES = {
    "se_det": (lambda raw, mean: {"model": raw, "ema": mean}, r"averaged weights \(ema\) are taken, not the raw ones"),
    "timm": (lambda raw, mean: {"state_dict": raw, "state_dict_ema": mean}, r"\(state_dict_ema\) are taken"),
    "torchvision": (
        lambda raw, mean: {
            "model": raw,
            "model_ema": {"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in mean.items()}},
        },
        r"\(model_ema\) are taken, not the raw ones \(model\)",
    ),
    "DINO": (lambda raw, mean: {"model": raw, "ema_model": mean}, r"\(ema_model\) are taken"),
    "a callback": (lambda raw, mean: {"state_dict": raw, "ema_state_dict": mean}, r"\(ema_state_dict\) are taken"),
    "mmengine": (
        lambda raw, mean: {"state_dict": mean, "ema_state_dict": {"steps": torch.tensor(3), **raw}},
        r"state_dict holds averaged weights, as mmengine saves them",
    ),
    "averages alone": (lambda raw, mean: {"model_ema": mean, "epoch": 3}, r"averaged ones \(model_ema\)"),
    "a module's average": (
        lambda raw, mean: {"state_dict": raw | {f"ema_model.module.{k}": v for k, v in mean.items()}},
        r"averaged weights \(ema_model\.\*\) are taken, not the \d+ others",
    ),
    "AveragedModel": (
        lambda raw, mean: {"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in mean.items()}},
        None,
    ),
}


@pytest.mark.parametrize("program", AVERAGES)
def test_averaged_weights_of_other_programs_are_taken_and_told_of(tmp_path, caplog, program):
    caplog.set_level("INFO")
    wrap, told = AVERAGES[program]
    raw = create_backbone("resnet18").state_dict()
    mean = {k: v + 1 if v.is_floating_point() else v for k, v in raw.items()}
    model = create_backbone("resnet18")
    load_weights(model, save(tmp_path / "e.pth", wrap(raw, mean)))
    assert torch.equal(model.res2[0].conv1.weight, mean["res2.0.conv1.weight"])
    if told:
        assert re.search(told, caplog.text)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_of_a_quantised_network_are_refused(tmp_path, dtype):
    tensors = create_backbone("resnet18").state_dict()
    tensors["res2.0.conv1.weight"] = (tensors["res2.0.conv1.weight"] * 100).to(dtype)
    with pytest.raises(WeightsError, match=r"q.pth: res2.0.conv1.weight is of \w+: the file is of a quantised network"):
        load_weights(create_backbone("resnet18"), save(tmp_path / "q.pth", tensors))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # deprecated, and in files that there are
def test_quantised_tensors_are_refused(tmp_path):
    tensors = create_backbone("resnet18").state_dict()
    tensors["res2.0.conv1.weight"] = torch.quantize_per_tensor(tensors["res2.0.conv1.weight"], 0.1, 0, torch.qint8)
    with pytest.raises(WeightsError, match=r"q.pth.*(quantised network|asks for)"):
        load_weights(create_backbone("resnet18"), save(tmp_path / "q.pth", tensors))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_other_precisions_are_read(tmp_path, dtype):
    tensors = {
        k: v.to(dtype) if v.is_floating_point() else v for k, v in create_backbone("resnet18").state_dict().items()
    }
    model = create_backbone("resnet18")
    load_weights(model, save(tmp_path / "h.pth", tensors))
    assert torch.equal(model.res2[0].conv1.weight, tensors["res2.0.conv1.weight"].float())


@pytest.mark.parametrize("key", ["linear.weight", "trunk.res2.0.conv1.norm.running_var", "trunk.stem.conv1.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, key, value):
    tensors = create_model("resnet18", num_classes=4).state_dict()
    tensors[key].view(-1)[3] = value
    with pytest.raises(WeightsError, match=rf"n.pth: {key} has values that are not finite"):
        load_weights(create_model("resnet18", num_classes=4), save(tmp_path / "n.pth", tensors))


def classes(*names):
    return [{"id": number, "name": name} for number, name in enumerate(names)]


def test_a_classifier_takes_its_classes_by_name(tmp_path, caplog):
    caplog.set_level("INFO")
    old = create_model("resnet18", num_classes=3).state_dict()
    path = save(
        tmp_path / "c.pth", {"engine": "builtin", "model": old, "categories": classes("ash", "Elm tree", "oak")}
    )
    model = create_model("resnet18", num_classes=4)
    fresh = model.linear.weight.detach().clone()
    load_weights(model, path, class_names=["oak", "birch", "elm_tree", "ash"])
    assert torch.equal(model.linear.weight[[0, 2, 3]], old["linear.weight"][[2, 1, 0]])
    assert torch.equal(model.linear.weight[1], fresh[1])
    assert (
        "Of the 4 classes 3 keep their rows of the predictors ('oak', 'elm_tree', 'ash'), 1 start fresh" in caplog.text
    )
    other = create_model("resnet18", num_classes=3)
    fresh = other.linear.weight.detach().clone()
    load_weights(other, path, class_names=["cat", "dog", "cow"])
    assert torch.equal(other.linear.weight, fresh)  # as many, but none of them
    with pytest.raises(WeightsError, match=r"trained on other classes: it has 3 \('ash', 'Elm tree', 'oak'\), and the"):
        load_weights(other, path, class_names=["cat", "dog", "cow"], strict=True)
    load_weights(other, path, class_names=["oak", "ash", "Elm tree"], strict=True)
    assert torch.equal(other.linear.bias, old["linear.bias"][[2, 0, 1]])


def test_classes_that_a_file_does_not_name_are_taken_in_order_and_told_of(tmp_path, caplog):
    caplog.set_level("INFO")
    old = create_model("resnet18", num_classes=3).state_dict()
    model = create_model("resnet18", num_classes=3)
    load_weights(model, save(tmp_path / "c.pth", old), class_names=["a", "b", "c"])
    assert torch.equal(model.linear.weight, old["linear.weight"])
    assert "does not name its classes: its 3 are taken for the data's, in their order" in caplog.text


@pytest.mark.parametrize("names, sources", [
    (("a", "b"), [0, 1]), (("b", "a"), [1, 0]), ((" A ", "b"), [0, 1]), (("a", "a"), [-1, -1]), (("c", "b"), [-1, 1])
])  # fmt: skip
def test_classes_are_the_same_by_name(names, sources):
    assert ClassRows(names, ("a", "b")).sources == sources


BOX, CLS, MASK = (
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.box_predictor.cls_score.bias",
    ("roi_heads.mask_head.predictor.weight"),
)


@pytest.mark.parametrize("names", [("b", "a"), ("b", "a", "c"), ("d", "b", "a", "c"), ("e", "d", "c", "b", "a")])
def test_class_agnostic_heads_are_taken_as_they_are(names):
    rows = ClassRows(names, tuple(sorted(names)))
    for key, shape in ((BOX, (4, 2)), (MASK, (1, 2, 1, 1))):
        agnostic = torch.arange(float(torch.Size(shape).numel())).view(shape)
        assert rows.take(key, agnostic, torch.zeros(shape)) is agnostic


def test_rows_go_with_their_classes():
    rows = ClassRows(("x", "b", "a"), ("a", "b"))
    specific = torch.arange(16.0).view(8, 2)
    taken = rows.take(BOX, specific, torch.full((12, 2), -1.0))
    assert torch.equal(taken, torch.cat([torch.full((4, 2), -1.0), specific[4:], specific[:4]]))
    assert rows.take(CLS, torch.arange(3.0), torch.full((4,), -1.0)).tolist() == [-1, 1, 0, 2]
    masks = rows.take(MASK, torch.arange(2.0).view(2, 1, 1, 1), torch.full((3, 1, 1, 1), -1.0))
    assert masks.flatten().tolist() == [-1, 1, 0]


def test_averages_are_found_deeper_and_are_no_empty_words(tmp_path, caplog):
    caplog.set_level("INFO")
    raw = create_backbone("resnet18").state_dict()
    mean = {k: v + 1 if v.is_floating_point() else v for k, v in raw.items()}
    key = "res2.0.conv1.weight"
    file = read_weights(save(tmp_path / "a.pth", {"model": raw, "ema": {"module": mean, "updates": 7}}))
    assert torch.equal(file.tensors[key], mean[key]) and "(ema) are taken" in file.averaged
    file = read_weights(save(tmp_path / "b.pth", {"model": raw, "ema": {"decay": 0.999}}))
    assert torch.equal(file.tensors[key], raw[key]) and file.averaged == ""
    for other in ({"callbacks": {"EMA": {"ema_state_dict": mean}}}, {"ema_weights_of_mine": mean}):
        file = read_weights(save(tmp_path / "c.pth", {"state_dict": raw, **other}))
        assert torch.equal(file.tensors[key], raw[key]) and "may be averaged weights" in file.averaged
    both = {"model": raw, "state_dict_ema": mean, "model_ema": raw}
    assert "model_ema" in read_weights(save(tmp_path / "d.pth", both)).averaged


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_in_a_pickle_is_executed(tmp_path):
    marker = tmp_path / "executed"
    attacks = {
        "system": Hostile(os.system, f"touch {marker}"),
        "eval": Hostile(eval, f"open({str(marker)!r}, 'w')"),
        "nested": {"model": {"w": [Hostile(os.system, f"touch {marker}")]}},
    }
    for name, attack in attacks.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(pickle.dumps(attack))
        with pytest.raises(WeightsError, match=rf"{name}.pth is (refused|damaged)"):
            read_weights(path)
        zipped = tmp_path / f"{name}_zip.pth"
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(attack))
            archive.writestr("archive/version", "3")
        with pytest.raises(WeightsError, match=r"_zip.pth is (refused|damaged)"):
            read_weights(zipped)
    assert not marker.exists()


def test_damaged_and_missing_files_are_named(tmp_path):
    whole = save(tmp_path / "whole.pth", create_backbone("resnet18").state_dict())
    torn = tmp_path / "torn.pth"
    torn.write_bytes(whole.read_bytes()[:10_000])
    for name, content in {
        "torn.pth": None,
        "text.pth": b"hello",
        "empty.pth": b"",
        "t.safetensors": b"\x01" * 40,
    }.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name} is damaged"):
            read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match=r"There is no weight file .*absent.pth: check MODEL.WEIGHTS"):
        read_weights(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="unknown ending"):
        read_weights(tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_weights(save(tmp_path / "n.pth", {"a": 1}))


def test_rows_that_come_again_for_each_anchor_keep_their_classes():
    """RetinaNet's class scores: two anchors of the file's classes a and b, to those of b, c and a."""
    rows = ClassRows(("b", "c", "a"), ("a", "b"))
    tensor, fresh = torch.tensor([1.0, 2, 3, 4])[:, None], torch.tensor([10.0, 20, 30, 40, 50, 60])[:, None]
    found = rows.take("head.cls_score.weight", tensor, fresh)
    assert found[:, 0].tolist() == [2, 20, 1, 4, 50, 3]
    assert rows.take("head.cls_score.weight", tensor, fresh[:3]).tolist() == tensor.tolist()  # of other anchors
