"""Evaluation over two gloo processes equals that of one."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path

import coco_samples
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from se_det.evaluation import CocoEvaluator, coco_eval, evaluate


@pytest.mark.usefixtures("quick_start")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Uneven parts, an image that both processes see, several pieces per gather, an evaluator made before the group."""
    content = coco_samples.random_content()
    path = coco_samples.write(tmp_path / "truth.json", content)
    alone = CocoEvaluator(coco_samples.Dataset(path), ("bbox", "segm"), tmp_path / "one")
    alone.process(*coco_samples.random_outputs(content))
    expected = alone.evaluate()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_process, args=(port, path, tmp_path), nprocs=2, start_method="spawn")

    assert json.loads((tmp_path / "rank0.json").read_text()) == json.loads(json.dumps(_plain(expected)))
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}
    for name in ("coco_instances_results.json", "metrics.json"):
        one, two = (tmp_path / run / "inference" / name for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def _process(rank: int, port: int, path: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    coco_eval.IMAGES_PER_PIECE = 2
    if rank == 1:  # the launcher starts the group first; rank 0 shows that the other order works too
        _join(rank, port)
    evaluator = CocoEvaluator(coco_samples.Dataset(path), ("bbox", "segm"), folder / "two")
    if rank == 0:
        _join(rank, port)
    samples, outputs = coco_samples.random_outputs(json.loads(path.read_text()))
    mine = slice(0, 8) if rank == 0 else slice(7, 12)
    found = {sample["image_id"]: output for sample, output in zip(samples, outputs)}
    metrics = evaluate(_Replay(found), [[sample] for sample in samples[mine]], evaluator)
    (folder / f"rank{rank}.json").write_text(json.dumps(_plain(metrics)))
    dist.destroy_process_group()


def _join(rank: int, port: int) -> None:
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=timedelta(seconds=60))


class _Replay(torch.nn.Module):
    """Answers with outputs prepared beforehand."""

    def __init__(self, found: dict) -> None:
        super().__init__()
        self.found = found

    def forward(self, samples: list[dict]) -> list[dict]:
        return [self.found[sample["image_id"]] for sample in samples]


def _plain(metrics: dict) -> dict:
    return {task: {name: repr(value) for name, value in values.items()} for task, values in metrics.items()}
