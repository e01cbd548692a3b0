"""Proposals of files: what is read, what comes of them on the way to the model, and what is refused."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from se_det.cli.main import main
from se_det.config import load_config
from se_det.data.loader import build_test_loader, build_train_loader
from se_det.errors import ConfigError, DataError
from se_det.files import write_json
from se_det.training.datasets import test_datasets as open_tests
from se_det.training.datasets import train_datasets

SIZE = (60, 80)  # height, width px
BOXES = np.array([[10, 10, 30, 50], [70, 20, 95, 40], [90, 5, 99, 9], [0, 0, 80, 60]], np.float32)
LOGITS = np.array([0.5, 2.0, 3.0, -1.0], np.float32)
TINY = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu",
        "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.RESNETS.NORM", "BN",
        "MODEL.BACKBONE.FREEZE_AT", 0]  # fmt: skip


@pytest.fixture
def keys(tmp_path) -> list:
    """A data set of two images, and a file of proposals for it and for another image."""
    images = []
    for number in (7, 9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((*SIZE, 3), 40 * (number - 6), np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
    truth = [{"id": k, "image_id": k, "category_id": 1, "bbox": [10, 10, 20, 40], "area": 800, "iscrowd": 0}
             for k in (7, 9)]  # fmt: skip
    write_json(tmp_path / "t.json", {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "a"}]})
    write(tmp_path / "p.pkl")
    return [
        "MODEL.LOAD_PROPOSALS", True, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "DATALOADER.NUM_WORKERS",
        0, "DATASETS.TRAIN_JSON", str(tmp_path / "t.json"), "DATASETS.TRAIN_IMAGES", str(tmp_path), "DATASETS.VAL_JSON",
        str(tmp_path / "t.json"), "DATASETS.VAL_IMAGES", str(tmp_path), "DATASETS.PROPOSAL_FILES_TRAIN",
        f'("{tmp_path / "p.pkl"}",)', "DATASETS.PROPOSAL_FILES_TEST", f'("{tmp_path / "p.pkl"}",)',
        "INPUT.MIN_SIZE_TRAIN", (120,), "INPUT.MIN_SIZE_TEST", 90, "SOLVER.IMS_PER_BATCH", 2,
        "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", 2, *TINY,
    ]  # fmt: skip


def write(path, **changes) -> None:
    content = {"ids": [9, 7, 1], "boxes": [BOXES + 1, BOXES, BOXES], "objectness_logits": [LOGITS] * 3, "bbox_mode": 0}
    with path.open("wb") as file:
        pickle.dump({**content, **changes}, file)


def test_samples_have_what_detectron2s_mapper_gives(keys):
    """Best first; what lies in the image, cut off at its border, resized and mirrored with it; then so many."""
    cfg = load_config("configs/faster_rcnn_r50_fpn.yaml", keys)
    [dataset] = open_tests(cfg).values()
    for samples, offset in zip(build_test_loader(cfg, dataset), (0, 1)):
        found = samples[0]["proposals"]
        # The surest, 90 to 99, is beside the image, which is 80 px wide.
        expected = (BOXES + offset)[[1, 0]].clip(0, [80, 60, 80, 60]) * 1.5
        np.testing.assert_allclose(found["proposal_boxes"].numpy(), expected, rtol=1e-6)
        assert found["objectness_logits"].tolist() == [2.0, 0.5]
    batches, mirrored = iter(build_train_loader(cfg, train_datasets(cfg), seed=1)), set()
    for sample in [s for _ in range(4) for s in next(batches)]:
        boxes = (BOXES + (sample["image_id"] == 9))[[1, 0, 3]].clip(0, [80, 60, 80, 60]) * 2
        flipped = np.abs(boxes - [160, 0, 160, 0])[:, [2, 1, 0, 3]]
        own = sample["proposals"]["proposal_boxes"].numpy()
        mirrored.add(bool(np.allclose(own, flipped)))
        assert np.allclose(own, flipped) or np.allclose(own, boxes)
    assert mirrored == {True, False}


def test_it_trains_and_is_evaluated(keys, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [str(word) for word in keys]
    pairs = [f"{key}={value}" for key, value in zip(words[::2], words[1::2])]
    command = ["train", "--config-file", "configs/faster_rcnn_r50_fpn.yaml", *pairs, "OUTPUT_DIR=out"]
    assert main([*command, "SOLVER.MAX_ITER=1", "SOLVER.STEPS=()"]) == 0
    assert (tmp_path / "out" / "inference" / "metrics.json").is_file()
    capsys.readouterr()
    assert main(["predict", "--weights", "out/model_final.pth", "--output", "drawn", "7.png", "MODEL.DEVICE=cpu"]) == 1
    assert "an image comes without proposals" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_what_cannot_be_is_said(keys, tmp_path, capsys):
    def opened(*more):
        return open_tests(load_config("configs/faster_rcnn_r50_fpn.yaml", [*keys, *more]))

    for changes, sentence in (
        ({"boxes": [Evil()] * 3}, "p.pkl is refused: it asks for .*print"),
        ({"ids": [9, 8, 1]}, "has no proposals for image 7 of"),
        ({"boxes": [BOXES[:2]] * 3}, r"image 9 must have boxes \(p, 4\)"),
        ({"boxes": [BOXES + np.inf] * 3}, "image 9 has proposals that are not finite"),
        ({"bbox_mode": 4}, "has bbox_mode 4: use 0"),
        ({"ids": [9]}, "must have lists ids, boxes and objectness_logits of one length"),
    ):
        write(tmp_path / "p.pkl", **changes)
        with pytest.raises(DataError, match=sentence):
            opened()
    assert "run" not in capsys.readouterr().out
    wide = [BOXES - [0, 0, *BOXES[0, :2]]] * 3
    write(tmp_path / "p.pkl", boxes=wide, bbox_mode=1)
    [dataset] = opened().values()
    assert dataset.proposals(0)[0][2].tolist() == [10, 10, 30, 50]
    with pytest.raises(DataError, match="There is no file of proposals"):
        opened("DATASETS.PROPOSAL_FILES_TEST", ("nowhere.pkl",))
    with pytest.raises(ConfigError, match="names 0 files of proposals for 1 data sets"):
        opened("DATASETS.PROPOSAL_FILES_TEST", ())
