"""A run's options compute what they should, and what a run leaves behind is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_pretraining import recipe, tiny_pretraining

from se_det.backbones.activation_checkpointing import checkpoint_activations
from se_det.backbones.catalog import create_model
from se_det.classification.optimizer import build_pretraining_optimizer
from se_det.errors import CheckpointError, DataError, TrainingError
from se_det.training.checkpoint import load_checkpoint
from se_det.training.folder_lock import FolderLock

# No random numbers of a batch, and norms that do not know of it: so processes and parts change nothing.
ALIKE = (
    "MODEL.RESNETS.NORM", "GN", "INPUT.MIXUP", 0.0, "INPUT.CUTMIX", 0.0, "INPUT.SIZES", [], "SOLVER.MAX_ITER", 4,
    "SOLVER.CHECKPOINT_PERIOD", 100, "TEST.EVAL_PERIOD", 100,
)  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "model_final.pth")["model"]


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    tiny_pretraining(pictures, folder, *ALIKE, "SOLVER.ACCUMULATE", 1)
    return folder


def furthest(a: Path, b: Path) -> float:
    one, other = weights(a), weights(b)
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize(
    ("keys", "within"),
    [
        (["SOLVER.ACCUMULATE", 3], 1e-5),
        pytest.param(["MODEL.CHANNELS_LAST", False], 1e-5, marks=pytest.mark.slow),
        (["MODEL.CHECKPOINT_ACTIVATIONS", True], 0.0),
        (["INPUT.AUGMENT_ON", "device"], 0.0),
        (["SOLVER.AMP.ENABLED", True], 5e-2),
        pytest.param(["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "float16"], 5e-2, marks=pytest.mark.slow),
        pytest.param(["MODEL.COMPILE", True], 1e-4, marks=pytest.mark.slow),
    ],
)
def test_how_it_is_computed_does_not_change_what_is_computed(
    pictures: Path, plain: Path, tmp_path: Path, keys: list, within: float
) -> None:
    tiny_pretraining(pictures, tmp_path, *ALIKE, "SOLVER.ACCUMULATE", 1, *keys)
    assert furthest(plain, tmp_path) <= within
    start = create_model("se_tiny", num_classes=3).state_dict()
    assert {k: v.shape for k, v in start.items() if "norm.running" not in k and "tracked" not in k} == {
        k: v.shape for k, v in weights(tmp_path).items()
    }


def test_the_weights_do_move(pictures: Path, plain: Path, tmp_path: Path) -> None:
    tiny_pretraining(pictures, tmp_path, *ALIKE, "SOLVER.ACCUMULATE", 1, "SOLVER.BASE_LR", 0.06)
    assert furthest(plain, tmp_path) > 1e-3


@pytest.mark.parametrize("name", ["se_resnet18", "rg_se_tiny", "cbam_tiny"])
def test_recomputed_blocks_leave_gradients_and_statistics_as_they_were(name: str) -> None:
    nets = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = create_model(name, num_classes=4).train()
        if recompute:
            assert checkpoint_activations(net) == 8
        x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        net(x).square().sum().backward()
        nets.append(net)
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters()):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(nets[0].named_buffers(), nets[1].buffers()):
        assert torch.equal(a, b), name


def test_a_run_leaves_what_it_says(pictures: Path, plain: Path) -> None:
    lines = [json.loads(line) for line in (plain / "metrics.json").read_text().splitlines()]
    trained = next(line for line in lines if line["iteration"] == 4 and "total_loss" in line)
    assert {"loss_cls", "top1", "lr", "time", "data_time", "eta_seconds", "max_mem_mib", "images_per_s"} <= set(trained)
    assert trained["total_loss"] == trained["loss_cls"]  # the accuracy is told and not minimised
    assert any("classification/top1" in line for line in lines)
    assert list(plain.glob("events.out.tfevents.*"))
    log = (plain / "log.txt").read_text()
    assert "se_tiny:" in log and "images/s:" in log and "eta:" in log
    state = load_checkpoint(plain / "model_final.pth")
    assert state["architecture"] == {
        "name": "se_tiny", "gate": "se", "num_classes": 3, "options": {"norm": "GN"}, "input_format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375], "image_size": 32,
        "crop_ratio": 0.95,
    }  # fmt: skip
    assert [c["name"] for c in state["categories"]] == ["ash", "birch", "cedar"]
    assert "INPUT:" in state["config"] and "PIXEL_MEAN:" in state["config"]


def test_the_pictures_are_learnt(pictures: Path, tmp_path: Path) -> None:
    """Three classes of three colours; a network that trains tells them apart."""
    result = tiny_pretraining(
        pictures, tmp_path, "SOLVER.MAX_ITER", 40, "SOLVER.IMS_PER_BATCH", 18, "SOLVER.ACCUMULATE", 1,
        "SOLVER.EMA.DECAY", 0.0, "INPUT.MIXUP", 0.0, "INPUT.CUTMIX", 0.0, "INPUT.RAND_AUGMENT.OPS", 0,
        "SOLVER.CHECKPOINT_PERIOD", 100, "TEST.EVAL_PERIOD", 100,
    )  # fmt: skip
    assert result["top1"] == 100.0


def test_a_trunk_that_starts_from_weights_learns_slower(pictures: Path, plain: Path, tmp_path: Path, caplog) -> None:
    cfg = recipe(pictures, tmp_path, "SOLVER.TRUNK_LR_FACTOR", 0.1)
    model = create_model("se_tiny", num_classes=3)
    rates = {}
    for pretrained in (True, False):
        optimizer = build_pretraining_optimizer(cfg, model, base_lr=0.5, scaled=False, pretrained=pretrained)
        names = {id(p): name for name, p in model.named_parameters()}
        rates[pretrained] = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[True].keys() == rates[False].keys() == dict(model.named_parameters()).keys()
    assert set(rates[False].values()) == {0.5}
    for name, rate in rates[True].items():
        assert rate == pytest.approx(0.5 if name.startswith("linear.") else 0.05), name
    # A run from weights may go on without the file that it started from.
    start = tmp_path / "start.pth"
    start.write_bytes((plain / "model_final.pth").read_bytes())
    keys = [*ALIKE, "SOLVER.TRUNK_LR_FACTOR", 0.1, "SOLVER.CHECKPOINT_PERIOD", 2]
    tiny_pretraining(pictures, tmp_path / "a", *keys, "MODEL.WEIGHTS", str(start))
    start.unlink()
    (tmp_path / "a" / "model_final.pth").unlink()
    (tmp_path / "a" / "last_checkpoint").unlink()
    before = load_checkpoint(tmp_path / "a" / "model_best.pth")["model"]
    tiny_pretraining(pictures, tmp_path / "a", *keys, resume=True)
    after = weights(tmp_path / "a")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_broken_image_ends_the_run_with_its_name(tmp_path: Path) -> None:
    from picture_sets import class_folders

    class_folders(tmp_path / "train", per_class=2)
    class_folders(tmp_path / "val", per_class=1)
    broken = tmp_path / "train" / "birch" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"birch/1.jpg cannot be read: .*truncated"):
            tiny_pretraining(tmp_path, tmp_path / "out", "DATALOADER.NUM_WORKERS", workers, overwrite=True)


@pytest.mark.slow
def test_a_run_without_its_bad_images_is_resumed_bit_for_bit(tmp_path: Path, caplog) -> None:
    from picture_sets import class_folders

    class_folders(tmp_path / "train")
    class_folders(tmp_path / "val", per_class=1)
    broken = tmp_path / "train" / "birch" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:-300])
    keys = ("DATALOADER.SKIP_BAD_IMAGES", 1, "TEST.EVAL_PERIOD", 100, "SOLVER.CHECKPOINT_PERIOD", 4)
    tiny_pretraining(tmp_path, tmp_path / "a", *keys, "SOLVER.MAX_ITER", 8)
    told = [record.getMessage() for record in caplog.records if "Left out of training" in record.getMessage()]
    assert len(told) == 1 and "(1 of at most 1, DATALOADER.SKIP_BAD_IMAGES)" in told[0] and "birch/1.jpg" in told[0]
    state = load_checkpoint(tmp_path / "a" / "model_0000004.pth")
    assert ["birch/1.jpg" in sentence for sentence in state["skipped"].values()] == [True]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model_0000004.pth").write_bytes((tmp_path / "a" / "model_0000004.pth").read_bytes())
    tiny_pretraining(tmp_path, tmp_path / "b", *keys, "SOLVER.MAX_ITER", 8, "DATALOADER.NUM_WORKERS", 2, resume=True)
    assert furthest(tmp_path / "a", tmp_path / "b") == 0
    for other in (tmp_path / "train" / "ash").iterdir():
        other.write_bytes(b"")
    with pytest.raises(DataError, match=r"[2-6] images cannot .*SKIP_BAD_IMAGES is 1: .*birch/1.jpg"):
        tiny_pretraining(tmp_path, tmp_path / "b", *keys, resume=True)


def test_a_run_in_a_folder_in_use_is_refused(pictures: Path, plain: Path) -> None:
    lock = FolderLock(plain)
    lock.acquire()
    for how in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(CheckpointError, match=rf"{plain} is in use by another run"):
            tiny_pretraining(pictures, plain, *ALIKE, "SOLVER.ACCUMULATE", 1, **how)
    lock.release()


def test_a_loss_that_is_not_finite_names_images(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is not finite in step \d.*(ash|birch|cedar)/\d.jpg"):
        tiny_pretraining(pictures, tmp_path, "SOLVER.BASE_LR", 1e20, "SOLVER.WARMUP_ITERS", 1)
