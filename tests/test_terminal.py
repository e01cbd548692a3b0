"""Names from data sets reach the terminal and the log written out, never as commands to it."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from se_det.cli.main import main
from se_det.evaluation import coco_eval
from se_det.evaluation.coco_metrics import SUMMARY
from se_det.terminal import EscapingFormatter, escape

ROOT = Path(__file__).resolve().parents[1]
NASTY = "\x1b[31mred\x1b]0;title\x07\r\n\u202eevil\x00\x9b"


@pytest.mark.parametrize("text, shown", [
    ("plain", "plain"), ("wąż 犬 🐕", "wąż 犬 🐕"), ("\x1b[2J", "\\x1b[2J"), ("a\nb", "a\\nb"),
    ("\u202eab", "\\u202eab"),
    ("\ud800", "\\ud800"), ("\x9b31m", "\\x9b31m"), ("a\tb", "a\tb"), ("", ""),
])  # fmt: skip
def test_escaping(text, shown):
    assert escape(text) == shown


def test_log_lines_are_escaped_and_keep_their_own_breaks():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EscapingFormatter("%(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("two\nlines of %s and %d", NASTY, 3)
    logger.info(f"{NASTY}")
    logger.info("%(name)s", {"name": "x"})
    text = stream.getvalue()
    assert not any(char in text for char in "\x1b\x07\r\u202e\x00\x9b")
    assert text.count("\n") == 5 and text.startswith("two\nlines of \\x1b[31mred") and "\\r\\n" in text


def write_set(folder: Path, name: str) -> list[str]:
    content = {
        "images": [{"id": 1, "file_name": f"{name}.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 1, 4, 4]}],
        "categories": [{"id": 2, "name": name}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return ["--json", str(folder / "a.json"), "--images", str(folder)]


def test_commands_show_nothing_of_it(tmp_path, capfd):
    assert main(["check-data", *write_set(tmp_path, NASTY.replace("\0", ""))]) == 1
    assert main(["predict", "--config-file", "configs/quickstart.yaml", "--output", "o", NASTY.replace("\0", "")]) == 1
    out, err = capfd.readouterr()
    assert not any(char in out + err for char in "\x1b\x07\r\u202e\x9b")
    assert err.count("error: ") == 1 and "\\x1b[31m" in err


def test_a_terminal_without_the_letters_ends_nothing(tmp_path):
    """Of an ASCII locale, as in containers."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "tools/check_data.py", *write_set(tmp_path, "犬")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "errors" in done.stdout


def test_thousands_of_classes_are_a_few_lines(caplog, tmp_path):
    caplog.set_level("INFO")
    metrics = dict.fromkeys(SUMMARY, 1.0) | {f"AP-{i}": float(i) if i % 2 else float("nan") for i in range(10_000)}
    coco_eval._log("bbox", metrics, SUMMARY, tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 22
    assert f"10000 classes, 5000 of which are in the data; all are in {tmp_path}" in lines[1]
    assert "AP-9999" in lines[2] and "AP-1 " in lines[-1] + " "
    caplog.clear()
    coco_eval._log("bbox", dict.fromkeys(SUMMARY, 1.0) | {"AP-a": 2.0}, SUMMARY, None)
    assert len(caplog.records) == 2
