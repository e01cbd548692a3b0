"""A disk that fills up: the checkpoint before is intact, a sentence says so, and nothing half written stays."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from small_disk import mount, mounted
from tiny_run import tiny_run

from se_det.errors import CheckpointError
from se_det.training.checkpoint import Checkpointer, load_checkpoint
from se_det.training.run_log import run_log
from se_det.training.writers import Writers

SMALL, LARGE = {"w": torch.arange(1000.0)}, {"w": torch.zeros(1_000_000)}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails inside, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_one_checkpoint_is_left(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    assert (folder / "last_checkpoint").read_text() == "model_0000001.pth"
    assert torch.equal(load_checkpoint(folder / "model_0000001.pth")["w"], SMALL["w"])


@pytest.mark.parametrize("size", [100, 6000, 2_000_000])  # within the first bytes, the first record, the large record
def test_a_checkpoint_that_cannot_be_written_whole(tmp_path: Path, size: int) -> None:
    saver = Checkpointer(tmp_path)
    saver.save("model_0000001", SMALL)
    with files_of_at_most(size), pytest.raises(CheckpointError) as error:
        saver.save("model_0000002", LARGE)
    assert str(error.value).startswith(f"{tmp_path / 'model_0000002.pth'} could not be written: File too large.")
    assert "model_0000001.pth is intact: make room, then --resume goes on from it." in str(error.value)
    assert_one_checkpoint_is_left(tmp_path)


def test_a_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        saver = Checkpointer(disk)
        saver.save("model_0000001", SMALL)
        with pytest.raises(CheckpointError, match=r"could not be written: No space left.*model_0000001.pth is intact"):
            saver.save("model_0000002", LARGE)
        assert_one_checkpoint_is_left(disk)
        with pytest.raises(CheckpointError, match=r"No space left.*The previous file is unchanged"):
            saver.save("model_0000001", LARGE)
        assert_one_checkpoint_is_left(disk)


def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(tmp_path: Path) -> None:
    tiny_run(tmp_path / "straight")
    whole = load_checkpoint(tmp_path / "straight" / "model_final.pth")
    with mounted(tmp_path / "disk", "size=64k") as disk:
        with pytest.raises(CheckpointError, match="No space left"):
            tiny_run(disk)
        step = Checkpointer(disk).latest()[1]["iteration"]
        assert 0 < step < whole["iteration"]
        assert not list(disk.glob(".*"))
        mount(disk, "remount,size=10m")
        tiny_run(disk, resume=True)
        for part in ("model", "ema"):
            for name, value in load_checkpoint(disk / "model_final.pth")[part].items():
                assert torch.equal(value, whole[part][name]), name


def fill(folder: Path) -> None:
    with suppress(OSError), open(folder / "fill", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


# TensorBoard writes in a thread of its own, which says what it failed with by itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_metrics_on_a_full_disk_are_one_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=256k") as disk:
        writer = Writers(["json", "tensorboard"], disk)
        writer.write(1, {"loss": 1.0})
        fill(disk)
        with pytest.raises(CheckpointError, match=r"(metrics.json|TensorBoard's file) .*No space left on device"):
            for step in range(2, 1000):
                writer.write(step, {"loss": 1.0, "x" * 50: 2.0})
        writer.close()


def test_a_log_that_cannot_be_written_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        seen: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: seen.append(record.getMessage())
        logger = logging.getLogger("se_det")
        logger.addHandler(handler)
        with run_log() as log:
            logger.info("before")
            log.write_to(disk)
            fill(disk)
            for _ in range(3):
                logger.info("x" * 5000)
            logger.info("after")
        logger.removeHandler(handler)
    told = [line for line in seen if "cannot be written any more" in line]
    assert len(told) == 1 and str(disk / "log.txt") in told[0] and "No space left" in told[0]
    assert seen[0] == "before" and seen[-1] == "after"
    assert "Traceback" not in capsys.readouterr().err
