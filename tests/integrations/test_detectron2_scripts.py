"""What a script of a Detectron2 user does with a config that has se_det's keys in it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")
import cv2
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultPredictor, DefaultTrainer, default_setup

from se_det.integrations.detectron2 import add_se_det_config

from .known_weights import SLIM

pytestmark = pytest.mark.detectron2

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def with_our_keys() -> CfgNode:
    cfg = get_cfg()
    add_se_det_config(cfg)
    return cfg


# PointRend's keys are its project's, which Detectron2's package does not install.
MERGED = [path for path in sorted(CONFIGS.glob("*.yaml")) if not path.stem.startswith("point_rend")]


@pytest.mark.parametrize("path", MERGED, ids=lambda p: p.stem)
def test_every_shipped_config_can_be_merged_and_goes_round(path, tmp_path, caplog):
    cfg = with_our_keys()
    cfg.merge_from_file(str(path))
    assert "has no VERSION" not in caplog.text
    cfg.merge_from_list(["MODEL.GATE.NAME", "rg_se", "MODEL.GATE.STAGES", "['res4']", "SOLVER.EMA.DECAY", "0.99"])
    assert (cfg.MODEL.GATE.NAME, cfg.MODEL.GATE.STAGES, cfg.SOLVER.EMA.DECAY) == ("rg_se", ["res4"], 0.99)
    again = with_our_keys()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again.merge_from_file(str(tmp_path / "config.yaml"))
    # Tuples inside tuples come back as lists, as they do without our keys, and what a list holds sorted by name.
    texts = {json.dumps(one, sort_keys=True) for one in (again, cfg, cfg.clone())}
    assert len(texts) == 1
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.MODEL.GATE.NAME = "se"
    assert pickle.loads(pickle.dumps(cfg)) == cfg
    cfg.defrost()
    cfg.MODEL.GATE.NAME = "se"


def _gate_of(cfg, queue):
    queue.put((cfg.MODEL.GATE.NAME, type(cfg.MODEL.GATE) is type(cfg)))


def test_a_spawned_process_gets_the_config_whole():
    cfg = with_our_keys()
    cfg.merge_from_file(str(CONFIGS / "faster_rcnn_se_r50_fpn.yaml"))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_gate_of, args=(cfg, queue))
    process.start()
    assert queue.get(timeout=120) == ("se", True)
    process.join()


@pytest.fixture
def registered(tmp_path):
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), generator.integers(0, 256, (64, 80, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0,
             "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]}
        )  # fmt: skip
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "all.json").write_text(json.dumps(document))
    register_coco_instances("se_det_script", {}, str(tmp_path / "all.json"), str(tmp_path))
    yield tmp_path
    DatasetCatalog.remove("se_det_script")
    MetadataCatalog.remove("se_det_script")


def test_setup_trainer_and_predictor(registered):
    cfg = with_our_keys()
    cfg.merge_from_file(str(CONFIGS / "mask_rcnn_se_r50_fpn.yaml"))
    cfg.merge_from_list(
        [*SLIM, "DATASETS.TRAIN", "('se_det_script',)", "DATASETS.TEST", "('se_det_script',)", "MODEL.DEVICE", "cpu",
         "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.NUM_CLASSES", "1", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2",
         "DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64",
         "OUTPUT_DIR", str(registered / "out")]
    )  # fmt: skip
    cfg.freeze()
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items() if ".gate." in k}
    trainer.train()
    after = trainer.model.state_dict()
    assert before and any(not torch.equal(value, after[key]) for key, value in before.items())

    saved = get_cfg()
    add_se_det_config(saved)
    saved.merge_from_file(str(registered / "out" / "config.yaml"))
    saved.MODEL.WEIGHTS = str(registered / "out" / "model_final.pth")
    predictor = DefaultPredictor(saved)
    for key, value in predictor.model.state_dict().items():
        assert torch.equal(value, after[key]), key
    assert predictor(cv2.imread(str(registered / "1.png")))["instances"].image_size == (64, 80)
