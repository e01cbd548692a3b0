"""Crops, sizes and augmentation against torchvision's own presets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from picture_sets import picture
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from se_det.classification.data.loader import Batch
from se_det.classification.data.transforms import (
    AUGMENTATION,
    CROP,
    ImageSizes,
    RandomCrop,
    augmentation,
    resize_center_crop,
    seed_sample,
)
from se_det.classification.losses import ClassificationLoss
from se_det.classification.objective import Objective, mixing
from se_det.classification.preprocessing import Preprocessing
from se_det.errors import ConfigError


def image(height: int = 90, width: int = 130, number: int = 0) -> torch.Tensor:
    return torch.from_numpy(picture(0, number, height=height, width=width)).permute(2, 0, 1)


def test_evaluation_is_torchvisions_preset() -> None:
    preset = ImageClassification(crop_size=56, resize_size=64)
    view = Preprocessing(size=56, crop_ratio=0.875)
    for height, width in ((90, 130), (131, 90), (64, 64), (40, 70)):
        ours = view(image(height, width))[0]
        shown = Image.fromarray(picture(0, 0, height=height, width=width))
        for theirs in (preset(shown), preset(image(height, width))):
            assert (theirs - ours).abs().max() < 1.01 / 57.12  # a grey level, as their resizings differ by
            assert (theirs - ours).abs().mean() < 0.3 / 57.12
    assert resize_center_crop(image(), 50, 1.0).shape == (3, 50, 50)
    assert resize_center_crop(image(90, 130), 56, 0.95).shape == (3, 56, 56)


def test_bgr_has_the_channels_the_other_way_round() -> None:
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    rgb = Preprocessing(size=32, mean=mean, std=std)(image())
    bgr = Preprocessing(size=32, format="BGR", mean=mean[::-1], std=std[::-1])(image())
    assert torch.equal(rgb.flip(1), bgr)


@pytest.mark.parametrize(
    ("how", "match"),
    [({"size": 8}, "TEST.IMAGE_SIZE"), ({"crop_ratio": 1.5}, "CROP_RATIO"), ({"format": "GBR"}, "FORMAT"),
     ({"std": (1, 0, 1)}, "PIXEL_STD")],
)  # fmt: skip
def test_a_preprocessing_that_cannot_be_is_refused(how: dict, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Preprocessing(**how)


def test_the_random_crop_is_torchvisions() -> None:
    ours, theirs = RandomCrop(scale=(0.08, 1.0), ratio=(0.75, 4 / 3)), v2.RandomResizedCrop(48, antialias=True)
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    for number in range(5):
        seed_sample(1, number, CROP)
        cut = ours(image(), 48)
        seed_sample(1, number, CROP)
        # PyTorch 2.6 rounds by the layout of an image in memory.
        largest = 0 if version >= (2, 14) else 1
        assert (cut.int() - theirs(image()).int()).abs().max() <= largest


def test_a_samples_random_numbers_are_its_own() -> None:
    drawn = set()
    for seed, number, mark in ((1, 0, CROP), (1, 0, AUGMENTATION), (1, 1, CROP), (2, 0, CROP), (1, 0, CROP)):
        seed_sample(seed, number, mark)
        drawn.add(torch.rand(()).item())
    assert len(drawn) == 4


def test_sizes_follow_the_epochs() -> None:
    sizes = ImageSizes(224, ((0, 128), (40, 160), (80.5, 192)))
    assert [sizes.at(e) for e in (0, 39.99, 40, 80, 80.5, 1000)] == [128, 128, 160, 160, 192, 192]
    assert ImageSizes(224).at(3) == 224
    assert ImageSizes(96, ((2, 64),)).at(1.9) == 96
    for steps in (((40, 160), (0, 128)), ((0, 16),)):
        with pytest.raises(ConfigError, match="INPUT.SIZES"):
            ImageSizes(224, steps)


def objective(**how) -> Objective:
    class Seen(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.x = x.clone()
            return x.flatten(1)[:, :3]

    return Objective(Seen(), loss=ClassificationLoss(), mean=(10, 20, 30), std=(2, 4, 5), **how)


def batch() -> Batch:
    images = torch.stack([image(40, 40, n) for n in range(6)])
    return Batch(images, torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6) + 100, [str(n) for n in range(6)])


def test_augmentation_on_the_device_is_the_workers() -> None:
    change = augmentation(flip=0.5, operations=2, magnitude=9, erasing=0.5, fill=(10, 20, 30))
    on_device = objective(augment=change, seed=5)
    state = torch.default_generator.get_state()
    on_device(batch())
    assert torch.equal(state, torch.default_generator.get_state())  # the step's own numbers are left alone
    for place in range(6):
        seed_sample(5, 100 + place, AUGMENTATION)
        expected = (change(batch().images[place]).float() - torch.tensor([10.0, 20, 30])[:, None, None]) / torch.tensor(
            [2.0, 4, 5]
        )[:, None, None]
        torch.testing.assert_close(on_device.classifier.x[place], expected)


def test_mixup_mixes_images_and_targets_alike() -> None:
    plain, mixed = objective(), objective(mixing=mixing(mixup=1.0, cutmix=0.0, num_classes=3))
    plain(batch())
    torch.manual_seed(0)
    terms = mixed(batch())
    x, y = plain.classifier.x, mixed.classifier.x
    share = ((y[0] - x[5]) / (x[0] - x[5])).nanmedian().item()  # torchvision mixes with the image before
    assert 0.02 < share < 0.98
    torch.testing.assert_close(y, share * x + (1 - share) * x.roll(1, 0), rtol=0, atol=1e-4)
    target = torch.eye(3)[batch().labels]
    target = share * target + (1 - share) * target.roll(1, 0)
    logits = y.flatten(1)[:, :3]
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["loss_cls"], expected, rtol=1e-4, atol=1e-4)
    assert terms["top1"] == (logits.argmax(1) == batch().labels).float().mean() * 100


def test_cutmix_pastes_the_share_that_the_target_says() -> None:
    plain, mixed = objective(), objective(mixing=mixing(mixup=0.0, cutmix=1.0, num_classes=3))
    plain(batch())
    torch.manual_seed(3)
    mixed(batch())
    x, y = plain.classifier.x, mixed.classifier.x
    pasted = (y != x).any(1).float().mean((1, 2))
    assert 0.05 < pasted.min() < 0.95
    assert torch.equal(torch.where(y == x, x, x.roll(1, 0)), y)
    assert mixing(mixup=0.0, cutmix=0.0, num_classes=3) is None
    assert isinstance(mixing(mixup=0.1, cutmix=1.0, num_classes=3), v2.RandomChoice)
    assert np.ptp(pasted.numpy()) < 0.01  # one rectangle for the batch
