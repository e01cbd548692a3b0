"""Training on windows, and the windows of evaluation: what each shows, which there are, and their order."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from coco_files import changed, compressed, small_set
from PIL import Image

from se_det.config import get_cfg
from se_det.data.augmentations.crop import Crop
from se_det.data.augmentations.flip import RandomFlip
from se_det.data.loader import build_test_loader, build_train_loader, train_loader
from se_det.data.samples import TrainDataset, _instances
from se_det.data.tile_samples import WindowSampler
from se_det.data.tile_truth import TrainTiles, TrainWindows, WindowEpoch, find_windows
from se_det.data.tiles import Tiling
from se_det.evaluation.validation_loss import ValidationLoss
from se_det.inference.tiled import build_window_sampler

HEIGHT, WIDTH = 300, 400


def large_set(folder):
    """Two images of 400 x 300 px: polygons, RLEs, boxes alone, all left of 240 px; a crowd at the right border of the
    first."""
    random = np.random.default_rng(0)
    content = changed("images", to=[])
    content["annotations"] = []
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for image in (1, 2):
        content["images"].append({"id": image, "file_name": f"{image}.png", "height": HEIGHT, "width": WIDTH})
        for at in range(24):
            cx, cy, radius = random.uniform(20, 200), random.uniform(20, 270), random.uniform(5, 40)
            disc = ((x - cx) ** 2 + (y - cy) ** 2 < radius**2) & (np.abs(x - cx) > radius / 4)  # in two halves
            turn = np.linspace(0, 2 * np.pi, 12)[:-1]
            polygon = np.stack([cx + radius * np.cos(turn), cy + radius * np.sin(turn)], axis=1)
            form = [compressed(disc.astype(np.uint8)), [polygon.ravel().tolist()], None][at % 3]
            low, high = (polygon.min(0), polygon.max(0)) if at % 3 else (
                np.array([x[disc].min(), y[disc].min()]), np.array([x[disc].max() + 1, y[disc].max() + 1])
            )  # fmt: skip
            entry = {"id": 100 * image + at, "image_id": image, "category_id": (3, 17)[at % 2], "iscrowd": 0,
                     "bbox": [*low.tolist(), *(high - low).tolist()], "area": 1.0}  # fmt: skip
            content["annotations"].append({**entry, **({} if form is None else {"segmentation": form})})
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[:, 395:] = 1
    content["annotations"].append(
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [395, 0, 5, HEIGHT], "iscrowd": 1, "area": 1500,
         "segmentation": compressed(crowd)}
    )  # fmt: skip
    return small_set(folder, content)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return large_set(tmp_path_factory.mktemp("large"))


def windows_of(dataset, size=128, overlap=0.2, min_visible=0.25, empty=0.1) -> TrainWindows:
    return find_windows([dataset], TrainTiles(Tiling(size, overlap), min_visible, empty))


def samples_of(dataset, windows, augmentations=()) -> TrainDataset:
    return TrainDataset([dataset], augmentations=augmentations, seed=0, format="BGR", masks=True, windows=windows)


def test_a_window_is_what_cropping_the_whole_image_gives(dataset):
    """Against the crop that Detectron2's is compared with: pixels, boxes, polygons and bitmaps."""
    windows = windows_of(dataset, min_visible=1e-9)
    tiled = samples_of(dataset, windows)
    whole = TrainDataset([dataset], augmentations=(), seed=0, format="BGR", masks=True)
    for index in range(windows.full):
        x0, y0, x1, y1 = windows.corners[index].tolist()
        image = whole._read(int(windows.image[index]))
        expected = _instances(image.transformed(Crop(image.size, y0, x0, (y1 - y0, x1 - x0))))
        found = tiled[0, index]
        np.testing.assert_array_equal(found["image"].permute(1, 2, 0).numpy(), image.image[y0:y1, x0:x1])
        assert found["window"] == (x0, y0, x1, y1) and found["image_id"] == int(windows.image[index]) + 1
        for key in ("gt_boxes", "gt_classes"):
            np.testing.assert_array_equal(found["instances"][key], expected[key])
        for key, value in expected["gt_masks"].items():
            np.testing.assert_array_equal(found["instances"]["gt_masks"][key], value)


def test_boxes_are_the_extents_of_their_masks(dataset):
    windows = windows_of(dataset)
    samples, cut = samples_of(dataset, windows), 0
    for index in range(windows.full):
        truth = samples[0, index]["instances"]
        boxes, masks = truth["gt_boxes"], truth["gt_masks"]
        assert (boxes >= 0).all() and (boxes <= 128).all()
        cut += int((boxes[:, 2] == 128).sum())
        for bitmap, owner in zip(masks["bitmaps"], masks["bitmap_owner"]):
            rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
            extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_array_equal(boxes[owner], extent)
        ends = np.cumsum(masks["polygon_points"])
        for owner in np.unique(masks["polygon_owner"]):
            mine = [masks["polygons"][end - n : end] for o, n, end in
                    zip(masks["polygon_owner"], masks["polygon_points"], ends) if o == owner]  # fmt: skip
            xy = np.concatenate(mine)
            np.testing.assert_allclose(boxes[owner], [*xy.min(0), *xy.max(0)], atol=1e-4)
    assert cut > 10  # borders did cut


def test_objects_are_kept_by_their_visible_share(dataset):
    counts = []
    for least in (1e-9, 0.25, 0.6, 1.0):
        windows = windows_of(dataset, min_visible=least)
        for index in range(windows.full):
            boxes = dataset.annotations(int(windows.image[index]), crowds=False).boxes
            boxes = np.clip(boxes, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
            x0, y0, x1, y1 = windows.corners[index]
            inside = np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1])
            share = (inside[:, 2:] - inside[:, :2]).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
            kept = samples_of(dataset, windows)[0, index]["instances"]["gt_classes"]
            assert len(kept) == (share >= least - 1e-6).sum() or least == 1e-9
        counts.append(len(windows.classes))
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_what_shows_a_crowd_or_too_little_of_an_object_is_no_background(dataset):
    windows = windows_of(dataset, size=64, overlap=0.0, min_visible=0.5)
    for index in range(windows.full, len(windows)):
        x0, y0, x1, y1 = windows.corners[index]
        boxes = dataset.annotations(int(windows.image[index])).boxes
        touched = (np.minimum(boxes[:, 2:], [x1, y1]) > np.maximum(boxes[:, :2], [x0, y0])).all(1)
        assert not touched.any()
    assert 0 < windows.full < len(windows)
    of_first = windows.corners[windows.full :][windows.image[windows.full :] == 0]
    assert (of_first[:, 2] < WIDTH).all()  # those at the right border show the crowd
    of_second = windows.corners[windows.full :][windows.image[windows.full :] == 1]
    assert (of_second[:, 2] == WIDTH).any()


@pytest.mark.parametrize("share", (0.0, 0.1, 0.2))
def test_an_epoch_has_every_window_with_objects_and_a_share_without(dataset, share):
    windows = windows_of(dataset, size=64, overlap=0.0)
    epoch = WindowEpoch(windows, empty=share)
    orders = [epoch(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    for order in orders:
        assert sorted(order[order < windows.full]) == list(range(windows.full))
        assert abs((order >= windows.full).mean() - share) < 0.02
        assert len(np.unique(order)) == len(order)
    if share:
        assert set(orders[0][orders[0] >= windows.full]) != set(orders[2][orders[2] >= windows.full])


def stream(dataset, *, workers=0, start=0, count=6, **more):
    loader = train_loader(
        [dataset], augmentations=(RandomFlip(),), ims_per_batch=3, seed=5, start=start, masks=True,
        num_workers=workers, tiles=TrainTiles(Tiling(96, 0.2), 0.25, 0.2), **more,
    )  # fmt: skip
    return list(islice(loader, count))


def assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        for s, t in zip(a, b):
            assert s["window"] == t["window"] and s["image_id"] == t["image_id"]
            assert torch.equal(s["image"], t["image"])
            assert torch.equal(s["instances"]["gt_boxes"], t["instances"]["gt_boxes"])
            for key, value in s["instances"]["gt_masks"].items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(t["instances"]["gt_masks"][key]))


def test_neither_workers_nor_a_resumption_change_a_window(dataset):
    usual = stream(dataset)
    assert_equal(stream(dataset, workers=2), usual)
    assert_equal(stream(dataset, start=2, count=4), usual[2:])
    assert_equal(stream(dataset, repeat_threshold=1e-9), stream(dataset, workers=2, repeat_threshold=1e-9))


def test_a_bad_image_counts_once_whatever_its_windows(tmp_path):
    from se_det.data.skipping import SkippedImages

    dataset = large_set(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "1.png")
    skipped = SkippedImages(budget=1)
    batches = stream(dataset, count=15, skipped=skipped)
    assert list(skipped.found) == [0]
    assert {sample["image_id"] for batch in batches for sample in batch} == {2}


def config(**keys):
    cfg = get_cfg()
    cfg.INPUT.TILE.SIZE = cfg.TEST.TILE.SIZE = 128
    cfg.INPUT.TILE.MIN_VISIBLE = 1e-9
    cfg.INPUT.AUGMENTATIONS = [{"name": "RandomFlip", "direction": "none"}]
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 1
    cfg.SEED = 1
    return cfg


@pytest.mark.parametrize("workers", (0, 2))
def test_training_evaluation_and_prediction_give_the_same_windows(dataset, workers):
    from se_det.data.regions import open_regions

    cfg = config()
    cfg.INPUT.TILE.EMPTY = 0.6
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.TEST.IMS_PER_BATCH = 5
    sampler = build_window_sampler(cfg)
    in_test = {}
    for batch in build_test_loader(cfg, dataset, sampler=sampler):
        assert len({sample["image_id"] for sample in batch}) == 1
        for sample in batch:
            assert sample["windows"] == len(sampler.windows(HEIGHT, WIDTH)) and sample["image_size"] == (HEIGHT, WIDTH)
            in_test[sample["image_id"], sample["window"]] = sample["image"]
    for index in range(len(dataset)):
        image = open_regions(dataset.image(index).path)
        for window in sampler.windows(HEIGHT, WIDTH).tolist():
            found = sampler.sample(image, window)["image"]
            assert torch.equal(in_test.pop((index + 1, tuple(window))), found)
    assert not in_test
    trained = build_train_loader(cfg, [dataset], seed=1)
    plan = set(map(tuple, sampler.windows(HEIGHT, WIDTH).tolist()))
    for [sample] in islice(trained, 40):
        assert sample["window"] in plan
        image = open_regions(sample["file_name"])
        assert torch.equal(sample["image"], sampler.sample(image, sample["window"])["image"])


def test_each_process_has_whole_images(dataset):
    cfg = config()
    sampler = build_window_sampler(cfg)
    for rank in (0, 1):
        loader = build_test_loader(cfg, dataset, rank=rank, world_size=2, sampler=sampler)
        assert {sample["image_id"] for batch in loader for sample in batch} == {rank + 1}
        assert len(loader) == len(sampler.windows(HEIGHT, WIDTH))


def test_the_whole_image_is_the_last_window():
    sampler = WindowSampler(Tiling(100, 0.2), whole_image=True, short_side=50, max_size=60)
    assert sampler.windows(300, 400)[-1].tolist() == [0, 0, 400, 300]
    assert sampler.windows(80, 100).tolist() == [[0, 0, 100, 80]]  # once


def test_validation_losses_are_of_the_windows_with_objects(dataset):
    loader = ValidationLoss(config(), dataset).loader()
    windows = windows_of(dataset, min_visible=1e-9)
    seen = [sample["window"] for [sample] in loader]
    assert seen == list(map(tuple, windows.corners[: windows.full].tolist()))
