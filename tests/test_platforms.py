"""The package as Windows and macOS have it: without what only Linux, or only POSIX, gives a program."""

from __future__ import annotations

import ast
import json
import ntpath
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "training"))
from small_detector import draw

from se_det.cli.main import COMMANDS
from se_det.files import is_within

ROOT = Path(__file__).resolve().parents[1]
# Every Python process that has this file's folder in PYTHONPATH runs it first, spawned workers too.
BLOCKED = """
import builtins, io, os, select, signal, sys

real_import = builtins.__import__

def without_posix(name, globals=None, *args, **kwargs):
    # Other packages were made for this system here; filelock has a way of its own without.
    importer = (globals or {}).get("__name__") or ""
    if importer.partition(".")[0] in ("se_det", "filelock") and name in ("fcntl", "resource", "pwd", "grp", "termios"):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return real_import(name, globals, *args, **kwargs)

builtins.__import__ = without_posix
for module, names in {
    os: ("fork", "forkpty", "pread", "pwrite", "fchmod", "fchown", "sched_getaffinity", "getuid",
         "geteuid", "getgid", "getpgid", "killpg", "setsid", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY"),
    signal: ("sigtimedwait", "sigwait", "sigwaitinfo", "pthread_sigmask", "SIGHUP", "SIGUSR1", "SIGALRM", "alarm",
             "setitimer"),
    select: ("poll", "epoll"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

def without_proc(real):
    def opened(file, *args, **kwargs):
        # psutil reads it on Linux in place of what it asks other systems.
        if str(file).startswith(("/proc/", "b'/proc/")) and "psutil" not in sys._getframe(1).f_code.co_filename:
            raise FileNotFoundError(2, "No such file or directory", file)
        return real(file, *args, **kwargs)
    return opened

builtins.open = io.open = without_proc(open)

import multiprocessing
multiprocessing.set_start_method("spawn")  # the only one on Windows, and macOS's own
"""
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64", "SEED", "5", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "2",
]  # fmt: skip
TRAINED = """
import json, sys
from se_det.cli.main import run_command
if __name__ == "__main__":
    sys.exit(any([run_command(words[0], words[1:]) for words in json.loads(sys.argv[1])]))
"""
HELP = """
import contextlib, io, sys
import se_det
from se_det.cli.main import COMMANDS, run_command
for name in se_det.__all__:
    getattr(se_det, name)
for command in COMMANDS:
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        try:
            run_command(command, ["--help"])
        except SystemExit as end:
            assert end.code == 0, command
    print(command, "usage:" in told.getvalue())
assert run_command("doctor", []) == 0
from se_det.system import peak_memory_mib
print("peak", peak_memory_mib())
"""


def python(code: str, *words: str, blocked: Path | None) -> str:
    """What a process of its own prints, with what `BLOCKED` names or without."""
    path = [str(ROOT)]
    if blocked is not None:
        (blocked / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
        path.insert(0, str(blocked))
    done = subprocess.run(
        [sys.executable, "-W", "error::EncodingWarning:se_det", "-c", code, *words], capture_output=True, text=True,
        encoding="utf-8", check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_import_and_help(tmp_path: Path) -> None:
    lines = python(HELP, blocked=tmp_path).splitlines()
    assert [f"{command} True" for command in COMMANDS] == lines[: len(COMMANDS)]
    assert any("this system does not tell the CPU's instructions" in line for line in lines)
    assert 50 < float(lines[-1].removeprefix("peak ")) < 10_000


@pytest.mark.slow
def test_training_resuming_and_predicting_are_the_same(tmp_path: Path) -> None:
    """In the run that goes on with a worker that loads, which is spawned; evaluations and a prediction among it."""
    json_file, images = draw(tmp_path / "data", 4)
    data = ["--train-json", json_file, "--train-images", images, "--val-json", json_file, "--val-images", images]
    base = ["train", "--config-file", str(ROOT / "configs/faster_rcnn_se_r18_fpn.yaml"), *data]
    ordinary, foreign = tmp_path / "ordinary", tmp_path / "foreign"
    block = tmp_path / "block"
    block.mkdir()

    def commands(folder: Path, *lengths: int) -> str:
        steps = [
            [
                *base,
                *(["--resume"] if number else []),
                *SMALL,
                "SOLVER.MAX_ITER",
                str(steps),
                "OUTPUT_DIR",
                str(folder),
                "DATALOADER.NUM_WORKERS",
                str(number),
            ]
            for number, steps in enumerate(lengths)
        ]
        use = ["--config-file", str(folder / "config.yaml"), "--weights", str(folder / "model_final.pth")]
        evaluate = ["train", "--eval-only", *use[:2], *data[4:], "MODEL.WEIGHTS", use[3], "OUTPUT_DIR",
                    str(folder / "evaluated"), "DATALOADER.NUM_WORKERS", "0"]  # fmt: skip
        return json.dumps([*steps, evaluate, ["predict", *use, "--output", str(folder / "drawn"), images]])

    python(TRAINED, commands(ordinary, 2), blocked=None)
    python(TRAINED, commands(foreign, 1, 2), blocked=block)
    one, other = (torch.load(f / "model_final.pth", weights_only=True)["model"] for f in (ordinary, foreign))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    losses = [
        [{name: value for name, value in json.loads(line).items() if "loss" in name or "AP" in name}
         for line in (folder / "metrics.json").read_text(encoding="utf-8").splitlines()]
        for folder in (ordinary, foreign)
    ]  # fmt: skip
    assert "total_loss" in losses[0][0] and losses[0][0] == losses[1][0] and losses[0][-1] == losses[1][-1]
    for name in ("evaluated/inference/metrics.json", "drawn/detections.json"):
        assert (foreign / name).read_bytes() == (ordinary / name).read_bytes(), name
    assert not list(foreign.glob(".*"))


@pytest.mark.parametrize("folder", ["se_det", "datasets", "tools"])
def test_text_is_utf_8_wherever_it_is_read_or_written(folder: str) -> None:
    """Windows has other encodings where none is named."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node):
                named = any(keyword.arg in ("encoding", None) for keyword in node.keywords)
                assert named, f"{path}:{node.lineno}: {ast.unparse(node.func)} of text without an encoding"


def _opens_text(call: ast.Call) -> bool:
    function = ast.unparse(call.func)
    if function.endswith((".read_text", ".write_text")):
        return function != "files.write_text"  # which is UTF-8 always
    if function not in ("open", "io.open", "os.fdopen", "tempfile.NamedTemporaryFile", "tempfile.TemporaryFile"):
        return False
    place, default = (0, "w+b") if "Temporary" in function else (1, "r")
    mode = next((keyword.value for keyword in call.keywords if keyword.arg == "mode"), None)
    mode = mode or (call.args[place] if len(call.args) > place else ast.Constant(default))
    values = [part.value for part in ast.walk(mode) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return not values or not all("b" in value for value in values)


def test_a_place_on_another_drive_lies_in_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_within("/a/b/c", "/a/b/") and is_within("/a/b", "/a/b") and is_within("/a", "/")
    assert not is_within("/a/bc", "/a/b") and not is_within("/a", "/a/b")
    monkeypatch.setattr("se_det.files.os", SimpleNamespace(path=ntpath))
    assert is_within("C:\\a\\b", "C:\\a") and not is_within("D:\\a\\b", "C:\\a")
