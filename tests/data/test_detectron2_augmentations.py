"""Augmentations and repeat factors beside an installed Detectron2, drawn from one generator."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from augmentation_samples import random_sample

from se_det.config import get_cfg, merge_overrides
from se_det.data import read_coco
from se_det.data.augmentations import AUGMENTATIONS, Sample, build_augmentations
from se_det.data.augmentations.crop import RandomCrop
from se_det.data.augmentations.fixed_size_crop import FixedSizeCrop
from se_det.data.augmentations.large_scale_jitter import LargeScaleJitter
from se_det.data.augmentations.polygon_clip import clip_polygons
from se_det.data.augmentations.resize_scale import ResizeScale
from se_det.data.augmentations.rotation import RandomRotation, Rotation
from se_det.data.epochs import repeat_factors
from se_det.data.samples import TrainDataset, _instances

pytestmark = pytest.mark.detectron2
SAMPLES = 400


def detectron2_draws_from(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Detectron2 asks of `np.random` comes from a generator that ours has a copy of."""
    monkeypatch.setattr(np.random, "uniform", random.uniform)
    monkeypatch.setattr(np.random, "rand", random.random)
    monkeypatch.setattr(np.random, "randint", lambda *bounds: int(random.integers(*bounds)))


def theirs(sample: Sample, augmentations: list, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    """The image and the instances that Detectron2's mapper makes of a sample, with boxes made of masks."""
    from detectron2.data import detection_utils
    from detectron2.data import transforms as T
    from detectron2.structures import BoxMode

    taken = T.AugInput(np.ascontiguousarray(sample.image))
    with monkeypatch.context() as patch:
        detectron2_draws_from(random, patch)
        transforms = T.AugmentationList(augmentations)(taken)
    annotations, bounds = [], np.cumsum(sample.masks.polygon_points)
    polygons = np.split(sample.masks.polygons, bounds)[:-1]
    for at in range(len(sample.boxes)):
        parts = [p.ravel().tolist() for p, owner in zip(polygons, sample.masks.polygon_owner) if owner == at]
        annotation = {"bbox": sample.boxes[at].tolist(), "bbox_mode": BoxMode.XYXY_ABS,
                      "category_id": int(sample.classes[at]), "segmentation": parts}  # fmt: skip
        annotations.append(
            detection_utils.transform_instance_annotations(annotation, transforms, taken.image.shape[:2])
        )
    instances = detection_utils.annotations_to_instances(annotations, taken.image.shape[:2])
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    return taken.image, detection_utils.filter_empty_instances(instances)


def assert_equal_polygons(ours: list[np.ndarray], others: list[np.ndarray]) -> None:
    """As sets of points of the plane: the areas of what only one of the two has are 0."""
    from shapely.geometry import Polygon
    from shapely.ops import unary_union

    one, other = (unary_union([Polygon(p.reshape(-1, 2)).buffer(0) for p in side]) for side in (ours, others))
    assert one.symmetric_difference(other).area <= 1e-6 * max(one.area, 1)


CASES = {
    "resize": ([("ResizeScale", {"min_scale": 0.1, "max_scale": 2.0, "target_height": 150, "target_width": 130})]),
    "fixed": ([("FixedSizeCrop", {"crop_size": (90, 120)})]),
    "unpadded": ([("FixedSizeCrop", {"crop_size": (90, 120), "pad": False})]),
    "jitter": ([("ResizeScale", {"min_scale": 0.1, "max_scale": 2.0, "target_height": 150, "target_width": 130}),
                ("FixedSizeCrop", {"crop_size": (150, 130)})]),
    "relative": ([("RandomCrop", {"crop_type": "relative", "crop_size": (0.6, 0.7)})]),
    "relative_range": ([("RandomCrop", {"crop_type": "relative_range", "crop_size": (0.3, 0.4)})]),
    "absolute": ([("RandomCrop", {"crop_type": "absolute", "crop_size": (70, 150)})]),
    "absolute_range": ([("RandomCrop", {"crop_type": "absolute_range", "crop_size": (50, 130)})]),
}  # fmt: skip
OURS = {kind.__name__: kind for kind in (ResizeScale, FixedSizeCrop, RandomCrop)}


@pytest.mark.parametrize("case", CASES)
def test_pixels_boxes_and_polygons_are_detectron2s(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    pytest.importorskip("shapely")
    from detectron2.data import transforms as T

    lost = 0
    for number in range(SAMPLES):
        sample = random_sample(np.random.default_rng((number, 7)), kinds="polygons")
        random = np.random.default_rng(number)
        image, instances = theirs(
            sample, [getattr(T, name)(**arguments) for name, arguments in CASES[case]], copy.deepcopy(random),
            monkeypatch,
        )  # fmt: skip
        chain = [OURS[name](**arguments) for name, arguments in CASES[case]]
        chains = [chain]
        if case == "jitter":
            chains.append([LargeScaleJitter(size=(150, 130))])
        for augmentations in chains:
            own, result = copy.deepcopy(random), sample
            for augmentation in augmentations:
                result = augmentation(result, own)
            np.testing.assert_array_equal(result.image, image)
            ours = _instances(result)
            np.testing.assert_array_equal(ours["gt_classes"], instances.gt_classes.numpy())
            np.testing.assert_allclose(ours["gt_boxes"], instances.gt_boxes.tensor.numpy(), atol=1e-4)
            masks = ours["gt_masks"]
            pieces = np.split(masks["polygons"], np.cumsum(masks["polygon_points"]))[:-1]
            for owner, expected in enumerate(instances.gt_masks.polygons):
                assert_equal_polygons([p for p, o in zip(pieces, masks["polygon_owner"]) if o == owner], expected)
            lost += len(sample.boxes) - len(instances)
    assert (lost > 0) == (case != "resize")


@pytest.mark.parametrize("expand", [False, True])
def test_a_rotation_is_detectron2s(expand: bool) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data.transforms import RotationTransform

    for number in range(100):
        random = np.random.default_rng(number)
        sample = random_sample(random, kinds="polygons bitmaps")
        degrees = float(random.uniform(-180, 180))
        expected = RotationTransform(*sample.size, degrees, expand=expand)
        sample = replace(sample, image=np.ascontiguousarray(sample.image))
        ours = RandomRotation(angle=degrees, expand=expand)(sample, random)
        image = expected.apply_image(sample.image)
        assert ours.image.shape == image.shape
        # OpenCV takes positions in 32nds of a pixel, where rounding may decide.
        assert (ours.image != image).mean() < 1e-3
        points = Rotation(sample.size, ours.size, degrees).points(sample.masks.polygons)
        np.testing.assert_allclose(points, expected.apply_coords(sample.masks.polygons.copy()), atol=1e-9)


@pytest.mark.parametrize("name", ["RandomBrightness", "RandomContrast", "RandomSaturation", "RandomLighting"])
@pytest.mark.parametrize("order", [1, -1])
def test_intensities_are_detectron2s(name: str, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data import transforms as T

    given = {"scale": 40.0} if name == "RandomLighting" else {"intensity_min": 0.4, "intensity_max": 1.6}
    ours = AUGMENTATIONS.get(name)(**given, format="RGB" if order == 1 else "BGR")
    for number in range(50):
        sample = random_sample(np.random.default_rng((number, 3)))
        with monkeypatch.context() as patch:
            random = np.random.default_rng(number)
            detectron2_draws_from(random, patch)
            patch.setattr(np.random, "normal", random.normal)
            rgb = np.ascontiguousarray(sample.image[:, :, ::order])
            expected = getattr(T, name)(**given).get_transform(rgb).apply_image(rgb)[:, :, ::order]
        image = ours(sample, np.random.default_rng(number)).image
        apart = np.abs(image.astype(int) - expected)
        assert apart.max() <= 1 and (apart > 0).mean() < 1e-3  # in single precision, where it is in double


@pytest.mark.parametrize("sqrt", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.shared_data
def test_repeat_factors_are_detectron2s(shared_data: Path, sqrt: bool, threshold: float) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data.build import filter_images_with_only_crowd_annotations
    from detectron2.data.datasets import load_coco_json
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    folder = shared_data / "coco"
    json, images = folder / "annotations/instances_train2017.json", folder / "train2017"
    dataset = read_coco(json, images).drop_empty()
    records = filter_images_with_only_crowd_annotations(load_coco_json(str(json), str(images), "se_det_factors"))
    expected = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, threshold, sqrt=sqrt)
    by_id = dict(zip((record["image_id"] for record in records), expected.numpy()))
    ours = repeat_factors([dataset], threshold, sqrt=sqrt)
    np.testing.assert_array_equal(ours, [by_id[dataset.image(i).id] for i in range(len(dataset))])
    assert (ours.max() > 1) == (threshold >= 0.3)


@pytest.mark.shared_data
def test_real_polygons_are_cut_as_detectron2s(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO's; those that cross or touch themselves apart, of which Detectron2 loses parts before it cuts them."""
    pytest.importorskip("detectron2")
    pytest.importorskip("shapely")
    from fvcore.transforms.transform import CropTransform
    from shapely.geometry import Polygon

    dataset = read_coco(shared_data / "coco/annotations/instances_train2017.json", shared_data / "coco/train2017")
    random, compared, pieces_of_cut = np.random.default_rng(0), 0, 0
    while compared < 4 * SAMPLES:
        at = int(random.integers(len(dataset)))
        info, found = dataset.image(at), dataset.annotations(at, crowds=False)
        polygons = np.split(found.polygons, np.cumsum(found.polygon_points))[:-1]
        width, height = random.integers(20, [info.width, info.height]).tolist()
        left, top = random.integers(0, [info.width - width + 1, info.height - height + 1]).tolist()
        for polygon in polygons:
            if not Polygon(polygon).is_valid:
                continue
            expected = CropTransform(left, top, width, height).apply_polygons([polygon.copy()])
            xy, points, _ = clip_polygons(polygon - [left, top], np.array([len(polygon)]), (0, 0, width, height))
            ours = np.split(xy, np.cumsum(points))[:-1]
            assert_equal_polygons(ours, expected)
            assert len(ours) == len(expected)
            compared += 1
            pieces_of_cut += len(ours) > 1
    assert pieces_of_cut > 20


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "crop", [("relative_range", [0.5, 0.5]), ("absolute", [300, 400]), ("absolute_range", [200, 500])]
)
def test_the_crop_node_is_detectron2s_mapper(shared_data: Path, monkeypatch: pytest.MonkeyPatch, crop: tuple) -> None:
    """From the same config, photos with everything that is annotated."""
    pytest.importorskip("detectron2")
    pytest.importorskip("shapely")
    from detectron2.config import get_cfg as get_their_cfg
    from detectron2.data import DatasetMapper
    from detectron2.data.datasets import load_coco_json
    from shapely.geometry import Polygon

    json, images = shared_data / "coco/annotations/instances_train2017.json", shared_data / "coco/train2017"
    dataset = read_coco(json, images).drop_empty()
    records = {record["image_id"]: record for record in load_coco_json(str(json), str(images), "se_det_crop")}
    keys = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", crop[0], "INPUT.CROP.SIZE", crop[1], "MODEL.MASK_ON", True,
            "INPUT.MIN_SIZE_TRAIN", (240, 320), "INPUT.MAX_SIZE_TRAIN", 500]  # fmt: skip
    theirs, ours = get_their_cfg(), get_cfg()
    theirs.merge_from_list(keys)
    merge_overrides(ours, keys)
    mapper = DatasetMapper(theirs, is_train=True)
    samples = TrainDataset([dataset], augmentations=build_augmentations(ours), seed=3, format="BGR", masks=True)
    sound = 0
    for at in range(len(dataset)):
        record = records[dataset.image(at).id]
        with monkeypatch.context() as patch:
            random = np.random.default_rng((3, at))
            detectron2_draws_from(random, patch)
            patch.setattr(np.random, "choice", lambda values, random=random: values[random.integers(len(values))])
            expected = mapper(record)
        found = samples[(at, at)]
        assert torch.equal(found["image"], expected["image"])
        polygons = [p for a in record["annotations"] if not a["iscrowd"] for p in a["segmentation"]]
        if not all(Polygon(np.reshape(p, (-1, 2))).is_valid for p in polygons):
            continue
        sound += 1
        np.testing.assert_array_equal(found["instances"]["gt_classes"], expected["instances"].gt_classes.numpy())
        boxes = expected["instances"].gt_boxes.tensor.numpy()
        np.testing.assert_allclose(found["instances"]["gt_boxes"], boxes, atol=1e-3)
    assert sound > 10
