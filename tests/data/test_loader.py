"""Samples as the detector takes them, from files to batches."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import CONTENT, changed, rectangle, small_set, write_images, write_json
from PIL import Image

from se_det.config import get_cfg
from se_det.data import CocoDataset, build_test_loader, build_train_loader, read_coco, test_loader, train_loader
from se_det.data.augmentations import resize_and_flip
from se_det.data.samples import TrainDataset
from se_det.errors import ConfigError, DataError

PLAIN = resize_and_flip(short_sides=(0,), max_size=1333, flip="none")
VARIED = resize_and_flip(short_sides=(24, 32, 40), max_size=60)


def loaded(dataset: CocoDataset, count: int, **settings: Any) -> list[list[dict]]:
    settings = {"augmentations": VARIED, "ims_per_batch": 4, "seed": 2, "masks": True, **settings}
    return list(islice(train_loader([dataset], **settings), count))


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for pair in zip(a, b):
            assert_same(*pair)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    else:
        assert a == b


def test_a_training_sample_holds_what_the_file_says(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    batches = loaded(dataset, 4, augmentations=PLAIN, ims_per_batch=1, format="RGB")
    sample = next(s for batch in batches for s in batch if s["image_id"] == 5)
    pixels = np.asarray(Image.open(tmp_path / "images/five.png"))
    assert sample["image"].dtype == torch.uint8
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), pixels)
    assert (sample["height"], sample["width"]) == (40, 50)
    assert sample["file_name"] == str(tmp_path / "images/five.png")
    instances = sample["instances"]  # the crowd is not among them
    assert_same(instances["gt_boxes"], torch.tensor([[4.0, 3, 20, 9], [20, 10, 30, 30]]))
    assert_same(instances["gt_classes"], torch.tensor([0, 1]))
    masks = instances["gt_masks"]
    assert_same(masks["polygons"], torch.tensor([[20, 10], [30, 10], [30, 30]], dtype=torch.float64))
    assert_same(masks["polygon_points"], torch.tensor([3]))
    assert_same(masks["polygon_owner"], torch.tensor([1]))
    assert_same(masks["bitmaps"], torch.from_numpy(rectangle().copy())[None])
    assert_same(masks["bitmap_owner"], torch.tensor([0]))


def test_instances_that_vanish_are_left_out_with_their_masks(tmp_path: Path) -> None:
    content = changed("annotations", 2, "bbox", to=[60, 60, 5, 5])  # outside of its image
    dataset = small_set(tmp_path, content).subset([0])
    [[sample]] = loaded(dataset, 1, augmentations=PLAIN, ims_per_batch=1)
    instances = sample["instances"]
    assert instances["gt_boxes"].tolist() == [[20, 10, 30, 30]]
    assert instances["gt_masks"]["polygon_owner"].tolist() == [0]
    assert instances["gt_masks"]["bitmaps"].shape == (0, 40, 50)


def test_an_instance_whose_mask_vanishes_in_resizing_is_left_out(tmp_path: Path) -> None:
    dot = {"size": [40, 50], "counts": [41, 1, 1958]}  # one pixel, which none of the new pixels' centres lies in
    dataset = small_set(tmp_path, changed("annotations", 2, "segmentation", to=dot)).subset([0])
    small = resize_and_flip(short_sides=(10,), max_size=99, flip="none")
    [[sample]] = loaded(dataset, 1, augmentations=small, ims_per_batch=1)
    assert sample["instances"]["gt_classes"].tolist() == [1]
    [[sample]] = loaded(dataset, 1, augmentations=small, ims_per_batch=1, masks=False)
    assert sample["instances"]["gt_classes"].tolist() == [0, 1]


def test_an_image_without_annotations_is_a_sample_when_it_is_kept(tmp_path: Path) -> None:
    dataset = small_set(tmp_path).subset([2])
    [[sample]] = loaded(dataset, 1, ims_per_batch=1, filter_empty=False)
    assert sample["instances"]["gt_boxes"].shape == (0, 4)
    assert sample["instances"]["gt_masks"]["polygons"].shape == (0, 2)
    with pytest.raises(DataError, match="no images to train on"):
        loaded(dataset, 1)


def test_samples_depend_on_nothing_but_seed_and_position(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    expected = loaded(dataset, 6)
    assert_same(loaded(dataset, 6, num_workers=2), expected)
    assert_same(loaded(dataset, 3, start=3), expected[3:])
    parts = [loaded(dataset, 12, rank=rank, world_size=2, accumulate=2) for rank in (0, 1)]
    together = [parts[0][2 * s] + parts[1][2 * s] + parts[0][2 * s + 1] + parts[1][2 * s + 1] for s in range(6)]
    assert_same(together, expected)
    sizes = {tuple(s["image"].shape) for batch in expected for s in batch}
    assert len(sizes) > 3  # it does vary


def test_loading_leaves_the_runs_random_numbers_alone(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    loaded(dataset, 2, num_workers=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("error")
def test_more_workers_than_cores_is_not_remarked_upon(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    assert len(list(test_loader(dataset, short_side=20, max_size=60, num_workers=4))) == 4


def test_several_data_sets_follow_one_another(tmp_path: Path) -> None:
    one, two = small_set(tmp_path / "one"), small_set(tmp_path / "two")
    samples = TrainDataset([one, two.subset([1])], augmentations=PLAIN, seed=0, format="BGR", masks=False)
    assert len(samples) == 5
    assert [samples[(0, i)]["file_name"] for i in (3, 4)] == [
        str(tmp_path / "one/images/crowd.png"), str(tmp_path / "two/images/sub/one.png")
    ]  # fmt: skip
    other = small_set(tmp_path / "three", changed("categories", 0, "name", to="hawk"))
    with pytest.raises(DataError, match=r"categories .* differ"):
        train_loader([one, other], augmentations=PLAIN, ims_per_batch=1, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_one_sentence_wherever_it_is_loaded(tmp_path: Path, workers: int) -> None:
    dataset = small_set(tmp_path)
    path = tmp_path / "images/five.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError) as error:
        loaded(dataset, 4, num_workers=workers)
    assert str(error.value).startswith(f"The image {path} cannot be read")
    assert "Traceback" not in str(error.value) and "\n" not in str(error.value)
    assert multiprocessing.active_children() == []  # although the error is still held


def test_an_image_of_another_size_is_named_with_both(tmp_path: Path) -> None:
    content = changed("images", 0, "width", to=60)
    content["annotations"] = content["annotations"][:1]
    write_images(tmp_path, CONTENT)
    dataset = read_coco(write_json(tmp_path, content), tmp_path)
    sentence = r"five.png is 50 x 40 \(width x height\), but .*instances.json says 60 x 40 for image 5.*EXIF"
    with pytest.raises(DataError, match=sentence):
        list(test_loader(dataset, short_side=32, max_size=64))
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (50, 40)).save(tmp_path / "five.png", exif=exif)
    with pytest.raises(DataError, match=r"is 40 x 50 .* says 50 x 40 .*exchanged.*EXIF"):
        list(test_loader(read_coco(write_json(tmp_path, CONTENT), tmp_path), short_side=32, max_size=64))


def test_a_worker_that_dies_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_set(tmp_path)
    monkeypatch.setattr(TrainDataset, "__getitem__", lambda self, item: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"process that loads images has died .*DATALOADER.NUM_WORKERS.*--shm-size"):
        loaded(dataset, 1, num_workers=1)


def test_masks_are_refused_of_a_file_without_any(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = small_set(tmp_path, changed("annotations", 0, "segmentation", to=[]))
    sample = loaded(dataset, 1)[0][0]["instances"]
    assert "1 of " in caplog.text and "have no segmentation: they train the box head only" in caplog.text
    assert len(sample["gt_boxes"]) == len(loaded(dataset, 1, masks=False)[0][0]["instances"]["gt_boxes"])
    content = copy.deepcopy(CONTENT)
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    dataset = small_set(tmp_path, content)
    with pytest.raises(DataError, match=r"instances.json: none of its \d annotations has a segm.*MODEL.MASK_ON False"):
        loaded(dataset, 1)
    assert "gt_masks" not in loaded(dataset, 1, masks=False)[0][0]["instances"]


def test_evaluation_keeps_the_order_over_batches_and_processes(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    ids = []
    for rank in (0, 1, 2):
        loader = test_loader(
            dataset, batch_size=2, short_side=20, max_size=60, rank=rank, world_size=3, num_workers=rank % 2
        )
        batches = list(loader)
        assert len(batches) == len(loader)
        ids += [sample["image_id"] for batch in batches for sample in batch]
        assert all("instances" not in sample for batch in batches for sample in batch)
    assert ids == [5, 1, 900000000000, 7]
    assert list(test_loader(dataset, short_side=20, max_size=60, rank=4, world_size=5)) == []


def test_a_config_is_read(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    cfg = get_cfg()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64,), 70, 20
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE, cfg.MODEL.MASK_ON, cfg.TEST.IMS_PER_BATCH = 4, 2, True, 3
    loader = build_train_loader(cfg, [dataset], seed=1, world_size=2)
    [batch] = islice(loader, 1)
    assert loader.num_images == 2
    assert len(batch) == 1
    assert max(batch[0]["image"].shape) == 70
    assert "gt_masks" in batch[0]["instances"]
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert build_train_loader(cfg, [dataset], seed=1).num_images == 4
    evaluated = list(build_test_loader(cfg, dataset))
    assert [len(batch) for batch in evaluated] == [3, 1]
    assert evaluated[0][0]["image"].shape == (3, 20, 25)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (
            "DATALOADER.SAMPLER_TRAIN",
            "WeightedTrainingSampler",
            "is not in the builtin engine: use TrainingSampler",
        ),
        ("DATALOADER.NUM_WORKERS", -1, "DATALOADER.NUM_WORKERS must be at least 0, got -1"),
        ("INPUT.FORMAT", "YUV", "INPUT.FORMAT 'YUV' is unknown: use one of BGR, RGB"),
        ("INPUT.RESIZE", "cv2", "INPUT.RESIZE 'cv2'"),
        ("INPUT.MAX_SIZE_TEST", 0, "INPUT.MAX_SIZE_TEST must be at least 1, got 0"),
    ],
)
def test_keys_that_cannot_work_are_refused(tmp_path: Path, key: str, value: Any, sentence: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=sentence):
        build_train_loader(cfg, [small_set(tmp_path)], seed=0)
