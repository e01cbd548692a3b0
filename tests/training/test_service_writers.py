"""The writers wandb and mlflow, in a training that is resumed, read back from what the packages wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MISSING = [name for name in ("wandb", "mlflow") if importlib.util.find_spec(name) is None]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "WANDB_SILENT": "true",
               "MLFLOW_ALLOW_FILE_STORE": "true"}  # fmt: skip

TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from small_detector import draw, train_and_evaluate
data = Path(sys.argv[1]).parent / "data"
json_file, images = draw(data, 5) if not data.exists() else (data / "data.json", data / "images")
run = dict(overwrite=True) if sys.argv[2] == "new" else dict(resume=True)
train_and_evaluate(sys.argv[1], "WRITERS", ["json", *sys.argv[4:]], "SOLVER.MAX_ITER", int(sys.argv[3]),
                   "TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2,
                   "DATASETS.TRAIN_JSON", str(json_file), "DATASETS.TRAIN_IMAGES", str(images),
                   "DATASETS.VAL_JSON", str(json_file), "DATASETS.VAL_IMAGES", str(images), **run)
print(sorted({{"wandb", "mlflow", "huggingface_hub", "fiftyone", "supervision", "pyarrow"}} & sys.modules.keys()))
"""
READ = """
import json, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2
import struct

def records(data):
    # Of a .wandb file: 7 bytes, then the log format of LevelDB, blocks of 32 KiB with pieces of records.
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            at += 32768 - at % 32768
            continue
        whole = (whole if kind in (3, 4) else b"") + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole

from mlflow.tracking import MlflowClient
folder = Path(sys.argv[1])
found = {"wandb": [], "keys": [], "ids": [], "artifacts": [], "config": {}}
for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["ids"].append(record.run.run_id)
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "history":
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            found["wandb"].append(items)
        elif kind == "artifact":
            found["artifacts"].append([record.artifact.type, [e.path for e in record.artifact.manifest.contents]])
client = MlflowClient()
[experiment] = [e for e in client.search_experiments() if e.name == "se_det"]
[run] = client.search_runs([experiment.experiment_id])
found["mlflow"] = {k: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, k)]
                   for k in run.data.metrics}
found["params"], found["status"] = run.data.params, run.info.status
paths = [a.path for a in client.list_artifacts(run.info.run_id)]
found["files"], found["images"] = paths, len(client.list_artifacts(run.info.run_id, "images"))
print(json.dumps(found))
"""


def python(code: str, *words: str, store: Path, code_of_exit: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=store.parent,
        env={**os.environ, **ENVIRONMENT, "MLFLOW_TRACKING_URI": store.as_uri()},
    )  # fmt: skip
    assert done.returncode == code_of_exit, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + (done.stderr if code_of_exit else "")


@pytest.mark.skipif(bool(MISSING), reason=f"needs the packages wandb and mlflow, of which {MISSING} are not installed")
def test_a_resumed_run_is_one_run(tmp_path: Path) -> None:
    folder, store = tmp_path / "run", tmp_path / "mlruns"
    code = TRAIN.format(here=str(HERE))
    python(code, str(folder), "new", "2", "wandb", "mlflow", store=store)
    python(code, str(folder), "resume", "4", "wandb", "mlflow", store=store)
    found = json.loads(python(READ, str(folder), store=store).splitlines()[-1])
    written = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in written] == [1, 2, 2, 4, 4]
    names = {name for line in written for name, value in line.items() if value is not None} - {"iteration"}
    assert "bbox/AP" in names and "total_loss" in names
    for name in names:
        expected = [[line["iteration"], line[name]] for line in written if line.get(name) is not None]
        rows = [[row["iteration"], row[name]] for row in found["wandb"] if name in row]
        for theirs in (found["mlflow"][name], rows):
            np.testing.assert_allclose(sorted(theirs), sorted(expected), rtol=1e-6, err_msg=name)
    assert len(set(found["ids"])) == 1 and found["status"] == "FINISHED"
    assert found["params"]["SOLVER.MAX_ITER"] == "2"  # as it was begun; config.yaml is the newest
    assert found["config"]["SOLVER"]["MAX_ITER"] == 4
    assert {"config.yaml", "report.html", "images"} <= set(found["files"])
    assert ["report", ["report.html"]] in found["artifacts"]
    pictures = [key for row in found["wandb"] for key in row if key.startswith("detections/")]
    assert len(pictures) >= 4 and found["images"] >= 4


def test_no_package_is_imported_unasked(tmp_path: Path) -> None:
    said = python(TRAIN.format(here=str(HERE)), str(tmp_path / "run"), "new", "1", store=tmp_path / "none")
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_the_first_step(tmp_path: Path, monkeypatch, name: str) -> None:
    from se_det.errors import ConfigError
    from se_det.training.writers import Writers

    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.entities", None)
    with pytest.raises(ConfigError, match=rf"WRITERS has '{name}', whose package .*pip install 'se_det\[{name}\]'"):
        Writers([name], tmp_path)


def test_a_service_that_fails_ends_no_training(tmp_path: Path, caplog) -> None:
    from se_det.training.writers.service import Service

    def fails() -> None:
        raise TimeoutError("no answer\nfrom the server")

    service = Service("Wandb", tmp_path)
    for _ in range(3):
        service.attempt(fails)
    service.close()
    assert caplog.messages == [
        "Wandb could not be written to (no answer). The training goes on: metrics.json has all numbers.",
        "Wandb lacks what 3 calls would have written.",
    ]
    service.remember("abc")
    assert service.known_run(0) is None and Service("Wandb", tmp_path).known_run(5) == "abc"
