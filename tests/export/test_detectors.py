"""Exported detectors find what PyTorch's do: at any size, in any batch, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import nms as torchvision_nms

from se_det.config import get_cfg, load_config
from se_det.data.transforms import resize_image, short_side_size, to_tensor
from se_det.detection import build_detector
from se_det.detection.mask_head import MaskHead
from se_det.errors import ConfigError, ExportError, WeightsError
from se_det.export import EXPORTERS, detector, nms, write
from se_det.export.comparing import detections_difference
from se_det.export.resizing import resize, short_side_sizes
from se_det.inference.exported import ExportedDetector
from se_det.inference.runtimes import open_runtime

from .test_export import needs_onnx, spread

SHORT, LONG = 96, 160
DETECTIONS = 20


def config(kind: str, gate: str = "se", padding: str = "keep", *more: object):
    return load_config(
        f"{kind}_rcnn_se_r18_fpn.yaml",
        ["MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.ROI_HEADS.NUM_CLASSES", 3,
         "MODEL.RPN.PRE_NMS_TOPK_TEST", 60, "MODEL.RPN.POST_NMS_TOPK_TEST", 30, "TEST.DETECTIONS_PER_IMAGE", DETECTIONS,
         "INPUT.MIN_SIZE_TEST", SHORT, "INPUT.MAX_SIZE_TEST", LONG, "MODEL.GATE.PADDING", padding,
         "MODEL.GATE.NAME", gate, *more], defaults=get_cfg(),
    )  # fmt: skip


def small(kind: str, *options: object) -> tuple[torch.nn.Module, object]:
    torch.manual_seed(0)
    cfg = config(kind, *options)
    return spread(build_detector(cfg)), cfg


def photos(count: int, seed: int, smallest: int = 40, largest: int = 200) -> list[np.ndarray]:
    """RGB images of random sizes with something in them. None is much taller than wide: see `resize`."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        height = int(random.integers(smallest, largest))
        width = int(height * random.uniform(0.8, 1.6))
        coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
        images.append(np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)))
    return images


def batch(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """As a caller makes one: padded at the bottom and on the right, here with noise."""
    sizes = np.array([image.shape[:2] for image in images], np.int64)
    whole = np.random.default_rng(0).integers(0, 256, (len(images), *sizes.max(0), 3), np.uint8)
    for row, image in zip(whole, images):
        row[: image.shape[0], : image.shape[1]] = image
    return whole, sizes


def prepared(image: np.ndarray, cfg) -> np.ndarray:
    """As the network takes it: resized, with its channels in order."""
    pixels = image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image
    return np.ascontiguousarray(resize_image(pixels, *short_side_size(*image.shape[:2], SHORT, LONG)))


def samples_of(images: list[np.ndarray], cfg) -> list[dict]:
    """As for PyTorch's detector."""
    return [
        {"image": to_tensor(prepared(image, cfg)), "height": image.shape[0], "width": image.shape[1]}
        for image in images
    ]


def reference(model: torch.nn.Module, cfg, images: list[np.ndarray]) -> list[dict[str, torch.Tensor]]:
    """What PyTorch's detector finds in the same batch, read and resized as for evaluation."""
    with torch.no_grad():
        return [found["instances"] for found in model.detect(samples_of(images, cfg))]


def assert_same_detections(outputs: list[np.ndarray], known: list[dict[str, torch.Tensor]]) -> int:
    """By matching, as those of one score may change places; what is beyond `counts` is nothing. How many there were."""
    boxes, scores, classes, counts, *masks = outputs
    for n, expected in enumerate(known):
        count = int(counts[n])
        assert count == len(expected["scores"])
        assert (scores[n, count:] == 0).all() and (classes[n, count:] == -1).all() and (boxes[n, count:] == 0).all()
        assert (np.diff(scores[n, :count]) <= 0).all()
        for at in range(count):
            near = np.abs(boxes[n, :count] - expected["pred_boxes"][at].numpy()).max(1)
            near = near + 1e6 * (classes[n, :count] != int(expected["pred_classes"][at]))
            here = int(near.argmin())
            assert near[here] < 1e-2
            assert abs(scores[n, here] - float(expected["scores"][at])) < 1e-4
            if masks:
                assert np.abs(masks[0][n, here] - expected["box_masks"][at].numpy()).max() < 1e-3
    return int(sum(counts))


def test_sizes_are_those_of_training() -> None:
    sizes = np.random.default_rng(0).integers(1, 4000, (3000, 2))
    # The first is a tie, 666.5, that the order of operations decides; the last is a strip whose side would be 0.
    sizes = np.concatenate([[[936, 1872], [1, 1], [500, 500], [1, 8000]], sizes])
    for short_side, longest in ((800, 1333), (168, 256), (0, 1333)):
        ours = short_side_sizes(torch.from_numpy(sizes), short_side, longest)
        assert ours.tolist() == [list(short_side_size(int(h), int(w), short_side, longest)) for h, w in sizes]


def test_resizing_gives_pillows_pixels() -> None:
    """Of images in one batch; a tall one may be a grey level off, as Pillow from version 13 takes its rows first."""
    random = np.random.default_rng(0)
    for before, after in (((120, 160), (200, 267)), ((97, 133), (168, 230)), ((300, 400), (75, 100)), ((1, 1), (9, 9)),
                          ((60, 90), (60, 90)), ((100, 90), (50, 90))):  # fmt: skip
        pixels = random.integers(0, 256, (*before, 3), np.uint8)
        images, sizes = batch([pixels, random.integers(0, 256, (70, 200, 3), np.uint8)])
        targets = torch.tensor([after, (33, 95)])
        height, width = max(after[0], 33) + 5, max(after[1], 95) + 7
        ours = resize(torch.from_numpy(images), torch.from_numpy(sizes), targets, height, width)
        known = np.asarray(Image.fromarray(pixels).resize(after[::-1], Image.Resampling.BILINEAR))
        found = ours[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found[: after[0], : after[1]], known)
        assert (found[after[0] :] == 0).all() and (found[:, after[1] :] == 0).all()
    tall = random.integers(0, 256, (300, 40, 3), np.uint8)
    known = resize_image(tall, 110, 15).astype(int)
    ours = resize(torch.from_numpy(tall)[None], torch.tensor([[300, 40]]), torch.tensor([[110, 15]]), 110, 15)
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - known).max() <= 1


def test_suppression_within_groups() -> None:
    """Against torchvision's operator on each group alone; a group may have no box, and all may."""
    random = torch.Generator().manual_seed(0)
    corner = torch.rand(4, 50, 2, generator=random) * 60
    boxes = torch.cat([corner, corner + torch.rand(4, 50, 2, generator=random) * 40], 2)
    scores = torch.randn(4, 50, generator=random)
    scores[1] = -torch.inf
    scores[2, 10:] = -torch.inf
    kept = nms.grouped_nms(boxes, scores, 0.5)
    for group in range(4):
        there = scores[group] > -torch.inf
        known = torch.zeros(50, dtype=torch.bool)
        known[there.nonzero()[:, 0][torchvision_nms(boxes[group, there], scores[group, there], 0.5)]] = True
        assert torch.equal(kept[group], known)
    assert 0 < kept.sum() < 110
    assert not nms.grouped_nms(boxes, torch.full_like(scores, -torch.inf), 0.5).any()


@pytest.mark.parametrize(
    ("kind", "gate", "padding"),
    [
        ("faster", "none", "keep"),
        ("mask", "sp_se", "exact"),
        pytest.param("mask", "cbam", "squeeze", marks=pytest.mark.slow),
        ("faster", "rg_se", "exact"),
    ],
)
def test_the_graph_before_any_export(kind: str, gate: str, padding: str) -> None:
    model, cfg = small(kind, gate, padding)
    graph = detector(model, cfg).module
    found = 0
    for seed, count in enumerate((1, 2, 5, 2)):
        images = photos(count, seed)
        with torch.no_grad():
            outputs = graph(*(torch.from_numpy(value) for value in batch(images)))
        found += assert_same_detections([v.numpy() for v in outputs], reference(model, cfg, images))
    assert found > 20


def test_a_cascade() -> None:
    """Every stage pools the boxes that the one before has moved."""
    model, cfg = small(
        "faster",
        "se",
        "keep",
        "MODEL.ROI_HEADS.NAME",
        "CascadeROIHeads",
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG",
        True,
    )
    images = photos(3, 5)
    with torch.no_grad():
        outputs = detector(model, cfg).module(*(torch.from_numpy(value) for value in batch(images)))
    assert assert_same_detections([v.numpy() for v in outputs], reference(model, cfg, images)) > 5


def test_without_preprocessing() -> None:
    """The caller resizes: the same detections, in the original's px."""
    model, cfg = small("mask", "se", "keep", "INPUT.FORMAT", "BGR")
    network = detector(model, cfg, preprocessing=False)
    assert network.metadata["input"]["preprocessing"] is False and network.metadata["input"]["format"] == "BGR"
    images = photos(3, 7)
    whole, sizes = batch([prepared(image, cfg) for image in images])
    original = np.array([image.shape[:2] for image in images])
    inputs = whole.transpose(0, 3, 1, 2).astype(np.float32), sizes, (original / sizes).astype(np.float32)
    with torch.no_grad():
        outputs = network.module(*(torch.from_numpy(np.ascontiguousarray(value)) for value in inputs))
    assert assert_same_detections([v.numpy() for v in outputs], reference(model, cfg, images)) > 10


def test_soft_nms_is_refused_with_the_reason() -> None:
    model, cfg = small("faster", "se", "keep", "MODEL.ROI_HEADS.NMS_TYPE", "linear")
    with pytest.raises(ExportError, match=r"NMS_TYPE is linear, .* no operator .* MODEL.ROI_HEADS.NMS_TYPE=hard"):
        detector(model, cfg)


def test_a_head_that_nothing_exports_is_not_left_out() -> None:
    class Other(MaskHead):
        pass

    model, cfg = small("mask")
    model.roi_heads.mask_head.__class__ = Other
    with pytest.raises(ExportError, match="A detector with Other is not exported: .*MaskHead"):
        detector(model, cfg)


def test_an_architecture_that_nothing_exports() -> None:
    model, cfg = small("faster")
    cfg.MODEL.META_ARCHITECTURE = "Other"
    with pytest.raises(ConfigError, match="MODEL.META_ARCHITECTURE 'Other' is unknown: use one of .*GeneralizedRCNN"):
        detector(model, cfg)
    assert "GeneralizedRCNN" in EXPORTERS.names()


def test_what_a_file_says_of_itself() -> None:
    model, cfg = small("mask")
    metadata = detector(
        model, cfg, class_names=["a", "b", "c"], category_ids=[3, 5, 9], thresholds=[0.5, None, 0.25]
    ).metadata
    assert metadata["classes"][2] == {"id": 9, "name": "c", "threshold": 0.25}
    assert metadata["outputs"] == ["boxes", "scores", "classes", "counts", "masks"]
    assert metadata["input"]["min_size"] == SHORT and metadata["input"]["format"] == "RGB"
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", "elsewhere"
    assert detector(model, cfg).metadata["config_hash"] == metadata["config_hash"]
    cfg.INPUT.MIN_SIZE_TEST += 1
    assert detector(model, cfg).metadata["config_hash"] != metadata["config_hash"]


def one_detection(box: list[float], score: float, label: int) -> list[torch.Tensor]:
    return [torch.tensor([[box]]), torch.tensor([[score]]), torch.tensor([[label]]), torch.tensor([1])]


def test_detections_that_change_places_are_the_same() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [5, 5, 8, 8], [0, 0, 0, 0]]])
    scores, classes, counts = torch.tensor([[0.5, 0.5, 0]]), torch.tensor([[1, 2, -1]]), torch.tensor([2])
    order = torch.tensor([1, 0, 2])
    one, other = [boxes, scores, classes, counts], [boxes[:, order], scores, classes[:, order], counts]
    assert detections_difference(one, other) == 0
    assert detections_difference(one, [boxes + 0.1, scores, classes, counts]) == pytest.approx(1e-4, rel=1e-2)
    assert detections_difference(one, [boxes, scores, classes, counts - 1]) == float("inf")
    assert detections_difference(one, [boxes * torch.nan, scores, classes, counts]) == float("inf")
    masks = torch.zeros(1, 3, 4, 4)
    assert detections_difference([*one, masks], [*other, masks * torch.nan]) == float("inf")
    assert detections_difference(one_detection([0, 0, 9, 9], 0.5, 1), one_detection([0, 0, 9, 9], 0.5, 2)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("kind", ["faster", "mask"])
def test_files(tmp_path: Path, kind: str, suffix: str) -> None:
    """Exported once, run at 20 sizes and batches of 1, 2 and 5, at one pixel and at 8,000."""
    if suffix != ".pt2":
        needs_onnx()
    if suffix == ".xml":
        pytest.importorskip("openvino", reason='OpenVINO files need openvino: pip install "se_det[openvino]"')
    model, cfg = small(kind, "rg_se", "exact")
    network = detector(model, cfg)
    assert write(network, tmp_path / f"d{suffix}") < 1e-4
    runtime = open_runtime(tmp_path / f"d{suffix}")
    assert runtime.metadata == network.metadata
    sizes = [photos(count, seed) for seed, count in enumerate((1, 2, 5, 1, 2, 5, 1, 1))]  # 18 sizes
    # Not of one colour, where the scores of all places tie and rounding decides which are proposals.
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 400, 3), np.uint8))
    sizes += [[np.full((1, 1, 3), 200, np.uint8)], [np.asarray(strip.resize((8000, 20), Image.Resampling.BICUBIC))]]
    found = 0
    for images in sizes:
        found += assert_same_detections(runtime.run(batch(images)), reference(model, cfg, images))
    assert found > 60


@pytest.mark.slow
def test_images_without_detections(tmp_path: Path) -> None:
    needs_onnx()
    model, cfg = small("mask")
    model.roi_heads.box_predictor.score_threshold = 2.0
    network = detector(model, cfg)
    write(network, tmp_path / "d.onnx")
    outputs = open_runtime(tmp_path / "d.onnx").run(batch(photos(2, 0)))
    assert outputs[3].tolist() == [0, 0] and (outputs[2] == -1).all() and (outputs[4] == 0).all()


class GraphRuntime:
    """The network itself, as if a file ran it."""

    description = "PyTorch"

    def __init__(self, network) -> None:
        self.metadata, self._module = network.metadata, network.module

    @torch.no_grad()
    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [v.numpy() for v in self._module(*(torch.from_numpy(value) for value in inputs))]


def test_a_runtime_that_fails_is_a_sentence() -> None:
    model, cfg = small("faster")
    runtime = GraphRuntime(detector(model, cfg))
    runtime.run = lambda inputs: torch.zeros(2) @ torch.zeros(3)  # as if the runtime had no memory left
    said = r"x.onnx does not run in PyTorch on 2 images of up to \d+ x \d+ px: .*\. Try .*TEST.IMS_PER_BATCH=1"
    with pytest.raises(WeightsError, match=said):
        ExportedDetector(runtime, "x.onnx").detect(samples_of(photos(2, 1), cfg))


@pytest.mark.parametrize("preprocessing", [True, False])
def test_a_runtime_in_the_place_of_a_model(preprocessing: bool) -> None:
    """`detect` of samples gives what `GeneralizedRCNN.detect` gives, masks included."""
    model, cfg = small("mask")
    exported = ExportedDetector(GraphRuntime(detector(model, cfg, preprocessing=preprocessing)), "x.onnx")
    images = photos(3, 1)
    known = model(samples_of(images, cfg))
    samples = [{**s, "image": to_tensor(i)} for s, i in zip(samples_of(images, cfg), images)]
    for ours, theirs in zip(exported(samples if preprocessing else samples_of(images, cfg)), known):
        ours, theirs = ours["instances"], theirs["instances"]
        assert ours.keys() == theirs.keys() and len(ours["scores"])
        torch.testing.assert_close(ours["pred_boxes"], theirs["pred_boxes"], rtol=0, atol=1e-2)
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-4)
        assert (ours["pred_masks"] != theirs["pred_masks"]).float().mean() < 1e-3
