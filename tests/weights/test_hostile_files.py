"""Nothing that a weight file brings along is run, and no file takes memory or time out of proportion."""

from __future__ import annotations

import collections
import copyreg
import functools
import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.errors import CheckpointError, WeightsError
from se_det.training.checkpoint import load_checkpoint
from se_det.weights import read_weights
from se_det.weights.formats.mat import read_mat


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def assembled_name(command: str) -> bytes:
    """A pickle that puts the module's name together from the memo, so that no scan of its text finds `os system`."""
    text = lambda word: b"\x8c" + bytes([len(word)]) + word.encode()  # noqa: E731
    return b"\x80\x04" + text("system") + b"\x94" + text("os") + b"h\x00\x93" + text(command) + b"\x85R."


def attacks(canary: Path) -> dict[str, bytes]:
    touch = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w')"
    dumped = {
        "system": Calls(os.system, touch),
        "eval": Calls(eval, write),
        "exec": Calls(exec, write),
        "nested": {"model": {"res2.0.conv1.weight": [Calls(os.system, touch)]}},
        "popen": Calls(os.popen, touch),
        "reduce": Calls(functools.reduce, os.system, [touch]),
        "copyreg": Calls(copyreg._reconstructor, Path, object, None),
        "hub": Calls(torch.hub.load, str(canary.parent), "x"),
        "load": Calls(torch.load, str(canary)),
        "import": Calls(__import__, "antigravity"),
        "defaultdict": collections.defaultdict(Calls, {"w": 1}),
    }
    made = {name: pickle.dumps(content, protocol=2) for name, content in dumped.items()}
    made["protocol0"] = f"cos\nsystem\n(S'{touch}'\ntR.".encode()
    made["instance"] = f"(S'{touch}'\nios\nsystem\n.".encode()
    made["assembled"] = assembled_name(touch)
    made["getattr"] = f"c__builtin__\ngetattr\n(cos\nS'system'\ntR(S'{touch}'\ntR.".encode()
    return made


NAMES = list(attacks(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_run(name, tmp_path):
    canary = tmp_path / "canary"
    attack = attacks(canary)[name]
    plain = tmp_path / "plain.pth"
    plain.write_bytes(attack)
    archived = tmp_path / "archived.pth"
    with zipfile.ZipFile(archived, "w") as archive:
        archive.writestr("archive/data.pkl", attack)
        archive.writestr("archive/version", "3")
    beside_numbers = tmp_path / "old.tar"  # as the content of a file in PyTorch's older format
    torch.save({}, beside_numbers, _use_new_zipfile_serialization=False)
    beside_numbers.write_bytes(beside_numbers.read_bytes().replace(pickle.dumps({}, protocol=2), attack, 1))
    assert attack in beside_numbers.read_bytes()
    detectron = tmp_path / "detectron.pkl"
    detectron.write_bytes(attack)
    for path in (plain, archived, beside_numbers, detectron):
        with pytest.raises(WeightsError, match=rf"{path.name} is (refused|damaged)"):
            read_weights(path)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("system", "posix.system"), ("nested", "posix.system"), ("eval", "__builtin__.eval"), ("hub", "torch.hub.load"),
     ("assembled", "os.system"), ("protocol0", "os.system"), ("copyreg", r"copy_?reg._reconstructor")],
)  # fmt: skip
def test_what_it_asked_for_is_named(name, wanted, tmp_path):
    path = tmp_path / "asks.pkl"
    path.write_bytes(attacks(tmp_path / "canary")[name])
    with pytest.raises(
        WeightsError, match=rf"asks.pkl is refused: it asks for {wanted.replace('copyreg?', 'copy_?reg')}"
    ):
        read_weights(path)


def test_objects_in_numpy_files(tmp_path):
    canary = tmp_path / "canary"
    objects = np.array([Calls(os.system, f"touch {canary}")], dtype=object)
    np.savez(tmp_path / "objects.npz", w=objects)
    with pytest.raises(WeightsError, match=r"objects.npz is refused: w.npy holds object elements"):
        read_weights(tmp_path / "objects.npz")
    (tmp_path / "objects.pkl").write_bytes(pickle.dumps({"w": np.array([None, {}], dtype=object)}))
    with pytest.raises(WeightsError, match=r"objects.pkl is refused: it asks for an array of 'O8'"):
        read_weights(tmp_path / "objects.pkl")
    assert not canary.exists()


def test_detectron2_pickles_are_read(tmp_path):
    arrays = {
        "stem.conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "half": np.float16([1.5]),
        "blobs_momentum": np.zeros(2),
    }
    for protocol in range(6):
        path = tmp_path / f"p{protocol}.pkl"
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x", "n": np.float64(2)}, protocol=protocol))
        file = read_weights(path)
        assert file.extra["__author__"] == "x"
        assert file.tensors.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(file.tensors[name].numpy(), array), (protocol, name)


def bombs() -> dict[str, bytes]:
    pairs = (
        b"\x80\x02)q\x00"
        + b"".join(b"h" + bytes([i]) * 2 for i in ())
        + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(200))
    )
    return {
        "a tuple of tuples as a key": pairs + b"}h\xc8K\x01s.",
        "a place far out in the memo": b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFF0) + b".",
        "a byte array of a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        "an array larger than its bytes": pickle.dumps({"w": np.zeros(8)}, protocol=2).replace(b"K\x08", b"K\xff", 1),
    }


@pytest.mark.parametrize("name", list(bombs()))
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_bombs(name, suffix, tmp_path):
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(bombs()[name])
    with pytest.raises(WeightsError, match="bomb.* is (refused|damaged)"):
        read_weights(path)


def test_archives_that_grow(tmp_path):
    path = tmp_path / "grows.pth"
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.namelist():
            packed.writestr(member, whole.read(member))
    with pytest.raises(WeightsError, match=r"grows.pth is damaged .*members are larger than the file"):
        read_weights(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "promises.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(WeightsError, match=r"promises.npz is damaged"):
        read_weights(tmp_path / "promises.npz")
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 10)}, tmp_path / "repeats.pth")
    with pytest.raises(WeightsError, match=r"repeats.pth is refused: w is larger than the numbers it is made of"):
        read_weights(tmp_path / "repeats.pth")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "flipped.pth"
    torch.save({"w": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.tensor([7.0, 8.0]).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"flipped.pth is damaged .*checksum of flipped/data/0 is wrong"):
        read_weights(path)


def test_mat_files(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    array = np.random.RandomState(0).standard_normal((3, 2, 4, 5)).astype(np.float32)
    params = np.zeros((1, 2), dtype=[("name", object), ("value", object)])
    params[0, 0] = ("conv_filter", array)
    params[0, 1] = ("conv_bias", np.arange(5.0)[:, None])
    content = {"params": params, "cells": np.array([["a", 1.5]], dtype=object), "n": np.int16([[3, -4]]), "t": "größe"}
    for compressed in (False, True):
        path = tmp_path / f"c{compressed:d}.mat"
        scipy_io.savemat(path, content, do_compression=compressed)
        found = read_mat(path)
        assert np.array_equal(found["params"][0]["value"], array) and found["params"][0]["name"] == "conv_filter"
        assert found["cells"][0] == "a" and found["n"].tolist() == [[3, -4]] and found["t"] == "größe"
        assert read_weights(path).tensors["conv_filter"].shape == array.shape
        whole = path.read_bytes()
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            with pytest.raises(WeightsError, match=r"damaged|no MatConvNet network|no tensors"):
                read_weights(path)
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF")
    with pytest.raises(WeightsError, match=r"version 7.3: save it again in MATLAB"):
        read_weights(tmp_path / "new.mat")
    header = bytes(124) + b"\x00\x01IM"
    bomb = zlib.compress(bytes(1 << 20), 9)
    (tmp_path / "bomb.mat").write_bytes(header + struct.pack("<II", 15, len(bomb)) + bomb)
    with pytest.raises(WeightsError, match=r"bomb.mat is damaged"):
        read_weights(tmp_path / "bomb.mat")


@pytest.mark.parametrize(
    ("key", "value"),
    [("categories", [{"id": "3", "name": "a"}]), ("categories", [{"name": "a"}]), ("config", "a: &a [*a]"),
     ("config", "- 1"), ("facts", {"pixel_mean": [1, 2]}), ("iteration", -1),
     ("architecture", {"name": "resnet50", "num_classes": 10**12})],
)  # fmt: skip
def test_what_a_file_of_ours_says_is_held_to_its_form(key, value, tmp_path):
    path = tmp_path / "said.pth"
    torch.save({"model": {"w": torch.zeros(1)}, "engine": "se_det", key: value}, path)
    with pytest.raises(WeightsError, match=f"said.pth is damaged: what it says under '{key}'"):
        read_weights(path)
    torch.save({"model": {"w": torch.zeros(1)}, key: value}, path)  # another program's word for something else
    assert key not in read_weights(path).extra
