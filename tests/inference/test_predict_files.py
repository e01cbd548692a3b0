"""`se-det predict`: what is named, what is passed over, what is never overwritten, and memory on a long video."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from se_det.cli.main import main
from se_det.config import get_cfg, load_config
from se_det.detection import build_detector
from se_det.errors import CheckpointError, DataError
from se_det.files import atomic_write
from se_det.inference import Predictor
from se_det.inference.json_list import JsonList
from se_det.inference.sources import find_sources
from se_det.inference.video import VideoReader, VideoWriter

TINY = ["MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.DEVICE", "cpu",
        "MODEL.ROI_HEADS.NUM_CLASSES", "3", "INPUT.MIN_SIZE_TEST", "32", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
        "TEST.DETECTIONS_PER_IMAGE", "3", "MODEL.RPN.POST_NMS_TOPK_TEST", "10",
        "MODEL.RPN.PRE_NMS_TOPK_TEST", "50"]  # fmt: skip


def picture(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((48, 64, 3), shade, np.uint8))
    return path


def video(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    with VideoWriter(path, 10) as writer:
        for number in range(frames):
            frame = np.full((size[1], size[0], 3), 40, np.uint8)
            frame[:, : 1 + number % size[0]] = 200
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> list[str]:
    """The command with a tiny untrained detector."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    cfg = load_config("mask_rcnn_se_r18_fpn.yaml", TINY, defaults=get_cfg())
    torch.save({"model": build_detector(cfg).state_dict()}, folder / "w.pth")
    (folder / "c.yaml").write_text(cfg.dump())
    return ["predict", "--config-file", str(folder / "c.yaml"), "--weights", str(folder / "w.pth")]


def test_files_of_inputs(tmp_path: Path) -> None:
    for name in ("a.png", "a.webp", "a.jpg", "A.JPG", "b/c.jpg", "b/film.avi", "b/notes.txt", "[1].jpg", "out/old.jpg"):
        picture(tmp_path / name) if not name.endswith((".avi", ".txt")) else (tmp_path / name).write_text("x")
    sources, failures = find_sources([str(tmp_path)], tmp_path / "out")
    assert not failures
    assert {(str(s.path.relative_to(tmp_path)), str(s.target)) for s in sources} == {
        ("A.JPG", "A.JPG"), ("[1].jpg", "[1].jpg"), ("a.jpg", "a-2.jpg"), ("a.png", "a.png"), ("a.webp", "a-2.png"),
        ("b/c.jpg", "b/c.jpg"), ("b/film.avi", "b/film.mp4"),
    }  # fmt: skip
    assert [s.path.name for s in sources if s.video] == ["film.avi"]
    sources, failures = find_sources(
        [str(tmp_path / "**" / "*.jpg"), str(tmp_path / "[1].jpg"), str(tmp_path / "*.gif"), str(tmp_path / "no"), ""],
        tmp_path / "out",
    )
    assert [str(s.target) for s in sources] == ["[1].jpg", "a.jpg", "b/c.jpg"]
    assert len(failures) == 3 and "*.gif" in failures[0] and "no" in failures[1]


def test_what_is_drawn_stays_in_the_output_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe.jpg")
    pattern = str(tmp_path / "in" / "*" / ".." / ".." / "*.jpg")
    sources, failures = find_sources([pattern, str(tmp_path / "pipe.jpg")], tmp_path / "out")
    assert [str(s.target) for s in sources] == ["a.jpg"]
    assert len(failures) == 1 and "neither a file nor a folder" in failures[0]  # reading it would wait for ever


@pytest.mark.parametrize("link", [False, True], ids=["itself", "a link to it"])
def test_an_input_is_never_overwritten(tmp_path: Path, link: bool) -> None:
    path = picture(tmp_path / "in" / "a.jpg")
    output = path.parent
    if link:
        output = tmp_path / "out"
        output.mkdir()
        (output / "a.jpg").symlink_to(path)
    with pytest.raises(DataError, match=r"a\.jpg is one of the inputs"):
        find_sources([str(path)], output)


def test_what_cannot_be_read_is_passed_over_and_told(tmp_path: Path, detector, capsys) -> None:
    picture(tmp_path / "in" / "a.jpg")
    picture(tmp_path / "in" / "z.png")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"not an image")
    (tmp_path / "in" / "bad.mp4").write_bytes(b"not a video")
    video(tmp_path / "in" / "film.avi.mp4", 3)
    out = tmp_path / "out"
    code = main([*detector, "--score-threshold", "0", "--output", str(out), str(tmp_path / "in"), str(tmp_path / "no")])
    said = capsys.readouterr()
    assert code == 1 and "3 inputs could not be read" in said.err
    assert (
        all(name in said.err for name in ("bad.jpg", "bad.mp4", str(tmp_path / "no"))) and "Traceback" not in said.err
    )
    assert "image/s" not in said.err  # no progress bar where nobody watches
    assert {p.name for p in out.iterdir()} == {"a.jpg", "z.png", "film.avi.mp4", "detections.json"}
    found = json.loads((out / "detections.json").read_text())
    assert {e["image_id"] for e in found} == {1, 2, 3, 4, 5}
    assert {(Path(e["file_name"]).name, e.get("frame")) for e in found} == {
        ("a.jpg", None), ("film.avi.mp4", 0), ("film.avi.mp4", 1), ("film.avi.mp4", 2), ("z.png", None)
    }  # fmt: skip
    with VideoReader(out / "film.avi.mp4") as reader:
        assert reader.rate == 10 and [frame.shape for frame in reader] == [(48, 64, 3)] * 3
    assert main([*detector, "--limit", "2", "--output", str(out), str(tmp_path / "in" / "film.avi.mp4")]) == 0
    assert {e["frame"] for e in json.loads((out / "detections.json").read_text())} == {0, 1}


def test_nothing_to_read_is_told_before_anything_is_made(tmp_path: Path, detector, capsys) -> None:
    assert main([*detector, "--output", str(tmp_path / "out"), str(tmp_path / "*.jpg")]) == 1
    assert "There are no images or videos" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_video_that_breaks_off(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", 60, (320, 240))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.avi"), VideoReader(path) as reader:
        list(reader)


def test_a_video_is_not_closed_under_a_frame_being_read(tmp_path: Path) -> None:
    """Ctrl-C ends the main thread's loop while another thread reads ahead: FFmpeg would read what was freed."""
    begun, calls = threading.Event(), []

    class Capture:
        def read(self) -> tuple[bool, None]:
            begun.set()
            time.sleep(0.2)
            calls.append("read")
            return True, None

        def release(self) -> None:
            calls.append("released")

    with VideoReader(video(tmp_path / "a.avi", 1)) as reader:
        reader._capture = Capture()
        thread = threading.Thread(target=lambda: next(iter(reader), None))
        thread.start()
        begun.wait()
    thread.join()
    assert calls == ["read", "released"]


def test_odd_sizes_lose_nothing_and_the_rate_is_kept(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 29.97) as drawn:
        for _ in range(3):
            drawn.write(np.full((33, 47, 3), 200, np.uint8))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.rate == pytest.approx(29.97) and reader.declared == 3
        assert [frame.shape for frame in reader] == [(34, 48, 3)] * 3


@pytest.mark.parametrize(
    ("size", "drawn"), [((8190, 2), (8190, 2)), ((9000, 100), (8190, 90)), ((2, 16380), (2, 8190))]
)
def test_frames_larger_than_the_format_holds_are_made_smaller(tmp_path: Path, size: tuple, drawn: tuple) -> None:
    with VideoWriter(tmp_path / "a.mp4", 0.01) as writer:
        writer.write(np.zeros((size[1], size[0], 3), np.uint8))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert [frame.shape[1::-1] for frame in reader] == [drawn] and reader.rate == pytest.approx(0.01)


def test_an_interrupted_result_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 10) as drawn:
        drawn.write(np.zeros((48, 64, 3), np.uint8))
        with JsonList(tmp_path / "a.json") as results:
            results.extend([{"a": 1}])
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_the_longest_names_are_drawn_to(tmp_path: Path, detector) -> None:
    """255 bytes, most of them of letters that have two."""
    folder, out = tmp_path / "in", tmp_path / "out"
    still = picture(folder / f"a{'é' * 125}.png")
    film = video(folder / f"{'é' * 125}b.mp4", 2)
    assert len(os.fsencode(still.name)) == len(os.fsencode(film.name)) == 255
    assert main([*detector, "--output", str(out), str(folder)]) == 0
    assert {file.name for file in out.iterdir()} == {still.name, film.name, "detections.json"}


def test_temporary_files_have_names_that_fit_and_say_of_what_they_are(tmp_path: Path) -> None:
    seen: list[str] = []
    for name in ("a.json", "é" * 127, os.fsdecode(b"\xff" * 255)):
        atomic_write(tmp_path / name, lambda file: seen.append(os.path.basename(file_name(file))))
        (tmp_path / name).unlink()
    assert [re.sub(r"\w{8}\.tmp$", "*", name) for name in seen] == [".a.json.*", f".{'é' * 50}.*", "..*"]


def file_name(file) -> str:
    return os.readlink(f"/proc/self/fd/{file.fileno()}")


def test_a_film_that_the_disk_cuts_short_replaces_none(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 3)
    before = path.read_bytes()

    class Cut:
        """A writer whose file loses its end, as on a full disk: OpenCV says nothing of it."""

        def __init__(self, writer: cv2.VideoWriter, file: str) -> None:
            self.write, self._release, self._file = writer.write, writer.release, file

        def release(self) -> None:
            self._release()
            os.truncate(self._file, os.path.getsize(self._file) * 3 // 4)

    sentence = r"a\.mp4 could not be written whole: is the disk full\?"
    with pytest.raises(CheckpointError, match=sentence), VideoWriter(path, 10) as writer:
        for frame in np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8):
            writer.write(frame)
        writer._writer = Cut(writer._writer, writer._temporary)
    with pytest.raises(CheckpointError, match=sentence), VideoWriter(path, 10) as writer:
        writer.write(frame)
        writer._count += 1  # a frame that FFmpeg could not write
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_sigterm_leaves_no_part_of_a_file(tmp_path: Path, detector, capsys, monkeypatch, suffix: str) -> None:
    path = picture(tmp_path / "a.png") if suffix == ".png" else video(tmp_path / "a.mp4", 6)
    picture(tmp_path / "b.png")
    picture(tmp_path / "z.png")
    out = tmp_path / "out"
    detect, before, left = Predictor.outputs, signal.getsignal(signal.SIGTERM), []

    def asked_to_leave(self: Predictor, samples: list) -> list:
        found = detect(self, samples)
        left.append({re.sub(r"\w{8}\.tmp.*", "*", file.name) for file in out.iterdir()})
        if len(left) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(Predictor, "outputs", asked_to_leave)
    inputs = [str(path), str(tmp_path / "b.png"), str(tmp_path / "z.png")]
    assert main([*detector, "TEST.IMS_PER_BATCH=1", "--output", str(out), *inputs]) == 143
    assert capsys.readouterr().err.count("error: SIGTERM ended the run early") == 1
    assert {".detections.json.*", *([".a.mp4.*"] if suffix == ".mp4" else [])} <= left[-1]
    assert all(not file.name.startswith(".") and file.suffix == ".png" for file in out.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_a_long_video_takes_constant_memory(tmp_path: Path, detector, monkeypatch) -> None:
    """500 frames of 0.5 MB each, 259 MB of them: were they or the drawn ones kept, resident memory would say so."""
    path = video(tmp_path / "a.mp4", 500, (480, 360))
    resident: list[float] = []
    detect = Predictor.outputs

    def measured(self: Predictor, pixels: np.ndarray) -> dict[str, torch.Tensor]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * resource.getpagesize() / 2**20)
        return detect(self, pixels)

    monkeypatch.setattr(Predictor, "outputs", measured)
    assert main([*detector, "--score-threshold", "0", "--output", str(tmp_path / "out"), str(path)]) == 0
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {e["frame"] for e in found} == set(range(500))
    with VideoReader(tmp_path / "out" / "a.mp4") as reader:
        assert sum(1 for _ in reader) == 500
    early, late = max(resident[:50]), max(resident[-50:])
    print(f"resident memory: {early:.0f} MiB in the first 50 frames, {late:.0f} MiB in the last 50")
    assert late - early < 40
