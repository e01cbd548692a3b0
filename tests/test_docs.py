"""What the documents say is there and works: links, tests, keys, and every command and block of Python or YAML.

A command or block is run in a temporary folder with small data. Where it cannot be (a GPU, COCO, a download, minutes),
it is in a list below with the reason, and its flags and keys are read by the command's own parser all the same.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.common.config import CfgNode

import se_det
from se_det.backbones import create_model
from se_det.classification.defaults import load_recipe
from se_det.cli.main import COMMANDS, run_command
from se_det.config import get_cfg, load_config, merge_overrides
from se_det.config.defaults import DETECTRON2_ONLY
from se_det.config.loading import flatten
from se_det.config.overrides import parse_overrides, split_assignments
from se_det.study import read_study

from .doc_house import build_house
from .documents import LANGUAGES, PAGES, ROOT, Block, Command, blocks, commands, name_of

SCRIPTS = {
    "train_net": "train", "predict": "predict", "pretrain": "pretrain", "import_data": "import", "preview": "preview",
    "check_data": "check-data", "analyze_model": "analyze-model", "convert_weights": "convert-weights",
    "export_model": "export", "reproduce_zoo": "reproduce-zoo", "serve": "serve", "study": "study",
    "benchmark": "benchmark",
    "doctor": "doctor",
}  # fmt: skip
GPUS = "needs several GPUs"
MACHINES = "needs several machines"
PROCESSES = "starts several processes, as tests/training/test_torchrun.py does"
DOWNLOAD = "downloads weights"
DETECTRON2 = "needs Detectron2; tests/integrations runs it where that is installed"
EXPORTED = "needs an exported file; tests/export runs small ones"
MINUTES = "takes minutes"
TESTS = "is a part of the test run itself"
INSTALLS = "installs packages"
# Commands that are not run, by how they begin.
NOT_RUN = {
    "make quickstart": "installs packages, trains for minutes",
    "make test": TESTS,
    "pip install": INSTALLS,
    "pytest": TESTS,
    "OMP_NUM_THREADS=1 python -m pytest": TESTS,
    "torchrun --nproc-per-node 8": GPUS,
    "torchrun --nproc-per-node 2": PROCESSES,
    "torchrun --nnodes 4": MACHINES,
    "python tools/train_net.py --config-file configs/mask_rcnn_se_r50_fpn.yaml --num-gpus 8": GPUS,
    "python tools/train_net.py --config-file F --num-gpus 8": GPUS,
    "python tools/train_net.py --engine detectron2": DETECTRON2,
    "se-det predict --weights zoo://": DOWNLOAD,
    "se-det train --eval-only MODEL.WEIGHTS=zoo://": DOWNLOAD,
    "se-det train data/ --model configs/faster_rcnn_r50_fpn.yaml MODEL.WEIGHTS=zoo://": DOWNLOAD,
    "python tools/reproduce_zoo.py": DOWNLOAD,
    "python tests/integrations/detectron2_pair.py": DETECTRON2,
    "python tools/benchmark.py gates": MINUTES,
    "python tools/benchmark.py backbone": MINUTES,
    "python tools/benchmark.py detector": MINUTES,
    "python tools/benchmark.py loader": MINUTES,
    "python tools/benchmark.py pretrain": MINUTES,
    "python tools/benchmark.py evaluation": MINUTES,
    "tools/benchmark.py": MINUTES,
    "tools/pretrain.py --recipe modern -a se_resnet18": "stands for a run whose data and other keys the text names",
    "python tools/export_model.py --model se_resnet50 --weights se_resnet50.cadene": DOWNLOAD,
    "se-det export --weights output/model_": "takes a minute; tests/export does it with a small detector",
    "se-det predict --weights detector.onnx": EXPORTED,
    "se-det train data/ --eval-only MODEL.WEIGHTS=detector.onnx": EXPORTED,
    "python tools/benchmark.py runtimes": MINUTES,
    "python tools/benchmark.py pyramid": MINUTES,
    "python tools/train_net.py --config-file configs/mask_rcnn_r50_fpn.yaml MODEL.WEIGHTS zoo://": DOWNLOAD,
    "python tools/analyze_model.py '*' --format csv": MINUTES,
    "python datasets/shape_baseline.py": MINUTES,
    "python datasets/make_shapes.py --large": MINUTES,
    "datasets/make_shapes.py --large": MINUTES,
    "se-det train data/ --output output/mine --resume": "a run that is finished has nothing to go on with",
    "python datasets/make_shapes.py --panoptic": "tests/datasets runs it with few images",
    "python tools/train_net.py --config-file configs/quickstart_panoptic.yaml": MINUTES,
    "se-det predict --weights output/quickstart_panoptic": "is of the run above; tests/training predicts with such",
    "se-det study": "trains many detectors; tests/study runs small ones",
    "python datasets/make_shapes.py --train 3000": "draws for a minute",
    "datasets/make_shapes.py --train 3000": "draws for a minute",
    "python tools/train_net.py --config-file configs/starter_pretraining.yaml": MINUTES,
    "se-det serve": "serves until it is stopped, as tests/serving does",
    "se-det train data/ --output output/mine \"WRITERS=['json', ": "begins a service's run, as "
    "tests/training/test_service_writers.py does",
    "se-det push": "needs the Hub; tests/integrations/test_hub.py has one of its own",
    "se-det predict --weights hf://": DOWNLOAD,
    "se-det predict --weights output/model_best.pth --output far/ 's3://": "needs a bucket",
    "se-det train --plugin my_gate.py": "tests/test_extending.py runs such a command",
}
# Commands that are run where an extra is installed.
NEEDS = {
    "se-det predict --weights output/model_best.pth --output listed/ images.txt --format parquet": "pyarrow",
    "python tools/analyze_model.py '*resnet50' timm/convnext_tiny": "timm",
    "python tools/export_model.py --config-file configs/mask_rcnn_se_r50_fpn.yaml --weights output/model_final.pth "
    "--part backbone": "onnxscript",
}
# Statements that are not run as they stand: by how they begin, what is run in their place, and why.
REPLACED = {
    'model = se_det.create_model("se_resnet50", weights="se_resnet50.cadene")': (
        'model = se_det.create_model("se_resnet50")', DOWNLOAD),
    'model = se_det.create_model(\n    "se_resnet50", weights="se_resnet50.cadene"\n)': ("", DOWNLOAD),
    'se_det.load_weights(model, "zoo://se_resnet50.cadene")': ("", DOWNLOAD),
    'model = torchvision.models.resnet50(weights="IMAGENET1K_V2")': ("model = torchvision.models.resnet50()", DOWNLOAD),
    'predictor = se_det.Predictor("zoo://faster_rcnn_R_50_FPN_3x")': ("", DOWNLOAD),
    "result.to_supervision()": ("", "needs supervision"),
    'backbone = se_det.create_backbone("timm/convnext_tiny"': ("", "needs timm, as tests/backbones does"),
}  # fmt: skip
# Blocks of Python that are not run, by their first line.
NOT_EXECUTED = {
    "from se_det.integrations.detectron2 import add_se_det_config": DETECTRON2,
    "import torch, torchvision": "needs a compiled package; tests/export makes a small one",
    "# client.py": "needs a Triton server",
    "# eca.py": "tests/test_extending.py runs it",
    "# blend.py": "tests/test_extending.py runs it",
    "# counting.py": "tests/test_extending.py runs it",
    "# pairs.py": "tests/test_extending.py runs it",
    "# csv_writer.py": "tests/test_extending.py runs it",
    "# centre.py": "tests/test_extending.py runs it",
}
# What a command is given besides, so that it ends in seconds.
DETECTOR = [
    "MODEL.DEVICE=cpu", "MODEL.RESNETS.DEPTH=18", "MODEL.RESNETS.RES2_OUT_CHANNELS=64", "MODEL.RESNETS.NORM=GN",
    "MODEL.BACKBONE.FREEZE_AT=0", "MODEL.FPN.OUT_CHANNELS=16", "MODEL.ROI_BOX_HEAD.FC_DIM=16",
    "MODEL.ROI_MASK_HEAD.CONV_DIM=8", "INPUT.MIN_SIZE_TRAIN=(64,)", "INPUT.MIN_SIZE_TEST=64",
    "DATALOADER.NUM_WORKERS=0", "SOLVER.AMP.ENABLED=False", "TEST.PRECISION=float32",
]  # fmt: skip
STEPS = [
    "SOLVER.IMS_PER_BATCH=2",
    "SOLVER.MAX_ITER=2",
    "SOLVER.STEPS=(1,)",
    "SOLVER.WARMUP_ITERS=0",
    "TEST.EVAL_PERIOD=1",
]
# Pages whose commands take more than a few seconds on the small data.
SLOW = {"README.md", "docs/checks.md", "model_zoo/README.md", "docs/backbones.md", "docs/export.md"}
IMAGES = (12, 3)  # to train and to evaluate on
CLASSIFIER = [
    "MODEL.NAME=se_resnet18",
    "SOLVER.IMS_PER_BATCH=4",
    "SOLVER.MAX_ITER=2",
    "TEST.EVAL_PERIOD=1",
    "INPUT.IMAGE_SIZE=32",
    "INPUT.SIZES=[]",
    "DATALOADER.NUM_WORKERS=0",
    "MODEL.DEVICE=cpu",
]


def test_every_block_says_its_language() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{block.page}, line {block.line}: say one of {sorted(LANGUAGES)}"


def test_the_lists_name_what_is_there() -> None:
    everything = [command.text for page in PAGES for command in commands(page)]
    code = [block.text for page in PAGES for block in blocks(page) if block.language == "python"]
    for start in (*NOT_RUN, *NEEDS):
        assert any(text.startswith(start) for text in everything), f"no document has the command '{start}' any more"
    for start in (*REPLACED, *NOT_EXECUTED):
        assert any(start in text for text in code), f"no document has this Python any more: {start}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_commands_and_keys_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`se-det ([\w-]+)", text):
        assert name in COMMANDS, f"{page.name}: there is no command se-det {name}"
    for path in re.findall(r"`((?:tools|datasets|configs|se_det|tests)/[\w/]+\.\w+)", text):
        assert (ROOT / path).is_file(), f"{page.name} names {path}"
    defaults = [get_cfg(), load_recipe("modern"), load_recipe("rg_se_paper")]
    known = {key for cfg in defaults for key, _ in flatten(cfg)}
    known |= {key.rsplit(".", depth)[0] for key in known for depth in (1, 2) if key.count(".") >= depth}
    for code in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        for key in re.findall(r"(?:MODEL|INPUT|DATASETS|DATALOADER|SOLVER|TEST)\.[A-Z][A-Z0-9_.]*[A-Z0-9]", code):
            assert key in known or key.startswith(DETECTRON2_ONLY), f"{page.name}: there is no key {key}"


ALL = [command for page in PAGES for command in commands(page)]


def reason_not_to_run(command: Command) -> str | None:
    return next((reason for start, reason in NOT_RUN.items() if command.text.startswith(start)), None)


def is_missing(command: Command) -> bool:
    """Whether an extra is not installed that the command needs."""
    wanted = [package for start, package in NEEDS.items() if command.text.startswith(start)]
    return any(importlib.util.find_spec(package) is None for package in wanted)


def of_se_det(words: list[str]) -> tuple[str, list[str]] | None:
    """The command of se-det that the words call, and its words; None for other programs."""
    if words[0] == "se-det":
        return words[1], words[2:]
    if words[0].startswith("tools/"):
        return SCRIPTS[Path(words[0]).stem], words[1:]
    return None


@pytest.mark.parametrize("command", ALL, ids=lambda c: f"{c.page}: {c.text[:60]}")
def test_every_command_is_read_by_its_parser(command: Command, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house)
    words = command.words
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"^\s+\"(\w+)\": ", (ROOT / "setup.py").read_text(), re.M)
        assert words[-1] in (".", *(f"se_det[{extra}]" for extra in extras))
    elif words[0] == "pytest" or words[:3] == ["python", "-m", "pytest"]:
        paths = [word for word in words if word.startswith("tests/")]
        assert paths and all((ROOT / path).exists() for path in paths)
        assert set(words) - set(paths) <= {"python", "pytest", "-m", "-s", "-k", "slow", "whole"}
    elif words[0].startswith(("datasets/", "tests/")):
        code = (ROOT / words[0]).read_text()
        assert all(f'"{word}"' in code for word in words if word.startswith("--"))
    else:
        if words[0] == "torchrun":
            from torch.distributed.run import get_args_parser

            args = get_args_parser().parse_args(words[1:])
            words = [args.training_script, *args.training_script_args]
        name, rest = of_se_det(words)
        module = importlib.import_module(f"se_det.cli.{COMMANDS[name][0]}")
        monkeypatch.setattr(module, "run", check_config)
        monkeypatch.setattr("se_det.cli.main.load_plugins", lambda files: None)
        assert run_command(name, rest) == 0


def check_config(args: Any) -> int:
    """In place of a command: merge the config that it names and the keys that it is given."""
    words = getattr(args, "overrides", None) or getattr(args, "names", None) or getattr(args, "inputs", None) or []
    pairs = split_assignments(words)[1] if hasattr(args, "inputs") else words
    if "recipe" in args:
        merge_overrides(load_recipe(args.recipe or "rg_se_paper"), parse_overrides(pairs))
    elif getattr(args, "config_file", None):
        load_config(args.config_file, parse_overrides(pairs))
    return 0


def runnable(page: Path) -> Any:
    """A page as a parameter of a test."""
    return pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if name_of(page) in SLOW else [])


@pytest.mark.parametrize(
    "page", [runnable(page) for page in PAGES if set(map(reason_not_to_run, commands(page))) & {None}]
)
def test_commands_run(page: Path, place: Path, capsys: pytest.CaptureFixture) -> None:
    for command in commands(page):
        if reason_not_to_run(command) or is_missing(command):
            continue
        shutil.rmtree("OUT", ignore_errors=True)  # two ways to write the same
        called = of_se_det(command.words)
        if called is None:
            script, *words = command.words
            monkey = [
                str(ROOT / script),
                *words,
                *(["--train", str(IMAGES[0]), "--val", str(IMAGES[1])] if "make_shapes" in script else []),
            ]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", monkey)
                patch.syspath_prepend(str(ROOT / "datasets"))
                with pytest.raises(SystemExit) as ended:
                    runpy.run_path(str(ROOT / script), run_name="__main__")
            code = ended.value.code
        else:
            capsys.readouterr()
            code = run_command(called[0], small(*called))
        said = capsys.readouterr()
        assert not code, f"{command.text}\nends with {code}:\n{said.out[-2000:]}{said.err[-2000:]}"
        if command.output is not None:
            assert said.out == command.output


def small(name: str, words: list[str]) -> list[str]:
    """The words of a command with others, by which it ends within seconds on the small data."""
    if name == "train" and "--eval-only" not in words:
        # From a file of weights the norms are as there.
        start = ["MODEL.RESNETS.NORM=FrozenBN"] if "MODEL.WEIGHTS" in words else ["MODEL.WEIGHTS="]
        return [*words, "--overwrite", *DETECTOR, *STEPS, *start]
    if name == "train":
        return [*words, *DETECTOR]
    if name == "predict":
        parts = any(word.endswith((".tar", ".txt")) for word in words)  # of a collection, which has no limit
        return [*words, *([] if parts else ["--limit", "2"]), *DETECTOR]
    if name == "pretrain" and not {"--evaluate", "--export"} & set(words):
        return [*words, "--overwrite", *CLASSIFIER]
    if name in ("export", "analyze-model") and "--config-file" in words:
        return [*words, *(["--limit", "1"] if "--gates" in words else []), *DETECTOR]
    if "--gates" in words:
        return [*words, "--limit", "1", "--size", "64", "64"]
    return words


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.language == "yaml" for b in blocks(p))], ids=name_of)
def test_yaml_loads(page: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "base_rcnn_fpn.yaml", tmp_path)
    for block in blocks(page):
        if block.language == "yaml":
            (tmp_path / "block.yaml").write_text(block.text, encoding="utf-8")
            # A study's file says of which kind its runs are.
            (read_study if "\nkind: " in block.text else load_config)(tmp_path / "block.yaml")


def python_blocks(page: Path) -> list[Block]:
    found = [block for block in blocks(page) if block.language == "python"]
    return [block for block in found if block.text.splitlines()[0].split("  #")[0] not in NOT_EXECUTED]


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=name_of)
def test_python_runs(page: Path, place: Path) -> None:
    import torchvision

    cfg = load_config("configs/mask_rcnn_se_r50_fpn.yaml", parse_overrides(DETECTOR))
    names = {"se_det": se_det, "torch": torch, "torchvision": torchvision, "cfg": cfg, "x": torch.zeros(1, 3, 64, 64)}
    for block in python_blocks(page):
        for statement in ast.parse(block.text).body:
            text = ast.get_source_segment(block.text, statement)
            code = next((other for start, (other, _) in REPLACED.items() if text.startswith(start)), text)
            exec(compile("\n" * block.line + code, block.page, "exec"), names)
            for value in names.values():
                if isinstance(value, CfgNode):
                    merge_overrides(value, parse_overrides(DETECTOR))


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and configs that the documents name, small; weights are not in it."""
    root = tmp_path_factory.mktemp("house")
    build_house(root, *IMAGES)
    return root


@pytest.fixture(scope="session")
def furnished(house: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the house with trained weights."""
    root = tmp_path_factory.mktemp("furnished") / "house"
    shutil.copytree(house, root, symlinks=True)
    shutil.rmtree(root / "output")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for config, folder in (("mask_rcnn_se_r50_fpn", "output"), ("quickstart", "output/quickstart")):
            words = ["--config-file", f"configs/{config}.yaml", f"OUTPUT_DIR={folder}/run"]
            assert run_command("train", small("train", words)) == 0
            shutil.copy(f"{folder}/run/model_final.pth", f"{folder}/model_final.pth")
            shutil.rmtree(f"{folder}/run")
        words = ["--train_data_path", "imagenet/train", "--test_data_path", "imagenet/val", "--output", "run"]
        assert run_command("pretrain", small("pretrain", words)) == 0
        for name in ("se_resnet50", "pretrain"):
            Path("output", name).mkdir()
            shutil.copy("run/model_best.pth", f"output/{name}/model_best.pth")
        shutil.rmtree("run")
        for name in ("model_final.pth", "output/model_best.pth"):
            shutil.copy("output/model_final.pth", name)
        torch.save(create_model("se_resnet50").state_dict(), "se_resnet50.pth")
    return root


@pytest.fixture
def place(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A furnished house of one's own, in which a test runs."""
    shutil.copytree(furnished, tmp_path / "house", symlinks=True, copy_function=os.link)
    monkeypatch.chdir(tmp_path / "house")
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    torch.set_num_threads(1)
    return tmp_path / "house"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_tests_exist(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), f"{page.name} names {file}"
        if name:
            assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{page.name} names {file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_linked_pages_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in names, f"{page.name} links to {target}#{anchor}"


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w/.]+\.md)", (ROOT / "docs/index.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked
    assert "docs/index.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_row_of_the_pitfalls_names_a_test() -> None:
    rows = [line for line in (ROOT / "docs/pitfalls.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    assert len(rows) == 55 and all("::test_" in row for row in rows[1:])


def test_the_table_of_models_has_their_parameters() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) == 44
    for name, parameters in rows:
        with torch.device("meta"):
            model = create_model(name)
        assert sum(p.numel() for p in model.parameters()) == int(parameters.replace(",", "")), name
