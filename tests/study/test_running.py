"""Making a study's runs: each once, by one or several processes, whatever is killed."""

import multiprocessing
import random
import threading
import time

import pytest
import torch

from se_det.errors import ConfigError
from se_det.study import read_study, run_study
from se_det.study.process import RunFailed
from se_det.study.results import read_results
from se_det.study.start import common_start

TEXT = (
    "kind: pretrain\nconfig: modern\nkeys: {MODEL.NUM_CLASSES: 2}\nrows:\n"
    "  plain: {MODEL.NAME: resnet18}\n  se: {MODEL.NAME: se_resnet18}\n"
    "seeds: [1, 2, 3]\n"
)


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return read_study(path)


class Maker:
    """Stands for the training: a run's metric is its seed, plus one with gates."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.made: list[tuple[str, int]] = []
        self.seconds = seconds

    def __call__(self, kind, cfg, first, *, resume):
        time.sleep(self.seconds)
        self.made.append((cfg.MODEL.NAME, cfg.SEED))
        metric = cfg.SEED + (cfg.MODEL.NAME != "resnet18")
        with open(f"{cfg.OUTPUT_DIR}/config.yaml", "w", encoding="utf-8") as file:
            file.write(cfg.dump())
        return {"metrics": {"classification": {"top1": float(metric)}}, "memory_mib": 1.0}


def test_every_run_is_made_once_and_not_again(study, tmp_path):
    maker = Maker()
    assert run_study(study, tmp_path / "out", make=maker) == {}
    assert maker.made == [("resnet18", 1), ("se_resnet18", 1), ("resnet18", 2), ("se_resnet18", 2), ("resnet18", 3),
                          ("se_resnet18", 3)]  # fmt: skip
    assert run_study(study, tmp_path / "out", make=maker) == {}
    assert len(maker.made) == 6
    plain, se = read_results(study, tmp_path / "out")
    assert plain.values == {1: 1.0, 2: 2.0, 3: 3.0} and se.difference.mean == 1.0
    assert se.parameters > plain.parameters > 11e6 and se.multiply_adds > plain.multiply_adds


def test_two_processes_share_the_runs(study, tmp_path):
    makers = [Maker(seconds=0.05), Maker(seconds=0.05)]
    threads = [threading.Thread(target=run_study, args=(study, tmp_path), kwargs={"make": m}) for m in makers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = makers[0].made + makers[1].made
    assert len(made) == len(set(made)) == 6
    assert makers[0].made and makers[1].made


def test_what_fails_is_named_and_tried_again_by_the_next_call(study, tmp_path):
    class Failing(Maker):
        def __call__(self, kind, cfg, first, *, resume):
            if cfg.SEED == 2:
                raise RunFailed("the disk is full")
            return super().__call__(kind, cfg, first, resume=resume)

    failed = run_study(study, tmp_path, make=Failing())
    assert {run.name: why for run, why in failed.items()} == {
        "plain, seed 2": "the disk is full", "se, seed 2": "the disk is full",
    }  # fmt: skip
    again = Maker()
    assert run_study(study, tmp_path, make=again) == {}
    assert {seed for _, seed in again.made} == {2}


def test_a_run_without_the_metric_has_failed(study, tmp_path):
    class Other(Maker):
        def __call__(self, *args, **options):
            return {**super().__call__(*args, **options), "metrics": {"classification": {"top5": 1.0}}}

    failed = run_study(study, tmp_path, make=Other())
    assert len(failed) == 6 and "no metric classification/top1, only classification/top5" in failed[study.runs()[0]]


def test_an_interrupted_study_goes_on_where_it_was(study, tmp_path):
    class Interrupted(Maker):
        def __call__(self, kind, cfg, first, *, resume):
            if len(self.made) == 2:
                torch.save({}, f"{cfg.OUTPUT_DIR}/model_0000009.pth")
                raise KeyboardInterrupt
            return super().__call__(kind, cfg, first, resume=resume)

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, make=Interrupted())
    resumed = []

    class Noting(Maker):
        def __call__(self, kind, cfg, first, *, resume):
            resumed.append((cfg.MODEL.NAME, cfg.SEED, resume))
            return super().__call__(kind, cfg, first, resume=resume)

    assert run_study(study, tmp_path, make=Noting()) == {}
    assert resumed[0] == ("resnet18", 2, True) and [r for *_, r in resumed[1:]] == [False] * 3


def test_a_folder_of_other_keys_is_refused(study, tmp_path):
    run_study(study, tmp_path / "out", make=Maker())
    path = tmp_path / "study.yaml"
    path.write_text(TEXT.replace("se_resnet18", "se_resnet34"), encoding="utf-8")
    with pytest.raises(ConfigError, match="was made with MODEL.NAME 'se_resnet18', and the study says 'se_resnet34'"):
        run_study(read_study(path), tmp_path / "out", make=Maker())
    path.write_text(TEXT.replace("rows:", "rows:\n  more: {MODEL.NAME: cbam_resnet18}"), encoding="utf-8")
    more = Maker()
    run_study(read_study(path), tmp_path / "out", make=more)
    assert {name for name, _ in more.made} == {"cbam_resnet18"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    import cv2
    import numpy as np

    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for index in range(8):
                image = random.integers(0, 100, (40, 40, 3)) + 120 * number
                cv2.imwrite(str(root / split / name / f"{index}.png"), image.astype(np.uint8))
    return root


def tiny(path, pictures, **more):
    keys = {
        "DATASETS.TRAIN": f"{pictures}/train", "DATASETS.TEST": f"{pictures}/val", "MODEL.DEVICE": "cpu",
        "INPUT.IMAGE_SIZE": 32, "INPUT.SIZES": "[]", "INPUT.REPEATS": 1, "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.MAX_ITER": 3,
        "SOLVER.CHECKPOINT_PERIOD": 1, "DATALOADER.NUM_WORKERS": 0, "SOLVER.AMP.ENABLED": False, **more,
    }  # fmt: skip
    path.write_text(TEXT.replace("[1, 2, 3]", "[1]"), encoding="utf-8")
    return read_study(path, [part for key, value in keys.items() for part in (key, str(value))])


def test_rows_begin_alike_but_for_their_gates(pictures, tmp_path):
    study = tiny(tmp_path / "study.yaml", pictures)
    plain, se = (study.load_config(run, tmp_path) for run in study.runs())
    first, gated = common_start("pretrain", plain, plain), common_start("pretrain", se, plain)
    assert set(first) < set(gated) and all(".gate." in name for name in set(gated) - set(first))
    for name, tensor in first.items():
        assert torch.equal(tensor, gated[name]), name
    own = [name for name in gated if name.endswith("gate.fc1.weight")]
    assert len(own) == 8 and all(gated[name].std() > 0 for name in own)


LONG = {"SOLVER.MAX_ITER": 48, "SOLVER.CHECKPOINT_PERIOD": 4}


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The folder of a study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_study(tiny(folder / "study.yaml", pictures, **LONG), folder) == {}
    return folder


def started(study, folder):
    process = multiprocessing.get_context("spawn").Process(target=run_study, args=(study, folder))
    process.start()
    return process


def assert_same_study(study, folder, whole):
    for one, other in zip(read_results(study, whole), read_results(study, folder)):
        assert one.values == other.values and one.also == other.also and not other.missing
    for run in study.runs():
        ours, theirs = (torch.load(run.folder(root) / "model_final.pth", weights_only=False)["model"]
                        for root in (folder, whole))  # fmt: skip
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert not (run.folder(folder) / "start.pth").exists()


@pytest.mark.slow
def test_a_study_killed_ten_times_ends_as_one_that_was_not(pictures, tmp_path, whole):
    study, folder, chance = tiny(tmp_path / "study.yaml", pictures, **LONG), tmp_path / "killed", random.Random(0)
    for _ in range(10):
        process, before = started(study, folder), set(folder.glob("runs/*/*/model_0*.pth"))
        while process.is_alive() and set(folder.glob("runs/*/*/model_0*.pth")) <= before:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 1.5))
        assert process.is_alive(), "it ended before it was killed"
        process.kill()
        process.join()
    assert run_study(study, folder) == {}
    assert_same_study(study, folder, whole)


@pytest.mark.slow
def test_two_processes_share_a_study(pictures, tmp_path, whole):
    study, folder = tiny(tmp_path / "study.yaml", pictures, **LONG), tmp_path / "shared"
    processes = [started(study, folder) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert_same_study(study, folder, whole)
    for run in study.runs():
        log = (run.folder(folder) / "log.txt").read_text(encoding="utf-8")
        assert log.count("Pretraining (") == 1, run
