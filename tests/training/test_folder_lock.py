"""Two runs never have one output folder at a time, and a dead one never keeps it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_disk import mounted

from se_det.errors import CheckpointError
from se_det.training.folder_lock import FolderLock
from se_det.training.output_folder import OutputFolder, check_folder

ROOT = Path(__file__).resolve().parents[2]
# Holds the lock, and so would a process that it forks, were the lock handed on.
HOLDER = """
import os, sys, time
from se_det.training.folder_lock import FolderLock
lock = FolderLock(sys.argv[1])
lock.acquire()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


def test_the_second_run_is_refused_by_the_firsts_name(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    me = rf"process {os.getpid()} on {socket.gethostname()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    with pytest.raises(CheckpointError, match=rf"^OUTPUT_DIR {tmp_path} is in use by another run \({me}\): wait for"):
        second.acquire()
    assert first.held and not second.held
    first.release()
    assert list(tmp_path.iterdir()) == []
    second.acquire()
    first.release()  # it has nothing to let go of, and must not take the other's
    assert second.path.exists()
    second.release()


def test_a_killed_run_does_not_keep_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    child = int(holder.stdout.readline())
    lock = FolderLock(tmp_path)
    try:
        with pytest.raises(CheckpointError, match=f"process {holder.pid} on"):
            lock.acquire()
        holder.kill()
        holder.wait()
        assert (tmp_path / ".lock").exists()
        os.kill(child, 0)  # what it forked is still there
        until = time.monotonic() + 30  # on a busy machine the child may not have run yet, and so not let go
        while True:
            try:
                lock.acquire()
                break
            except CheckpointError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()
    lock.release()


def test_a_lock_whose_file_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder removes the file and lets go between the other's opening and locking it."""
    first, second, third = FolderLock(tmp_path), FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    plain = fcntl.flock

    def flock(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", plain)
        first.release()
        plain(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    second.acquire()
    with pytest.raises(CheckpointError, match="is in use"):
        third.acquire()
    second.release()


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    with caplog.at_level(logging.WARNING):
        lock.acquire()
    assert f"The file system of OUTPUT_DIR {tmp_path} has no locks" in caplog.text
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_that_begin_together(tmp_path: Path) -> None:
    """Both find the folder free; the one that comes first to write has it, during its run and after."""
    place = tmp_path / "run"
    with OutputFolder(place) as late:
        with OutputFolder(place) as first:
            for folder in (late, first):
                folder.check(resume=False, overwrite=False)
            first.acquire()
            with pytest.raises(CheckpointError, match="is in use by another run"):
                late.acquire()
            (place / "config.yaml").touch()
        with pytest.raises(CheckpointError, match="holds another run"):
            late.acquire()
    assert [p.name for p in place.iterdir()] == ["config.yaml"]


def test_a_lock_without_a_note_of_its_holder_holds(tmp_path: Path) -> None:
    """On a full disk the note cannot be written; a killed run's may be torn."""
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    for spoil in (lambda note: note.write_bytes(b"\xff" * 9), lambda note: note.write_bytes(b""), Path.unlink):
        spoil(tmp_path / ".lock_holder")
        with pytest.raises(CheckpointError, match="is in use by another run"):
            second.acquire()
    first.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_folder_in_use_is_refused_whatever_is_asked(tmp_path: Path, how: dict) -> None:
    (tmp_path / "model_0000005.pth").touch()
    with OutputFolder(tmp_path) as first, OutputFolder(tmp_path) as second:
        first.check(resume=True, overwrite=False)
        with pytest.raises(CheckpointError, match="is in use by another run"):
            second.check(**{"resume": False, "overwrite": False, **how})
    assert [p.name for p in tmp_path.iterdir()] == ["model_0000005.pth"]


def test_a_killed_runs_unfinished_files_are_removed(tmp_path: Path) -> None:
    mine = ["notes.tmp", ".hidden", "inference/.mine"]
    unfinished = [".lock", ".model_final.pth.ab1.tmp", "inference/.metrics.json.x.tmp", "val/inference/.a.json.y.tmp"]
    for name in mine + unfinished:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with OutputFolder(tmp_path) as folder:
        folder.check(resume=False, overwrite=False)
        folder.acquire()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(mine)


def test_a_read_only_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro,size=1m") as disk:
        for folder in (disk, disk / "deeper" / "run"):
            with pytest.raises(CheckpointError, match=rf"^OUTPUT_DIR {folder} cannot be written \({disk} is read-only"):
                check_folder(folder)
        with pytest.raises(CheckpointError, match=rf"^OUTPUT_DIR {disk} cannot be written: Read-only file system"):
            FolderLock(disk).acquire()


def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(CheckpointError, match="cannot be written"):
        check_folder(tmp_path / "run")
    tmp_path.chmod(0o755)
