"""Studies as files: what they say, and what is refused."""

from pathlib import Path

import pytest

from se_det.errors import ConfigError
from se_det.study import read_study

SHIPPED = sorted(Path("configs/studies").glob("*.yaml"))
MINIMAL = "kind: pretrain\nconfig: modern\nrows:\n  plain: {MODEL.NAME: resnet18}\n  se: {MODEL.NAME: se_resnet18}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_sound(path):
    study = read_study(path.stem)
    assert len(study.seeds) >= 3 and len(study.rows) >= 2
    assert path.read_text(encoding="utf-8").count("\n#") >= 2, "what it is, what it should reach, what it costs"


def test_a_run_for_each_row_and_seed_seeds_outermost(tmp_path):
    study = read_study(written(tmp_path, MINIMAL + "seeds: [3, 1]\n"))
    assert [(run.row, run.seed) for run in study.runs()] == [("plain", 3), ("se", 3), ("plain", 1), ("se", 1)]
    assert [run.keys["SEED"] for run in study.runs()] == [3, 3, 1, 1]


def test_axes_are_multiplied(tmp_path):
    axes = "axes:\n  gate:\n    se: {MODEL.GATE.NAME: se}\n    cbam: {MODEL.GATE.NAME: cbam}\n  width:\n"
    axes += "    r4: {MODEL.GATE.REDUCTION: 4}\n    r8: {MODEL.GATE.REDUCTION: 8}\n"
    study = read_study(written(tmp_path, f"kind: train\nconfig: quickstart.yaml\n{axes}"))
    assert list(study.rows) == ["se r4", "se r8", "cbam r4", "cbam r8"]
    cfg = study.load_config(study.runs()[3], tmp_path)
    assert (cfg.MODEL.GATE.NAME, cfg.MODEL.GATE.REDUCTION) == ("cbam", 8)


def test_keys_of_a_row_win_over_the_command_line_and_that_over_the_file(tmp_path):
    text = MINIMAL.replace("rows:", "keys: {INPUT: {IMAGE_SIZE: 64}, SOLVER.EPOCHS: 3}\nrows:")
    study = read_study(written(tmp_path, text), ["SOLVER.EPOCHS", "1.5", "MODEL.NAME", "se_resnet34"])
    cfg = study.load_config(study.runs()[0], tmp_path)
    assert (cfg.INPUT.IMAGE_SIZE, cfg.SOLVER.EPOCHS, cfg.MODEL.NAME) == (64, 1.5, "resnet18")


def test_row_and_seed_are_filled_in(tmp_path):
    text = MINIMAL + 'same_start: false\nkeys: {MODEL.WEIGHTS: "a/{row}/{seed}/{other}.pth"}\nseeds: [5]\n'
    study = read_study(written(tmp_path, text))
    assert study.load_config(study.runs()[1], tmp_path).MODEL.WEIGHTS == "a/se/5/{other}.pth"


@pytest.mark.parametrize(
    "change, told",
    [
        (("kind: pretrain", "kind: trian"), "kind is 'trian'"),
        (("rows:", "rovs:"), "no field 'rovs'. Did you mean 'rows'?"),
        (("MODEL.NAME: se_resnet18", "MODEL.NAMES: se_resnet18"), "row 'se': there is no key MODEL.NAMES"),
        (("  se:", "  s/e:"), "the row 's/e' names a folder"),
        (("  se:", "  Plain:"), "two rows have the same name"),
        (("{MODEL.NAME: se_resnet18}", "{SEED: 3}"), "sets SEED"),
        (("config: modern", "config: [modern]"), "config must name"),
        (("rows:", "seeds: [1, 1]\nrows:"), "different whole numbers"),
        (("rows:", "metric: top1\nrows:"), "must be task/name"),
        (("rows:", "also: top5\nrows:"), "also must list"),
        (("rows:", "also: [top5]\nrows:"), "'top5' must be task/name"),
        (("rows:", "same_start: 1\nrows:"), "true or false"),
        (("rows:", "keys: {MODEL.WEIGHTS: x.pth}\nrows:"), "same_start"),
        (("rows:", "axes: {}\nrows:"), "either rows"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, change, told):
    path = written(tmp_path, MINIMAL.replace(*change))
    with pytest.raises(ConfigError) as error:
        read_study(path)
    assert told in str(error.value) and "study.yaml" in str(error.value)
