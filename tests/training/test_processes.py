"""Two processes against one, and what happens when one of them fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_run import TinyDetector, batches, train_together
from torch.multiprocessing.spawn import ProcessContext, ProcessRaisedException

from se_det import comm
from se_det.data.skipping import SkippedImages
from se_det.errors import ConfigError, DataError, Interrupted, TrainingError
from se_det.training.distributed import wrap_distributed
from se_det.training.launch import free_port, launch, spawn
from se_det.training.loop import seed_step, train
from se_det.training.optimizer import build_optimizer
from se_det.training.preemption import EvaluationStopped, StopRequest, stop_on_signals
from se_det.training.progress import Progress

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def spawn_two(function, *args) -> None:
    spawn(function, args, processes=2, url=f"tcp://127.0.0.1:{free_port()}")


def test_two_processes_and_accumulation_equal_one(tmp_path: Path) -> None:
    train_together(str(tmp_path / "one"), torch.float64, 1, 10)
    train_together(str(tmp_path / "parts"), torch.float64, 4, 10)
    spawn_two(train_together, str(tmp_path / "two"), torch.float64, 2, 10)
    one = torch.load(tmp_path / "one")
    start = TinyDetector(dropout=0.0, noise=0.0, norm=False).double().state_dict()
    assert max((one[name] - start[name]).abs().max().item() for name in one) > 1e-2
    for other in (torch.load(tmp_path / "parts"), torch.load(tmp_path / "two")):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-12)


def train_without_looking(model, samples, actions, *, lr: float, max_iter: int, **more) -> None:
    """Losses are looked at now and then only, as on a GPU."""
    train(
        wrap_distributed(model),
        samples,
        build_optimizer(model, base_lr=lr, weight_decay=0.0),
        lambda step: lr,
        max_iter=max_iter,
        seed=1,
        actions=actions,
        progress=Progress(start=0, max_iter=max_iter),
        read_every_step=False,
        **more,
    )


def spoil(folder: str) -> None:
    """Process 1 meets an image that is not finite in step 3."""
    model = TinyDetector()

    def spoilt():
        for step, samples in enumerate(batches(0, images=2 * comm.get_world_size())):
            if step == 2 and comm.get_rank() == comm.get_world_size() - 1:
                samples[1]["image"][0, 2, 3] = float("nan")
            yield samples

    class SaveAlways:
        def due(self, step: int) -> bool:
            return True

        def __call__(self, step: int) -> bool:
            Path(folder, f"{comm.get_rank()}_{step}").touch()
            return False

    try:
        train_without_looking(model, spoilt(), SaveAlways(), lr=0.125, max_iter=50)
    except TrainingError as error:
        Path(folder, f"{comm.get_rank()}_error").write_text(str(error))
        raise


TOLD = (
    r"not finite in step 3 at learning rate 0\.125: loss_cls nan, loss_side nan on image ids {}\. No checkpoint of it "
    r"was written\."
)


def test_a_loss_that_is_not_finite_stops_one_process(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=TOLD.format("img4, img5")):
        spoil(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0_1", "0_2", "0_error"]


def test_a_run_that_is_to_leave_saves_nothing_that_is_not_finite() -> None:
    """Where losses are looked at now and then only, as on a GPU."""

    class Never:
        due = staticmethod(lambda step: False)
        save = staticmethod(lambda step: pytest.fail("saved"))

    stop = StopRequest()

    def spoilt():
        for step, samples in enumerate(batches(0)):
            if step == 2:
                samples[0]["image"][0, 0, 0] = float("nan")
                stop.signal = signal.SIGTERM
            yield samples

    model = TinyDetector()
    with pytest.raises(TrainingError, match="not finite in step 3"):
        train_without_looking(model, spoilt(), Never(), lr=0.1, max_iter=9, stop=stop)


@pytest.mark.usefixtures("quick_start")
def test_a_loss_that_is_not_finite_stops_all_processes_together(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=TOLD.format("img10, img11")):
        spawn_two(spoil, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0_1", "0_2", "0_error", "1_1", "1_2", "1_error"]
    assert (tmp_path / "0_error").read_text() == (tmp_path / "1_error").read_text()


def overflow_on_each() -> None:
    """Every process has left out as many images as the run may, and each another."""
    skipped = SkippedImages(1)
    skipped.record({comm.get_rank(): f"{comm.get_rank()}.jpg is torn."})
    skipped.synchronize()


@pytest.mark.slow
def test_processes_share_one_budget_of_bad_images() -> None:
    with pytest.raises(DataError, match=r"2 images .*SKIP_BAD_IMAGES is 1: 0\.jpg is torn\. 1\.jpg is torn"):
        spawn_two(overflow_on_each)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_processes_that_end_together_are_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the end of the first and the next wait all others end."""
    join = ProcessContext.join

    def join_slowly(context: ProcessContext) -> bool:
        finished = join(context)
        for process in context.processes:
            process.join()
        return finished

    monkeypatch.setattr(ProcessContext, "join", join_slowly)
    spawn_two(end_by_rank)


def end_by_rank() -> None:
    time.sleep(comm.get_rank())


def refuse_on_one() -> None:
    if comm.get_rank() == 1:
        raise DataError("photo.jpg is torn.")
    comm.synchronize()


def refuse_at_length() -> None:
    raise DataError(f"{comm.get_rank()} " + "many.jpg are torn. " * 20_000)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_a_sentence_longer_than_a_pipe_holds_arrives() -> None:
    """Each process must be heard before it can end."""
    with pytest.raises(DataError, match=r"^\d (many\.jpg are torn\. ){20000}$"):
        spawn_two(refuse_at_length)


def leave_when_asked(folder: str) -> None:
    """A SIGTERM to the second process alone, and a Ctrl-C's SIGINT to the first; step 7 is not a step to ask at."""
    with stop_on_signals() as stop, stop.deferred():
        for step in range(1, 40):
            if step == 7:
                os.kill(os.getpid(), signal.SIGTERM if comm.get_rank() else signal.SIGINT)
            if stop.requested(step):
                break
        Path(folder, f"{comm.get_rank()}_{step}").touch()
        comm.synchronize()
        raise stop.error(f"after {step} steps.")


@pytest.mark.usefixtures("quick_start")
def test_all_processes_leave_after_the_same_step(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="SIGINT ended the run after 10 steps"):
        spawn_two(leave_when_asked, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0_10", "1_10"]


def leave_as_the_parent_is_asked() -> None:
    with stop_on_signals() as stop, stop.deferred():
        if comm.get_rank() == 0:
            os.kill(os.getppid(), signal.SIGINT)
        step = 0
        while not stop.requested(step):
            step += 1
            time.sleep(0.001)
        comm.synchronize()
        raise stop.error("after some steps.")


@pytest.mark.slow
def test_the_signal_that_is_told_is_the_one_that_came() -> None:
    """SIGINT to the process that started them, which they get as SIGTERM."""
    with pytest.raises(Interrupted, match=r"^SIGINT ended the run after some steps\.$"):
        spawn_two(leave_as_the_parent_is_asked)


def leave_an_evaluation(folder: str) -> None:
    """The second process has a batch less than the first, and gets the signal."""
    with stop_on_signals() as stop, stop.deferred():
        assert list(stop.stoppable(range(31 - comm.get_rank()))) == list(range(31 - comm.get_rank()))
        try:
            for batch in stop.stoppable(range(31 - comm.get_rank())):
                last = batch
                if batch == 12 and comm.get_rank() == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
        except EvaluationStopped:
            Path(folder, f"{comm.get_rank()}_{last}").touch()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_start")
def test_all_processes_leave_an_evaluation_after_equally_many_batches(tmp_path: Path) -> None:
    spawn_two(leave_an_evaluation, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0_19", "1_19"]


def die_on_one(together: bool) -> None:
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if together:
        comm.synchronize()  # fails, with another error
    time.sleep(60)


def raise_on_one() -> None:
    if comm.get_rank() == 1:
        raise ZeroDivisionError("nobody foresaw this")
    comm.synchronize()


@pytest.mark.usefixtures("quick_start")
def test_an_error_on_one_process_ends_all_with_its_sentence() -> None:
    with pytest.raises(DataError, match=r"^photo\.jpg is torn\.$"):
        spawn_two(refuse_on_one)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_a_killed_process_ends_all(together: bool) -> None:
    with pytest.raises(TrainingError, match=r"Process 1 was ended by SIGKILL, and the others were ended"):
        spawn_two(die_on_one, together)


@pytest.mark.slow
def test_an_unforeseen_error_on_one_process_ends_all_with_its_traceback() -> None:
    with pytest.raises(ProcessRaisedException, match="nobody foresaw this"):
        spawn_two(raise_on_one)


@pytest.mark.slow
def test_torchrun_tells_an_error_of_all_processes_once(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom se_det.errors import SeDetError, DataError\nfrom se_det.training.launch import launch\n"
        "from se_det import comm\n"
        "def refused(world):\n"
        "    assert comm.world_size() == world\n"
        "    raise DataError('photo.jpg is torn.')\n"
        "try:\n    launch(refused, (2,), device='cpu')\n"
        "except SeDetError as error:\n    sys.exit(f'told: {error}')\n"
    )
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), str(script)]
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert len(re.findall(r"^told: photo\.jpg is torn\.$", done.stderr, re.MULTILINE)) == 1, done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_gpus": 2}, r"--num-gpus is 2, and there are no GPUs here.*give at most 0"),
        ({"num_gpus": -1}, r"--num-gpus must not be negative"),
        ({"num_machines": 2, "machine_rank": 2}, r"--machine-rank must be between 0 and 1 .*got 2"),
        ({"num_machines": 2}, r"--dist-url must be the same address"),
    ],
)
def test_a_start_that_cannot_be_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        launch(pytest.fail, ("started",), device="cpu", **arguments)


def test_one_process_is_this_one() -> None:
    pids = []
    launch(lambda: pids.append(os.getpid()), device="cpu")
    assert pids == [os.getpid()] and not comm.is_distributed()


def test_random_numbers_follow_seed_step_and_part() -> None:
    def drawn(*where: int) -> float:
        seed_step(*where)
        return torch.rand(()).item()

    assert drawn(1, 5, 1) == drawn(1, 5, 1)
    assert len({drawn(seed, step, part) for seed in range(4) for step in range(4) for part in range(4)}) == 64
