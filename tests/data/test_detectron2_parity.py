"""Training samples against those of an installed Detectron2, on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from se_det.data import dataset_paths, open_dataset, read_image
from se_det.data.augmentations.flip import RandomFlip
from se_det.data.augmentations.resize import ResizeShortestEdge
from se_det.data.samples import TrainDataset
from se_det.data.transforms import resize_image, short_side_size


@pytest.mark.shared_data
@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # in its flip, once in a process
@pytest.mark.parametrize(
    ("short_side", "flip", "format"), [(800, "none", "BGR"), (333, "horizontal", "RGB"), (64, "vertical", "BGR")]
)
def test_samples_equal_detectron2s(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, short_side: int, flip: str, format: str
) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data import DatasetMapper
    from detectron2.data import transforms as T
    from detectron2.data.build import filter_images_with_only_crowd_annotations
    from detectron2.data.datasets import load_coco_json

    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data))
    dataset = open_dataset("coco_2017_train").drop_empty()
    json, images = dataset_paths("coco_2017_train")
    records = filter_images_with_only_crowd_annotations(load_coco_json(str(json), str(images), "se_det_parity"))
    by_id = {record["image_id"]: record for record in records}
    assert sorted(by_id) == sorted(dataset.image(i).id for i in range(len(dataset)))

    turns = [T.RandomFlip(1.0, horizontal=flip == "horizontal", vertical=flip == "vertical")] if flip != "none" else []
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[T.ResizeShortestEdge((short_side,), 1333, "choice"), *turns],
        image_format=format,
        use_instance_mask=True,
    )
    always = [
        ResizeShortestEdge(short_sides=(short_side,), max_size=1333), RandomFlip(direction=flip, probability=1.0)
    ]  # fmt: skip
    samples = TrainDataset([dataset], augmentations=always, seed=0, format=format, masks=True)
    for i in range(len(dataset)):
        ours, theirs = samples[(0, i)], mapper(by_id[dataset.image(i).id])
        assert torch.equal(ours["image"], theirs["image"])
        instances = theirs["instances"]
        np.testing.assert_array_equal(ours["instances"]["gt_classes"], instances.gt_classes.numpy())
        np.testing.assert_allclose(ours["instances"]["gt_boxes"], instances.gt_boxes.tensor.numpy(), atol=1e-4)
        masks = ours["instances"]["gt_masks"]
        polygons = [(owner, p) for owner, parts in enumerate(instances.gt_masks.polygons) for p in parts]
        assert masks["polygon_owner"].tolist() == [owner for owner, _ in polygons]
        assert (2 * masks["polygon_points"]).tolist() == [len(p) for _, p in polygons]
        np.testing.assert_allclose(masks["polygons"].ravel(), np.concatenate([p for _, p in polygons]), atol=1e-9)


@pytest.mark.shared_data
def test_fast_resizing_of_photos_is_within_one_grey_level(shared_data: Path) -> None:
    counts = np.zeros(256, np.int64)
    for path in sorted((shared_data / "coco/val2017").glob("*.jpg"))[:12]:
        pixels = read_image(path)
        for short_side in (800, 480, 224):
            size = short_side_size(*pixels.shape[:2], short_side, 1333)
            slow, fast = (resize_image(pixels, *size, method=method).astype(int) for method in ("pil", "fast"))
            counts += np.bincount(np.abs(slow - fast).ravel(), minlength=256)
    assert counts.sum() > 3e7
    assert counts[1] < 2e-3 * counts.sum()
    assert counts[2:].sum() == 0


@pytest.mark.detectron2
@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("format", ["BGR", "RGB"])
def test_photos_of_every_orientation_and_mode_give_detectron2s_pixels(
    tmp_path: Path, orientation: int, mode: str, format: str
) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data import detection_utils
    from detectron2.data import transforms as T
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 18, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    path = tmp_path / "photo.jpg"
    photo = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    photo.save(path, quality=95, exif=exif)
    ours, theirs = read_image(path, format=format), detection_utils.read_image(path, format=format)
    np.testing.assert_array_equal(ours, theirs)
    size = short_side_size(*ours.shape[:2], 47, 1333)
    resized = T.ResizeShortestEdge((47,), 1333, "choice").get_transform(theirs).apply_image(theirs)
    np.testing.assert_array_equal(resize_image(ours, *size), resized)
