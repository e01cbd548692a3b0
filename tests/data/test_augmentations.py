"""The default augmentations against Detectron2's numbers; what a sample, a list of entries and partners do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coco_files import small_set
from PIL import Image

from se_det.config import get_cfg, merge_overrides
from se_det.data.augmentations import AUGMENTATIONS, Masks, Sample, build_augmentations, resize_and_flip
from se_det.data.augmentations.flip import Flip, RandomFlip
from se_det.data.augmentations.resize import Resize, ResizeShortestEdge
from se_det.data.samples import PartnerError, TrainDataset
from se_det.data.skipping import ReplaceBadImages
from se_det.data.transforms import resize_image, to_tensor
from se_det.errors import ConfigError


def photo(height: int, width: int) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def changed(old: tuple[int, int], new: tuple[int, int], flip: str = "none", method: str = "pil", **fields) -> Sample:
    """What resizing, then a mirror, make of an image of size `old` with ground truth."""
    fields = {"image": np.zeros((*old, 3), np.uint8), "boxes": np.zeros((0, 4)), **fields}
    sample = Sample(classes=np.zeros(len(fields["boxes"]), np.int64), **fields).transformed(Resize(old, new, method))
    return sample if flip == "none" else sample.transformed(Flip(new, flip))


def test_boxes_and_polygons_are_detectron2s() -> None:
    # From Detectron2's ResizeTransform(100, 150, 67, 101) followed by HFlipTransform(101) or VFlipTransform(67).
    box = np.array([[10.5, 20.25, 60, 99.5]])
    points = Masks(
        polygons=np.array([[1.5, 2], [100, 50.25], [30, 90]]), polygon_points=np.array([3]), polygon_owner=np.array([0])
    )
    flipped = changed((100, 150), (67, 101), "horizontal", boxes=box, masks=points)
    np.testing.assert_allclose(flipped.boxes, [[60.6, 13.5675, 93.93, 66.665]], rtol=1e-6)
    np.testing.assert_allclose(flipped.masks.polygons, [[99.99, 1.34], [33.666666666666667, 33.6675], [80.8, 60.3]])
    vertical = changed((100, 150), (67, 101), "vertical", boxes=box)
    np.testing.assert_allclose(vertical.boxes, [[7.07, 0.335, 40.4, 53.4325]], rtol=1e-6)


def test_keypoints_move_along_and_change_places_in_a_mirror() -> None:
    keypoints = np.array([[[10.0, 20, 2], [30, 40, 1], [5, 5, 0]]])
    flipped = changed(
        (100, 150), (50, 75), "horizontal", keypoints=keypoints, flip_pairs=np.array([1, 0, 2]),
        boxes=np.array([[0.0, 0, 9, 9]]),
    )  # fmt: skip
    assert flipped.keypoints.tolist() == [[[60, 20, 1], [70, 10, 2], [72.5, 2.5, 0]]]


def test_image_and_bitmap_are_flipped_like_the_boxes() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[4:8, 6:16] = 200
    masks = Masks(bitmaps=[pixels[:, :, 0] // 200], bitmap_owner=np.array([0]))
    for flip in ("none", "horizontal", "vertical"):
        sample = changed((20, 30), (40, 60), flip, image=pixels, boxes=np.array([[6.0, 4, 16, 8]]), masks=masks)
        x0, y0, x1, y1 = sample.boxes[0].astype(int)
        expected = np.zeros((40, 60), np.uint8)
        expected[y0:y1, x0:x1] = 1
        np.testing.assert_array_equal(sample.masks.bitmaps[0], expected)
        inner = sample.image[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
        assert inner.size and (inner == 200).all()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("method", ["pil", "fast"])
def test_a_flip_is_that_of_the_resized_image(method: str, order: int) -> None:
    pixels = photo(40, 51)[:, :, ::order]
    resized = resize_image(pixels, 67, 83, method=method)
    for flip, expected in (("horizontal", resized[:, ::-1]), ("vertical", resized[::-1])):
        flipped = changed((40, 51), (67, 83), flip, method, image=pixels).image
        np.testing.assert_array_equal(flipped, expected)
        np.testing.assert_array_equal(to_tensor(flipped).numpy(), expected.transpose(2, 0, 1))


def test_a_bitmap_is_pillows_nearest() -> None:
    mask = (np.random.default_rng(2).random((33, 47)) < 0.4).astype(np.uint8)
    for height, width in ((50, 71), (20, 29)):
        expected = np.asarray(Image.fromarray(mask).resize((width, height), Image.NEAREST))
        np.testing.assert_array_equal(Resize((33, 47), (height, width)).bitmap(mask), expected)


def test_draws_cover_the_choices_evenly() -> None:
    marked = np.zeros((64, 64, 3), np.uint8)
    marked[:, :32] = 255

    def drawn(seed, **options) -> tuple[int, bool]:
        sample, random = Sample(image=marked, boxes=np.zeros((0, 4)), classes=np.zeros(0)), np.random.default_rng(seed)
        for augmentation in resize_and_flip(max_size=999, **options):
            sample = augmentation(sample, random)
        return sample.size[0], bool(sample.image[0, 0, 0] == 0)

    some = [drawn((5, n), short_sides=(32, 48)) for n in range(2000)]
    shares = [np.mean([size == 32 for size, _ in some]), np.mean([flip for _, flip in some])]
    assert all(0.45 < share < 0.55 for share in shares), shares
    ranged = [drawn(n, short_sides=(30, 33), sampling="range", flip="none") for n in range(200)]
    assert {size for size, _ in ranged} == {30, 31, 32, 33}
    assert not any(flip for _, flip in ranged)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampling": "choices"}, "INPUT.MIN_SIZE_TRAIN_SAMPLING 'choices' is unknown: use one of choice, range"),
        ({"flip": "both"}, "INPUT.RANDOM_FLIP 'both'"),
        ({"method": "cv2"}, "INPUT.RESIZE 'cv2'"),
        ({"short_sides": ()}, r"INPUT.MIN_SIZE_TRAIN is \(\)"),
        ({"short_sides": (800,), "sampling": "range"}, r"INPUT.MIN_SIZE_TRAIN is \(800,\).*two sizes"),
        ({"short_sides": (9, 8), "sampling": "range"}, "two sizes, the lower first"),
        ({"max_size": 0}, "INPUT.MAX_SIZE_TRAIN is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resize_and_flip(**{"short_sides": (800,), "max_size": 1333, **change})


def config(entries: list, **keys):
    cfg = get_cfg()
    merge_overrides(cfg, ["INPUT.AUGMENTATIONS", entries])
    for key, value in keys.items():
        merge_overrides(cfg, [f"INPUT.{key}", value])
    return cfg


def test_an_empty_list_is_what_the_keys_say() -> None:
    resize, flip = build_augmentations(config([], MIN_SIZE_TRAIN=(64, 96), MAX_SIZE_TRAIN=200, RANDOM_FLIP="vertical"))
    assert isinstance(resize, ResizeShortestEdge) and isinstance(flip, RandomFlip)
    assert (resize.short_sides, resize.max_size, flip.direction, flip.probability) == ((64, 96), 200, "vertical", 0.5)


def test_an_entrys_arguments_win_over_the_keys(caplog: pytest.LogCaptureFixture) -> None:
    [resize] = build_augmentations(
        config([{"name": "ResizeShortestEdge", "short_sides": [32]}], MAX_SIZE_TRAIN=77, RANDOM_FLIP="none")
    )
    assert (resize.short_sides, resize.max_size) == ((32,), 77)
    assert "INPUT.RANDOM_FLIP is set, and INPUT.AUGMENTATIONS has no RandomFlip" in caplog.text


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("RandomFlip", r"INPUT.AUGMENTATIONS\[0\] must be a mapping with a name"),
        ({"probability": 1}, "must be a mapping with a name"),
        ({"name": "RandomFlop"}, r"INPUT.AUGMENTATIONS\[0\] 'RandomFlop' is unknown.*Did you mean 'RandomFlip'"),
        ({"name": "RandomFlip", "chance": 1}, r"\(RandomFlip\) has no argument 'chance': it takes direction, prob"),
        ({"name": "RandomFlip", "probability": 2}, "probability is 2"),
        ({"name": "RandomFlip", "probability": "often"}, "cannot be made of"),
    ],
)
def test_an_entry_that_cannot_work_is_named(entry, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_augmentations(config([entry]))


class Mean:
    """Half of the sample and half of its partner."""

    partners = 1

    def __call__(self, sample, random, partners=()):
        [partner] = partners
        low = min(sample.size[0], partner.size[0]), min(sample.size[1], partner.size[1])
        one, other = (s.image[: low[0], : low[1]].astype(int) for s in (sample, partner))
        return Sample(image=((one + other) // 2).astype(np.uint8), boxes=sample.boxes, classes=sample.classes)


def test_partners_come_from_seed_and_number_alone(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    plain, mixed = (
        TrainDataset([dataset], augmentations=[*resize_and_flip(short_sides=(24, 40), max_size=60), *more], seed=4,
                     format="BGR", masks=False)
        for more in ([], [Mean(), Mean()])
    )  # fmt: skip
    one, again = mixed[(7, 0)]["image"], mixed[(7, 0)]["image"]
    assert (one == again).all()
    others = [mixed[(number, 0)]["image"] for number in range(8)]
    assert len({(*image.shape, int(image.sum())) for image in others}) > 4
    # What partners draw changes nothing of what the sample draws: it has the size and the mirror that it had.
    assert np.allclose(plain[(7, 0)]["instances"]["gt_boxes"], mixed[(7, 0)]["instances"]["gt_boxes"], atol=60)
    assert one.shape[1] <= plain[(7, 0)]["image"].shape[1]


def test_a_bad_partner_is_named_and_left_out(tmp_path: Path) -> None:
    dataset = small_set(tmp_path)
    bad = 1
    dataset.image(bad).path.write_bytes(b"no image")
    samples = TrainDataset([dataset], augmentations=[Mean()], seed=0, format="BGR", masks=False)
    number = next(n for n in range(99) if _fails(samples, n))
    with pytest.raises(PartnerError, match=dataset.image(bad).path.name) as error:
        samples[(number, 0)]
    assert error.value.index == bad
    replaced = ReplaceBadImages(samples, groups=np.zeros(len(dataset)), seed=0, budget=1)[(number, 0)]
    assert set(replaced.found) == {bad} and replaced.sample is not None


def _fails(samples: TrainDataset, number: int) -> bool:
    try:
        samples[(number, 0)]
    except PartnerError:
        return True
    return False


def test_the_two_default_names_are_registered() -> None:
    assert {"ResizeShortestEdge", "RandomFlip"} <= set(AUGMENTATIONS.names())
