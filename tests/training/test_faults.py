"""What happens to a detector's run from outside: signals, dying workers, images that go bad, a folder that is moved."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detector import config, draw, train_and_evaluate
from small_disk import mount, mounted

from se_det.cli.main import main
from se_det.detection.rcnn import GeneralizedRCNN
from se_det.errors import CheckpointError, ConfigError, DataError, Interrupted, Terminated, TrainingError
from se_det.training import loop, run
from se_det.training.checkpoint import Checkpointer, load_checkpoint
from se_det.training.folder_lock import FolderLock
from se_det.training.precision import Precision

ROOT = Path(__file__).resolve().parents[2]
# A network whose checkpoint is 3 MB.
KEYS = ["MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.NORM", "BN",
        "MODEL.GATE.REDUCTION", 4, "MODEL.FPN.OUT_CHANNELS", 16, "SOLVER.EMA.DECAY", 0.5,
        "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 2]  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("data")
    train, val = draw(folder / "train", 6), draw(folder / "val", 2)
    return ["DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1],
            "DATASETS.VAL_JSON", val[0], "DATASETS.VAL_IMAGES", val[1], *KEYS]  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, keys: list[Any]) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train_and_evaluate(str(folder), *keys)
    return folder


def assert_same_run(a: Path, b: Path) -> None:
    one, other = load_checkpoint(a / "model_final.pth"), load_checkpoint(b / "model_final.pth")
    for part in ("model", "ema"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(other[part][name], value) for name, value in one[part].items())
    assert (one["best"], one["iteration"]) == (other["best"], other["iteration"])
    lines = [
        [x for x in map(json.loads, (folder / "metrics.json").read_text().splitlines()) if "bbox/AP" in x]
        for folder in (a, b)
    ]
    assert lines[0] == lines[1]


@pytest.fixture
def in_step(monkeypatch: pytest.MonkeyPatch):
    """`in_step(n, do)` calls `do()` in the middle of step n, from 0."""
    plain = loop.seed_step

    def arrange(number: int, do: Any) -> None:
        def seed_step(seed: int, step: int, part: int = 0) -> None:
            plain(seed, step, part)
            if step == number:
                do()

        monkeypatch.setattr(loop, "seed_step", seed_step)

    yield arrange
    monkeypatch.setattr(loop, "seed_step", plain)


# After the fourth step an evaluation is due, which the run that goes on makes.
@pytest.mark.parametrize(
    ("number", "step", "error"), [(signal.SIGTERM, 1, Terminated), (signal.SIGINT, 3, Interrupted)]
)
def test_a_signal_saves_at_that_step_and_leaves(
    keys: list[Any], uninterrupted: Path, tmp_path: Path, in_step: Any, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, step: int, error: type,
) -> None:  # fmt: skip
    in_step(step, lambda: os.kill(os.getpid(), number))
    sentence = rf"{number.name} ended the run after {step + 1} of 5 steps\. All of it is saved: --resume goes on\."
    with pytest.raises(error, match=sentence):
        train_and_evaluate(str(tmp_path), *keys)
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{step + 1:07d}.pth"
    assert not (tmp_path / ".lock").exists()
    in_step(-1, None)
    train_and_evaluate(str(tmp_path), *keys, resume=True)
    assert_same_run(tmp_path, uninterrupted)


@pytest.fixture
def in_evaluation(monkeypatch: pytest.MonkeyPatch):
    """`in_evaluation(n, do)` calls `do()` while the n-th image is evaluated; the list has the numbers of those seen."""
    plain, seen = run.prepare_for_inference, []

    def arrange(number: int, do: Any) -> list[int]:
        seen.clear()

        def prepare(model: GeneralizedRCNN, **how: Any) -> GeneralizedRCNN:
            model = plain(model, **how)
            detect = model.detect

            def evaluated(samples: list) -> list:
                found = detect(samples)
                seen.append(len(seen) + 1)
                if seen[-1] == number:
                    do()
                return found

            model.detect = evaluated
            return model

        monkeypatch.setattr(run, "prepare_for_inference", prepare)
        return seen

    return arrange


# Two images are evaluated after steps 2, 4 and 5. After the second no checkpoint is due, after the last one it is.
@pytest.mark.parametrize(
    ("number", "image", "step", "error"), [(signal.SIGTERM, 1, 2, Terminated), (signal.SIGINT, 5, 5, Interrupted)]
)
def test_a_signal_in_an_evaluation_leaves_it_to_the_run_that_goes_on(
    keys: list[Any], uninterrupted: Path, tmp_path: Path, in_evaluation: Any, number: signal.Signals, image: int,
    step: int, error: type,
) -> None:  # fmt: skip
    seen = in_evaluation(image, lambda: os.kill(os.getpid(), number))
    then = "evaluates and goes on" if step < 5 else "evaluates"
    sentence = rf"{number.name} ended the run in the evaluation after {step} of 5 steps\..*: --resume {then}\.$"
    with pytest.raises(error, match=sentence):
        train_and_evaluate(str(tmp_path), *keys)
    assert seen[-1] == image
    name = f"model_{step:07d}.pth" if step < 5 else "model_final.pth"
    assert (tmp_path / "last_checkpoint").read_text() == name and not (tmp_path / f"model_{5:07d}.pth").exists()
    in_evaluation(0, None)
    train_and_evaluate(str(tmp_path), *keys, resume=True)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, Interrupted)])
def test_a_signal_ends_a_mere_evaluation_at_once(
    keys: list[Any], uninterrupted: Path, tmp_path: Path, in_evaluation: Any, number: signal.Signals, error: type
) -> None:
    seen = in_evaluation(1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(error, match=rf"^{number.name} ended the run before its evaluation was done\.$"):
        run.run_evaluation(config(tmp_path, *keys, "MODEL.WEIGHTS", str(uninterrupted / "model_final.pth")))
    assert seen == [1] and not list(tmp_path.rglob("*.json"))


def test_a_signal_that_is_swallowed_in_a_mere_evaluation_ends_it_after_the_batch(
    keys: list[Any], uninterrupted: Path, tmp_path: Path, in_evaluation: Any
) -> None:
    def swallowed() -> None:
        with suppress(BaseException):  # as Python does in a `__del__`
            os.kill(os.getpid(), signal.SIGTERM)

    seen = in_evaluation(1, swallowed)
    with pytest.raises(Terminated, match=r"^SIGTERM ended the run before its evaluation was done\.$"):
        run.run_evaluation(config(tmp_path, *keys, "MODEL.WEIGHTS", str(uninterrupted / "model_final.pth")))
    assert seen == [1] and not list(tmp_path.rglob("*.json"))


def test_a_signal_before_the_first_step_ends_it_at_once(
    keys: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("se_det.training.run.build_detector", lambda cfg: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated, match="before or after its steps, with nothing to save"):
        train_and_evaluate(str(tmp_path / "run"), *keys)
    assert not (tmp_path / "run").exists()


def test_a_run_in_a_folder_in_use_is_refused(keys: list[Any], uninterrupted: Path) -> None:
    lock = FolderLock(uninterrupted)
    lock.acquire()
    for how in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(CheckpointError, match=rf"{uninterrupted} is in use by another run \(process {os.getpid()}"):
            train_and_evaluate(str(uninterrupted), *keys, **how)
    lock.release()
    assert load_checkpoint(uninterrupted / "model_final.pth")["iteration"] == 5


def test_a_read_only_folder_is_refused_before_the_data_is_read(keys: list[Any], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    sentence = rf"OUTPUT_DIR {disk}/run cannot be written \({disk} is read-only"
    with mounted(disk, "ro,size=1m"), pytest.raises(CheckpointError, match=sentence):
        train_and_evaluate(str(disk / "run"), *keys, "DATASETS.TRAIN_JSON", "missing.json")


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(keys: list[Any], uninterrupted: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=9m") as disk:
        with pytest.raises(CheckpointError) as error:
            train_and_evaluate(str(disk), *keys, "SOLVER.CHECKPOINT_PERIOD", 1)
        assert str(error.value).startswith(f"{disk}/model_0000003.pth could not be written: No space left on device.")
        assert "model_0000002.pth is intact: make room, then --resume goes on from it." in str(error.value)
        assert not list(disk.glob(".*")) and Checkpointer(disk).latest()[1]["iteration"] == 2
        mount(disk, "remount,size=90m")
        train_and_evaluate(str(disk), *keys, resume=True)
        assert_same_run(disk, uninterrupted)


def test_a_worker_that_is_killed_ends_the_run_in_a_sentence(keys: list[Any], tmp_path: Path, in_step: Any) -> None:
    in_step(1, lambda: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL))
    with pytest.raises(DataError, match=r"process that loads images has died .*DATALOADER.NUM_WORKERS"):
        train_and_evaluate(str(tmp_path), *keys, "DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 500)
    assert multiprocessing.active_children() == []


def test_weights_that_are_not_finite_are_not_saved(
    keys: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite, the step that follows overflows, and a checkpoint is due before the next loss could tell."""
    plain, steps = Precision.step, []

    def step(self: Precision, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        plain(self, optimizer, *rest)
        steps.append(1)
        if len(steps) == 3:
            optimizer.param_groups[0]["params"][0].data[0] = torch.inf

    monkeypatch.setattr(Precision, "step", step)
    with pytest.raises(
        TrainingError, match=r"weights are not finite after step 3 \(the first is .*\)\. No checkpoint of"
    ):
        train_and_evaluate(str(tmp_path), *keys, "SOLVER.CHECKPOINT_PERIOD", 1, "TEST.EVAL_PERIOD", 0)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["model_0000001.pth", "model_0000002.pth"]


def spoil(path: str | Path) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:200])


def own_images(folder: Path, keys: list[Any]) -> tuple[Path, list[Any]]:
    train = draw(folder, 6)
    return Path(train[1]), [*keys, "DATASETS.TRAIN_JSON", train[0], "DATASETS.TRAIN_IMAGES", train[1]]


def test_an_image_that_goes_bad_ends_the_run_with_its_name(keys: list[Any], tmp_path: Path, in_step: Any) -> None:
    images, keys = own_images(tmp_path / "data", keys)
    in_step(0, lambda: [spoil(path) for path in images.iterdir()])
    with pytest.raises(DataError, match=rf"^The image {images}/\d\.png cannot be read.*SKIP_BAD_IMAGES 1 would"):
        train_and_evaluate(str(tmp_path / "run"), *keys)


@pytest.mark.slow
def test_a_run_without_its_bad_images_is_resumed_bit_for_bit(
    keys: list[Any], tmp_path: Path, in_step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images, keys = own_images(tmp_path / "data", keys)
    spoil(images / "2.png")
    with pytest.raises(DataError, match=r"1 images of .* cannot be used: image 102"):
        train_and_evaluate(str(tmp_path / "refused"), *keys)
    keys = [*keys, "DATALOADER.SKIP_BAD_IMAGES", 1, "SOLVER.MAX_ITER", 8]
    with caplog.at_level(logging.WARNING):
        train_and_evaluate(str(tmp_path / "straight"), *keys)
    told = [r.getMessage() for r in caplog.records if "Left out of training" in r.getMessage()]
    assert len(told) == 1 and "(1 of at most 1, DATALOADER.SKIP_BAD_IMAGES)" in told[0] and "2.png" in told[0]
    assert "truncated" in (tmp_path / "straight" / "log.txt").read_text()
    in_step(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Terminated):
        train_and_evaluate(str(tmp_path / "broken"), *keys)
    in_step(-1, None)
    train_and_evaluate(str(tmp_path / "broken"), *keys, "DATALOADER.NUM_WORKERS", 2, resume=True)
    assert_same_run(tmp_path / "broken", tmp_path / "straight")
    saved = load_checkpoint(tmp_path / "broken" / "model_0000005.pth")["skipped"]
    assert list(saved) == [2] and "2.png" in saved[2]
    spoil(images / "4.png")
    with pytest.raises(DataError, match=r"2 images of .* cannot be used: image 102.*2\.png.*image 104.*4\.png"):
        train_and_evaluate(str(tmp_path / "broken"), *keys, "SOLVER.MAX_ITER", 16, resume=True)


@pytest.mark.parametrize(
    "last", ["model_00000", *(pytest.param(x, marks=pytest.mark.slow) for x in (None, "", "\0", "model_0000099.pth"))]
)
def test_a_run_folder_that_was_copied_elsewhere_goes_on(
    keys: list[Any], uninterrupted: Path, tmp_path: Path, last: str | None
) -> None:
    """With its data elsewhere, too, the lock's file of a killed run, and `last_checkpoint` torn or missing."""
    copy = tmp_path / "copy"
    shutil.copytree(uninterrupted, copy)
    (copy / "model_final.pth").unlink()
    (copy / "last_checkpoint").unlink()
    (copy / ".lock").write_text("process 1 on another.host\n")
    if last is not None:
        (copy / "last_checkpoint").write_text(last)
    values = dict(zip(keys[::2], keys[1::2]))
    shutil.copytree(Path(values["DATASETS.TRAIN_JSON"]).parent, tmp_path / "train")
    moved = ["DATASETS.TRAIN_JSON", str(tmp_path / "train/data.json"), "DATASETS.TRAIN_IMAGES",
             str(tmp_path / "train/images")]  # fmt: skip
    train_and_evaluate(str(copy), *keys, *moved, resume=True)
    assert_same_run(copy, uninterrupted)


def test_a_negative_budget_is_refused(keys: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DATALOADER.SKIP_BAD_IMAGES must be at least 0, got -1"):
        train_and_evaluate(str(tmp_path / "run"), *keys, "DATALOADER.SKIP_BAD_IMAGES", -1)


def wait_for_steps(folder: Path, run: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "metrics.json").exists() or not (folder / "metrics.json").read_text():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.05)


def command(keys: list[Any], folder: Path, *more: Any) -> list[str]:
    """The command line's words for `config`."""
    cfg = config(folder, *keys, *more)
    written = folder.parent / "config.yaml"
    written.write_text(cfg.dump())
    return [sys.executable, "-m", "se_det.cli.main", "train", "--config-file", str(written)]


ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_leaves_with_the_usual_code(
    keys: list[Any], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The signal goes to all processes of the run, as from a terminal or a scheduler, workers among them."""
    folder = tmp_path / "run"
    run = subprocess.Popen(
        command(keys, folder, "SOLVER.MAX_ITER", 5000, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 5000,
                "DATALOADER.NUM_WORKERS", 2),
        env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_steps(folder, run)
        os.killpg(run.pid, number)
        _, told = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == code
    assert told.startswith(f"error: {number.name} ended the run after ") and len(told.splitlines()) == 1, told
    assert len(list(folder.glob("model_*.pth"))) == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)  # nobody of its group is left


@pytest.mark.slow
def test_the_command_ends_when_a_worker_is_killed(keys: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = subprocess.Popen(
        command(keys, folder, "SOLVER.MAX_ITER", 5000, "TEST.EVAL_PERIOD", 0, "DATALOADER.NUM_WORKERS", 2),
        env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for_steps(folder, run)
        worker = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0]
        os.kill(int(worker), signal.SIGKILL)
        _, told = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 1
    assert told.startswith("error: A process that loads images has died") and len(told.splitlines()) == 1, told


TWO = """
import sys
from small_detector import train_and_evaluate
from se_det.errors import SeDetError
from se_det.training.launch import free_port, spawn
from functools import partial
if __name__ == "__main__":
    how = {"resume": True} if "resume" in sys.argv else {}
    keys = eval(sys.argv[1])
    try:
        spawn(partial(train_and_evaluate, **how), keys, processes=2, url=f"tcp://127.0.0.1:{free_port()}")
    except SeDetError as error:
        sys.exit(f"{type(error).__name__} {error}")
"""


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_bit_for_bit(keys: list[Any], tmp_path: Path) -> None:
    """A SIGTERM to the process that started them."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    keys = [*keys, "SOLVER.MAX_ITER", 60, "TEST.EVAL_PERIOD", 0, "SOLVER.CHECKPOINT_PERIOD", 1000]

    def start(folder: Path, *words: str) -> subprocess.Popen:
        command = [sys.executable, str(script), repr((str(folder), *keys)), *words]
        return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    run = start(tmp_path / "broken")
    try:
        wait_for_steps(tmp_path / "broken", run)
        run.send_signal(signal.SIGTERM)
        _, told = run.communicate(timeout=90)
    finally:
        run.kill()
    assert run.returncode == 1 and "Terminated SIGTERM ended the run after " in told, told
    [saved] = (tmp_path / "broken").glob("model_*.pth")
    step = load_checkpoint(saved)["iteration"]
    assert 0 < step < 60 and step % 10 == 0
    for folder, words in (("broken", ["resume"]), ("straight", [])):
        run = start(tmp_path / folder, *words)
        _, told = run.communicate(timeout=120)
        assert run.returncode == 0, told
    assert_same_run(tmp_path / "broken", tmp_path / "straight")


@pytest.mark.slow
def test_the_second_command_in_a_folder_names_the_first(
    keys: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    words = command(keys, folder, "SOLVER.MAX_ITER", 5000, "TEST.EVAL_PERIOD", 0)
    first = subprocess.Popen(words, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_steps(folder, first)
        for option in ("--resume", "--overwrite"):
            assert main([*words[3:], option]) == 1
            assert f"{folder} is in use by another run (process {first.pid} on " in capsys.readouterr().err
        first.kill()
        first.wait()
        (folder / "config.yaml").unlink()
        assert main([*words[3:], "--overwrite", "SOLVER.MAX_ITER", "1"]) == 0
    finally:
        first.kill()
