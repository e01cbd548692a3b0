"""docs/extending.md: its files work from a folder outside the package, in training, resume, workers and inference."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "training"))
from small_detector import draw

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64", "SEED", "5", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "2",
]  # fmt: skip
AUGMENTATIONS = "[{'name': 'ResizeShortestEdge'}, {'name': 'RandomFlip'}, {'name': 'Darken'}, {'name': 'Ghost'}]"
PARTS = [
    "MODEL.GATE.NAME", "eca", "MODEL.ECA.NOTE", "tried", "INPUT.AUGMENTATIONS", AUGMENTATIONS,
    "TEST.EVALUATORS", "['coco', 'counting']", "TEST.BEST_METRIC", "counting/error", "WRITERS", "['json', 'csv']",
]  # fmt: skip


def written(folder: Path) -> dict[str, str]:
    """The document's Python files, in a folder of their own."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    files = {}
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        path = folder / name
        path.write_text(code, encoding="utf-8")
        files[path.stem] = str(path)
    return files


COMMANDS = """
import json, sys
from se_det.cli.main import run_command
if __name__ == "__main__":
    sys.exit(any([run_command(words[0], words[1:]) != code for words, code in json.loads(sys.argv[1])]))
"""


def run(*commands: list, code: int = 0) -> str:
    """Run commands one after another in one process of its own; each must end with `code`."""
    listed = json.dumps([[list(map(str, words)), code] for words in commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, listed], capture_output=True, text=True, check=False,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], list[str]]:
    """A folder, the files in it, and the words that every training has."""
    folder = tmp_path_factory.mktemp("outside")
    json_file, images = draw(folder / "data", 4)
    data = ["--train-json", json_file, "--train-images", images, "--val-json", json_file, "--val-images", images]
    return folder, written(folder), data


def plugins(files: dict[str, str], *names: str) -> list[str]:
    return [word for name in names for word in ("--plugin", files[name])]


def package_hash() -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted((ROOT / "se_det").rglob("*.py")))).hexdigest()


@pytest.mark.slow
def test_a_run_with_parts_from_outside_resumes_to_the_same(place) -> None:
    folder, files, data = place
    before = package_hash()
    used = plugins(files, "eca", "blend", "counting", "csv_writer")
    base = ["train", *used, "--config-file", "configs/faster_rcnn_se_r18_fpn.yaml", *data]
    once, twice = folder / "once", folder / "twice"
    alone, loaded = [*SMALL, *PARTS, "DATALOADER.NUM_WORKERS", 0], [*SMALL, *PARTS, "DATALOADER.NUM_WORKERS", 1]
    detected = folder / "detected"
    run(
        [*base, *alone, "SOLVER.MAX_ITER", 4, "OUTPUT_DIR", once],
        [*base, *loaded, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", twice],
        [*base, "--resume", *loaded, "SOLVER.MAX_ITER", 4, "OUTPUT_DIR", twice],
        ["predict", *used, "--config-file", once / "config.yaml", "--weights", once / "model_final.pth", "--output",
         detected, data[3]],
    )  # fmt: skip
    assert (detected / "detections.json").is_file()
    one, other = (torch.load(f / "model_final.pth", weights_only=True)["model"] for f in (once, twice))
    assert any(".gate.conv." in name for name in one) and one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    metrics = [json.loads(line) for line in (once / "metrics.json").read_text().splitlines()]
    assert "counting/error" in metrics[-1] and "bbox/AP" in metrics[-1]
    rows = [line.split(",")[:2] for line in (twice / "metrics.csv").read_text().splitlines()]
    assert ["4", "counting/error"] in rows and not list(once.glob("events*"))
    saved = torch.load(once / "model_final.pth", weights_only=True)["config"]
    assert "PLUGINS:\n- blend.py\n- counting.py\n- csv_writer.py\n- eca.py" in saved

    refused = run(
        ["train", "--eval-only", "--config-file", once / "config.yaml", *data],
        [*base[:3], *base[1 + len(used) :], "--resume", *SMALL, "MODEL.GATE.NAME", "eca", "OUTPUT_DIR", twice,
         "SOLVER.MAX_ITER", 6],
        code=1,
    )  # fmt: skip
    assert "PLUGINS says that this config was made with blend.py, counting.py, csv_writer.py, eca.py" in refused
    assert "PLUGINS (was ['blend.py', 'counting.py', 'csv_writer.py', 'eca.py'], now ['eca.py'])" in refused
    assert package_hash() == before


@pytest.mark.slow
def test_workers_that_are_spawned_know_the_plugins(place) -> None:
    _, files, data = place
    code = f"""
import multiprocessing
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from se_det.plugins import load_plugins
    from se_det.config import get_cfg, merge_overrides
    from se_det.data import build_train_loader, read_coco
    load_plugins([{files["blend"]!r}])
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", {AUGMENTATIONS!r}, "INPUT.MIN_SIZE_TRAIN", (64,),
                          "SOLVER.IMS_PER_BATCH", 2])
    for cfg.DATALOADER.NUM_WORKERS in (0, 1):
        batches = iter(build_train_loader(cfg, [read_coco({data[1]!r}, {data[3]!r})], seed=3))
        print([int(sample["image"].long().sum()) for _ in range(2) for sample in next(batches)])
"""
    script = Path(files["blend"]).parent / "spawned.txt"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    alone, spawned = result.stdout.splitlines()
    assert alone == spawned and alone.count(",") == 3


def test_a_format_from_outside_is_imported(place) -> None:
    folder, files, data = place
    source = folder / "pairs"
    source.mkdir()
    content = json.loads(Path(data[1]).read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    lines = []
    for annotation in content["annotations"]:
        (source / names[annotation["image_id"]]).write_bytes(
            (Path(data[3]) / names[annotation["image_id"]]).read_bytes()
        )
        x, y, w, h = annotation["bbox"]
        lines.append(f"{names[annotation['image_id']]} kind{annotation['category_id']} {x} {y} {x + w} {y + h}")
    (source / "boxes.txt").write_text("\n".join(lines))
    said = run(["import", source, folder / "imported", *plugins(files, "pairs")])
    assert "pairs (boxes.txt)" in said
    [written_json] = (folder / "imported").rglob("*.json")
    result = json.loads(written_json.read_text())
    assert sorted(a["bbox"] for a in result["annotations"]) == sorted(a["bbox"] for a in content["annotations"])


@pytest.mark.slow
def test_the_centre_detector_learns_and_detects(place) -> None:
    folder, files, _ = place
    json_file, images = draw(folder / "one_class", 6, [{"id": 1, "name": "thing"}, {"id": 1, "name": "thing"}])
    content = json.loads(Path(json_file).read_text())
    content["categories"] = content["categories"][:1]
    Path(json_file).write_text(json.dumps(content))
    data = ["--train-json", json_file, "--train-images", images, "--val-json", json_file, "--val-images", images]
    output = folder / "centre"
    train = [
        "train", *plugins(files, "centre"), "--config-file", "configs/faster_rcnn_se_r18_fpn.yaml", *data, *SMALL,
        "MODEL.META_ARCHITECTURE", "CentreDetector", "DATALOADER.NUM_WORKERS", "0", "SOLVER.MAX_ITER", "150",
        "SOLVER.BASE_LR", "0.002", "SOLVER.REFERENCE_BATCH", "0", "SOLVER.OPTIMIZER", "AdamW", "OUTPUT_DIR", output,
    ]  # fmt: skip
    detected = folder / "centre_detected"
    run(train, ["predict", *plugins(files, "centre"), "--config-file", output / "config.yaml", "--weights",
                output / "model_final.pth", "--output", detected, images])  # fmt: skip
    metrics = json.loads((output / "inference" / "metrics.json").read_text())
    assert metrics["bbox"]["AP50"] > 50, metrics
    assert json.loads((detected / "detections.json").read_text())


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1\nraise RuntimeError('no luck')", "bad.py cannot be loaded: line 2: RuntimeError: no luck."),
        ("def f(:\n", "bad.py cannot be loaded: line 1 is not Python"),
        ("import no_such_module_here", "line 1: ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("import sys\n\nsys.exit(3)", "line 3: SystemExit: 3"),
        (
            "from se_det.layers.gates import GATES\nGATES.register(lambda channels, **o: None, name='se')",
            "There is a gate 'se' already",
        ),
        (
            "from se_det.config import register_keys\n@register_keys\ndef add(cfg):\n    cfg.SEED = 3",
            "change SEED, which there is already",
        ),
    ],
)
def test_a_broken_plugin_is_a_sentence(tmp_path: Path, code: str, sentence: str) -> None:
    from se_det.errors import ConfigError
    from se_det.plugins import load_plugins, loaded_plugins

    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(ConfigError) as error:
        load_plugins([tmp_path / "bad.py"])
    assert sentence in str(error.value) and str(tmp_path / "bad.py") in str(error.value)
    assert loaded_plugins() == []


def test_a_plugin_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    from se_det.errors import ConfigError
    from se_det.plugins import load_plugins

    for path in (tmp_path / "missing.py", tmp_path, Path(__file__).with_suffix(".txt")):
        with pytest.raises(ConfigError, match=r"There is no Python file .* to load as a plugin"):
            load_plugins([path])


def test_a_config_does_not_load_code(tmp_path: Path) -> None:
    from se_det.config import load_config
    from se_det.errors import ConfigError

    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "c.yaml").write_text(f"PLUGINS: [{tmp_path / 'evil.py'}]\n")
    with pytest.raises(ConfigError, match="A config does not load code: give --plugin"):
        load_config(tmp_path / "c.yaml")
    assert not (tmp_path / "ran").exists()
