"""Weights, checkpoints, shards, configs and metrics with bytes or values changed: taken, or refused in a sentence."""

from __future__ import annotations

import copy
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_documents import any_json, changed, changes
from fuzz_limits import FEW, MANY, TINY, files_below, try_many
from fuzz_pictures import damaged, damages
from hypothesis import strategies as st
from safetensors.torch import save_file

from se_det.backbones.catalog import create_model
from se_det.classification.data.shards import ShardDataset
from se_det.classification.predict import load_classifier
from se_det.config import get_cfg, load_config
from se_det.errors import SeDetError
from se_det.evaluation.report.history import read_history, training_charts
from se_det.inference import Predictor
from se_det.training.checkpoint import Checkpointer, load_checkpoint
from se_det.training.resume_checks import check_resumable
from se_det.weights import read_weights

NUMBERS = [pytest.param(FEW // 6, id="few"), pytest.param(MANY // 4, id="many", marks=pytest.mark.slow)]
steps = st.lists(damages, min_size=1, max_size=4)


def refused_or(action: Callable[[], Any]) -> Any:
    """What `action` returns; None when it was refused in a sentence."""
    try:
        return action()
    except SeDetError as error:
        assert str(error) and str(error).encode()
        return None


def weight_files(folder: Path) -> dict[str, bytes]:
    """A small weight file of each kind."""
    tensors = {"stem.conv1.weight": torch.arange(24.0).view(2, 3, 2, 2), "fc.bias": torch.ones(3, dtype=torch.float16)}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    torch.save({"model": tensors, "iteration": 3}, folder / "zip.pth")
    torch.save(tensors, folder / "old.tar", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "s.safetensors")
    (folder / "d2.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=2))
    np.savez(folder / "a.npz", **arrays)
    np.savez_compressed(folder / "b.npz", **arrays)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for path in folder.iterdir():
        path.unlink()
    return files


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", NUMBERS)
def test_weight_files(tmp_path: Path, number: int) -> None:
    files = weight_files(tmp_path)

    def attempt(case: tuple[str, list]) -> None:
        path = tmp_path / case[0]
        path.write_bytes(damaged(files[case[0]], case[1]))
        before = files_below(tmp_path)
        refused_or(lambda: read_weights(path))
        if path.suffix in (".pth", ".tar"):
            refused_or(lambda: load_checkpoint(path))
        assert files_below(tmp_path) == before
        path.unlink()

    try_many(3 * number, st.tuples(st.sampled_from(sorted(files)), steps), attempt)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", NUMBERS)
def test_matlab_files(tmp_path: Path, number: int) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    params = np.zeros((1, 1), dtype=[("name", object), ("value", object)])
    params[0, 0] = ("conv_filter", np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2))
    files = []
    for compressed in (False, True):
        scipy_io.savemat(tmp_path / "m.mat", {"params": params}, do_compression=compressed)
        files.append((tmp_path / "m.mat").read_bytes())

    def attempt(data: bytes) -> None:
        (tmp_path / "m.mat").write_bytes(data)
        refused_or(lambda: read_weights(tmp_path / "m.mat"))

    try_many(number, st.builds(damaged, st.sampled_from(files), steps), attempt)


def with_values(content: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`content`, of JSON values, with some of them changed."""
    return changes.map(lambda done: changed(content, done)).filter(lambda found: isinstance(found, dict))


def plain(value: Any) -> Any:
    """Numbers that fit into a checkpoint."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return min(max(value, -(2**62)), 2**62) if type(value) is int else value


@pytest.mark.parametrize("number", NUMBERS)
def test_what_checkpoints_say_of_themselves(tmp_path: Path, monkeypatch, number: int) -> None:
    cfg = load_config("faster_rcnn_se_r18_fpn.yaml", TINY, defaults=get_cfg())
    small = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}
    # The network itself, which takes a second to build, has no part in it.
    monkeypatch.setattr("se_det.inference.predictor.build_detector", lambda cfg: torch.nn.Conv2d(3, 4, 1))
    said = {
        "categories": [{"id": 3, "name": "cup"}, {"id": 8, "name": "owl"}, {"id": 9, "name": "bag"}],
        "config": cfg.dump()[:2000], "iteration": 7, "engine": "se_det", "family": "detectron2",
        "facts": {"stem_pool": "pad1", "input_format": "BGR", "pixel_mean": [1.0, 2.0, 3.0]},
        "scheduler": {"last_epoch": 7}, "sampler": {"position": 3},
    }  # fmt: skip
    path = tmp_path / "model_0000007.pth"

    def attempt(content: dict[str, Any]) -> None:
        torch.save({**plain(content), "model": small}, path)
        refused_or(lambda: Predictor(cfg, path))
        saved = refused_or(Checkpointer(tmp_path).latest)
        if saved is not None:
            refused_or(lambda: check_resumable(saved[1], cfg, said["categories"], path))

    try_many(number, with_values(said), attempt)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_classifiers_say_of_themselves(tmp_path: Path, number: int) -> None:
    model = create_model("shufflenet_v1", num_classes=2)
    said = {
        "architecture": {
            "name": "shufflenet_v1", "num_classes": 2, "options": {}, "image_size": 32, "crop_ratio": 0.875,
            "input_format": "RGB", "pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [1.0, 1.0, 1.0],
        },
        "categories": [{"id": 0, "name": "cup"}, {"id": 1, "name": "owl"}],
    }  # fmt: skip
    path = tmp_path / "c.pth"

    def attempt(content: dict[str, Any]) -> None:
        torch.save({**plain(content), "model": model.state_dict()}, path)
        refused_or(lambda: load_classifier(path))

    attempt(said)
    load_classifier(path)
    try_many(number, with_values(said), attempt)


@pytest.mark.parametrize("number", NUMBERS)
def test_shards(tmp_path: Path, number: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("a.jpg", b"x" * 700), ("a.cls", b"1"), ("sub/b.png", b"y" * 20), ("sub/b.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = tmp_path / "s.tar"

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        before = files_below(tmp_path)
        shards = refused_or(lambda: ShardDataset([path], source="s"))
        for index in range(len(shards) if shards is not None else 0):
            refused_or(lambda index=index: shards.read(index))
        assert files_below(tmp_path) == before

    try_many(2 * number, st.builds(damaged, st.just(file.getvalue()), steps), attempt)


YAML_PIECES = [
    "!!python/object/apply:os.system [touch x]", "!!python/name:os.system", "&a [*a]", "&a [1, *a]", "{? [a]: 1}",
    "2001-99-99", "0x", "1" * 5000, "1e999", ".nan", "!!binary x", "!!float x", "!!int x", "!!timestamp x", "!!set [a]",
    "!!omap [a]", "<<: 3", "\t", "\x00", "---\n...\n---", "[" * 500, "{a: " * 200, "|", "'", "%TAG", "? ", "- - -",
    "1:2:3", "1_000", "~", "yes", "!!null x", "0b2", "08", "*b", "MODEL: {BACKBONE: 3}", "_BASE_: [1]", "_BASE_: ../..",
    "_BASE_: c.yaml", "MODEL: &a {b: *a}", "&a [*a]",
    "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in ("ab", "bc", "cd", "de", "ef", "fg")
    ),
    "MODEL: 1", "SOLVER: {BASE_LR: a}", "INPUT: {MIN_SIZE_TEST: 1e400}", "é\ud7ff",
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_configs(tmp_path: Path, number: int) -> None:
    text = load_config("mask_rcnn_se_r50_fpn.yaml").dump().encode()
    path = tmp_path / "c.yaml"
    piece = st.sampled_from(YAML_PIECES) | st.text(max_size=8)
    pieces = st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, 30), piece), min_size=1, max_size=3)

    def spliced(cuts: list[tuple[int, int, str]]) -> bytes:
        data = text
        for start, length, new in cuts:
            data = data[:start] + new.encode(errors="surrogatepass") + data[start + length :]
        return data

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        before = files_below(tmp_path)
        cfg = refused_or(lambda: load_config(path))
        if cfg is not None:
            refused_or(lambda: load_config(path, ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"]))
            cfg.dump()
        assert files_below(tmp_path) == before

    alone = piece.map(lambda text: text.encode(errors="surrogatepass"))
    keyed = piece.map(lambda text: b"SEED: " + text.encode(errors="surrogatepass"))
    try_many(number, pieces.map(spliced) | alone | keyed | st.binary(max_size=40), attempt)


@pytest.mark.parametrize("number", NUMBERS)
def test_metrics_of_a_run(tmp_path: Path, number: int) -> None:
    lines = [{"iteration": i, "total_loss": 3.0 / (i + 1), "lr": 0.1, "bbox/AP": 3.5} for i in range(4)]

    def attempt(content: Any) -> None:
        text = content if isinstance(content, str) else "\n".join(json.dumps(line) for line in content)
        (tmp_path / "metrics.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        assert all("<script" not in chart for chart in training_charts(read_history(tmp_path / "metrics.json")))

    whole = changes.map(lambda done: changed(copy.deepcopy(lines), done)).filter(lambda found: isinstance(found, list))
    deep = st.integers(1, 100_000).map(lambda n: "[" * n)
    try_many(number, whole | deep | st.text() | st.lists(any_json, max_size=4), attempt)
