"""Damaged videos, and any words where `predict` expects its inputs: detected in, or told of in a sentence."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzz_limits import FEW, MANY, files_below, try_many
from fuzz_pictures import damaged, damages
from hypothesis import strategies as st

from se_det.errors import SeDetError
from se_det.inference import Predictor
from se_det.inference.predict_files import predict_files
from se_det.inference.sources import find_sources

NUMBERS = [pytest.param(FEW // 4, id="few"), pytest.param(MANY // 4, id="many", marks=pytest.mark.slow)]
KINDS = (("a.avi", "MJPG"), ("b.avi", "XVID"), ("c.mp4", "mp4v"), ("d.mkv", "mp4v"), ("e.mov", "mjpg"))
FRAMES = 4


@cache
def videos() -> dict[str, bytes]:
    """A sound video of each kind."""
    import tempfile

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, codec in KINDS:
            path = os.path.join(folder, name)
            writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 10, (32, 24))
            for shade in range(FRAMES):
                writer.write(np.full((24, 32, 3), 60 * shade, np.uint8))
            writer.release()
            found[name] = Path(path).read_bytes()
    return found


@pytest.mark.parametrize("number", NUMBERS)
def test_videos_are_read_or_passed_over(tmp_path: Path, predictor: Predictor, number: int) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    read = 0

    def attempt(case: tuple[str, list]) -> None:
        nonlocal read
        path = folder / case[0]
        path.write_bytes(damaged(videos()[case[0]], case[1]))
        before = files_below(folder)
        summary = predict_files(predictor, find_sources([str(path)], out)[0], out, limit=3 * FRAMES)
        assert summary.images or summary.failures
        assert all(str(path) in sentence and len(sentence) < 1000 for sentence in summary.failures)
        entries = json.loads((out / "detections.json").read_bytes())
        assert {entry["frame"] for entry in entries} <= set(range(summary.images))
        drawn = {file.name for file in out.iterdir()} - {"detections.json"}
        assert drawn <= {f"{path.stem}.mp4"}
        assert files_below(folder) == before and set(files_below(tmp_path)) - set(before) <= {
            str(p) for p in (folder, out, out / "detections.json", *(out / name for name in drawn))
        }
        read += summary.images > 0
        for file in (*out.iterdir(), path):
            file.unlink()

    cases = st.tuples(st.sampled_from(sorted(videos())), st.lists(damages, max_size=4))
    try_many(number, cases, attempt)
    assert read > number // 10  # of which enough were videos


words = st.one_of(
    st.lists(
        st.sampled_from(["*", "**", "?", "[", "]", "[!a]", "[a-", "..", ".", "", "~", "a.jpg", "*.jpg", "sub", "loop",
                         "\0", "-", "--help", "é" * 200, "x" * 300, "\ud800", "\n", " ", "a[1].jpg", "$HOME",
                         "pipe.jpg", "film.MP4", "none.png", "link.jpg", "outside"]),
        max_size=5,
    ).map("/".join),
    st.text(max_size=12),
)  # fmt: skip


@pytest.mark.parametrize("number", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
def test_any_words_are_files_or_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Also where links go round in circles or lead out. Nothing is drawn elsewhere than in the output folder."""
    here = tmp_path / "here"
    (here / "sub" / "deeper").mkdir(parents=True)
    (here / "out").mkdir()
    for name in ("a.jpg", "a[1].jpg", "film.MP4", "sub/a.jpg", "sub/b.PNG", "sub/deeper/a.jpg", "out/old.jpg", "x.txt",
                 "line\nbreak.jpg"):  # fmt: skip
        (here / name).write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.jpg").write_bytes(b"x")
    os.mkfifo(here / "pipe.jpg")
    (here / "loop").symlink_to(here)
    (here / "sub" / "loop").symlink_to(here)
    (here / "link.jpg").symlink_to(tmp_path / "outside" / "o.jpg")
    (here / "outside").symlink_to(tmp_path / "outside")
    monkeypatch.chdir(here)
    before, output = files_below(tmp_path), here / "out"
    found = 0

    def attempt(inputs: list[str]) -> None:
        nonlocal found
        try:
            sources, failures = find_sources(inputs, "out", reserved=("detections.json",))
        except SeDetError as error:
            assert str(error)
            return
        assert sources or failures or not inputs
        targets = [os.path.realpath(output / source.target) for source in sources]
        assert len({target.casefold() for target in targets}) == len(targets)
        for source, target in zip(sources, targets):
            assert source.path.is_file() and target.startswith(f"{output.resolve()}/"), source
        found += len(sources)

    # "/" itself would be searched through.
    try_many(number, st.lists(words.filter(lambda text: not text.startswith("/")), max_size=3), attempt)
    assert found > number // 10 and files_below(tmp_path) == before
