"""ResizeScale, FixedSizeCrop, RandomCrop and repeat factors against an installed Detectron2, drawn from one generator."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from augmentation_samples import random_sample

from se_det.data.augmentations import Sample
from se_det.data.augmentations.crop import RandomCrop
from se_det.data.augmentations.fixed_size_crop import FixedSizeCrop
from se_det.data.augmentations.large_scale_jitter import LargeScaleJitter
from se_det.data.augmentations.resize_scale import ResizeScale
from se_det.data.samples import _instances

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
