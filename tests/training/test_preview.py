"""`se-det preview`: the same split, config and samples as the training's, and a page and a picture of them."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from se_det.cli.main import main
from se_det.config import load_config, merge_overrides
from se_det.data.loader import build_train_loader
from se_det.evaluation.report.bars import bar_chart
from se_det.evaluation.report.svg import BOTTOM, HEIGHT, TOP
from se_det.training import own_data, preview
from se_det.training.preview.anchors import anchor_levels, best_of_levels, recall_of
from se_det.training.preview.facts import gather
from se_det.training.preview.objects import list_objects, resizing
from se_det.training.preview.page import preview_page
from se_det.training.preview.samples import draw_samples, drawn_masks
from se_det.training.recipe.anchors import best_possible_recall
from tests.evaluation.headless import Page
from tests.training.preview_sets import odd_set

SMALL = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TRAIN", "(120,)", "INPUT.MAX_SIZE_TRAIN", "200"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_data, "weights_at_hand", lambda source: False)  # nobody is asked for weights


@pytest.fixture
def odd(tmp_path):
    return odd_set(tmp_path / "odd", images=9, val=3)


def config(root, *overrides):
    own = own_data.open_own_data(root, root.parent / "out")
    cfg = load_config("quickstart.yaml", [*SMALL, *overrides])
    merge_overrides(cfg, own.overrides())
    return cfg, own


def first_samples(cfg, dataset, count):
    cfg = cfg.clone()
    cfg.DATALOADER.NUM_WORKERS = 0
    return list(islice(chain.from_iterable(build_train_loader(cfg, [dataset], seed=4)), count))


def bgr(sample, format):
    pixels = sample["image"].numpy().transpose(1, 2, 0)
    return pixels[..., ::-1] if format == "RGB" else pixels


def test_samples_are_the_first_of_the_training(odd):
    cfg, own = config(odd, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    dataset = own.opened.splits["train"].read()
    expected = first_samples(cfg, dataset, 9)  # with images that have no object
    drawn = draw_samples(cfg, [dataset], seed=4, count=9)
    assert any(not len(sample.boxes) for sample in drawn)
    for shown, sample in zip(drawn, expected, strict=True):
        assert shown.file == Path(sample["file_name"]) and shown.size == (sample["width"], sample["height"])
        assert np.array_equal(shown.pixels, bgr(sample, cfg.INPUT.FORMAT))
        assert np.array_equal(shown.boxes, sample["instances"]["gt_boxes"].numpy())
        assert np.array_equal(shown.classes, sample["instances"]["gt_classes"].numpy())
    assert [shown.step for shown in drawn] == [at // cfg.SOLVER.IMS_PER_BATCH + 1 for at in range(9)]


def test_an_image_without_objects_is_among_them(odd):
    cfg, own = config(odd, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "INPUT.FORMAT", "BGR")
    dataset = own.opened.splits["train"].read()
    stream = first_samples(cfg, dataset, 40)
    empty = [at for at, sample in enumerate(stream) if not len(sample["instances"]["gt_boxes"])]
    count = empty[0]  # so many have objects
    assert count, "another seed is needed: the first sample has no object"
    drawn = draw_samples(cfg, [dataset], seed=4, count=count)
    assert len(drawn) == count and not len(drawn[-1].boxes)
    assert np.array_equal(drawn[-1].pixels, bgr(stream[count], "BGR"))
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    assert all(len(shown.boxes) for shown in draw_samples(cfg, [dataset], seed=4, count=30))


def test_sizes_are_those_of_the_resized_images(odd):
    cfg, own = config(odd, "INPUT.RANDOM_FLIP", "none")
    dataset = own.opened.splits["train"].read()
    objects = list_objects(dataset)
    boxes = resizing(cfg).boxes(objects)
    files = [dataset.image(i).path for i in range(len(dataset))]
    for shown in draw_samples(cfg, [dataset], seed=0, count=6):
        expected = shown.boxes[:, 2:] - shown.boxes[:, :2]
        found = boxes[objects.image == files.index(shown.file)]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_else_changes_sizes_is_named():
    cfg = load_config("quickstart.yaml", ["MODEL.DEVICE", "cpu"])
    sides = sorted(cfg.INPUT.MIN_SIZE_TRAIN)
    assert resizing(cfg).short_side == sides[len(sides) // 2] and resizing(cfg).others == ()
    cfg.INPUT.AUGMENTATIONS = [{"name": "Mosaic", "size": [200, 200]}, {"name": "ResizeShortestEdge"}]
    assert resizing(cfg).others == ("Mosaic",)
    cfg.INPUT.AUGMENTATIONS = [{"name": "LargeScaleJitter"}]
    assert resizing(cfg) is None


def test_recall_of_levels():
    """By hand: a 32 px anchor, 8 px apart, and a 32 px object 2 px off share 30 x 30 of 2048 - 900 px^2."""
    cfg = load_config("quickstart.yaml", ["MODEL.DEVICE", "cpu"])
    cfg.MODEL.RPN.IN_FEATURES = ["p3", "p4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [128, 160]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    boxes = np.array([[32.0, 32.0], [128.0, 128.0], [2.0, 2.0], [600.0, 600.0]])
    small, large = anchor_levels(cfg, boxes)
    assert (small.stride, large.stride, large.sizes, large.ratios) == (8, 16, (128, 160), (1.0,))
    assert small.overlaps[0] == pytest.approx(900 / (2048 - 900)) and large.overlaps[1] == pytest.approx(
        124**2 / (2 * 128**2 - 124**2)
    )
    assert (small.recall, large.recall, recall_of(best_of_levels([small, large]))) == (0.25, 0.25, 0.5)
    rng = np.random.default_rng(0)
    cfg = load_config("quickstart.yaml", ["MODEL.DEVICE", "cpu"])
    boxes = 2.0 ** rng.uniform(2, 9, (500, 2))
    levels = anchor_levels(cfg, boxes)
    anchors = cfg.MODEL.ANCHOR_GENERATOR
    strides = [level.stride for level in levels]
    sizes = list(anchors.SIZES) * (len(strides) if len(anchors.SIZES) == 1 else 1)
    expected = best_possible_recall(boxes, sizes, anchors.ASPECT_RATIOS[0], strides)
    assert recall_of(best_of_levels(levels)) == expected
    cfg.MODEL.RPN.IN_FEATURES = ["stage4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32]]
    (unknown,) = anchor_levels(cfg, boxes)
    assert unknown.stride is None and np.isnan(unknown.recall) and best_of_levels([unknown]) is None


def test_masks_are_drawn_where_they_are(odd):
    """Against pycocotools, on the image as it was."""
    larger = "INPUT.MIN_SIZE_TRAIN", "(400,)", "INPUT.MAX_SIZE_TRAIN", "1600"  # so that no pixel of an RLE is lost
    cfg, own = config(odd, "MODEL.MASK_ON", True, "INPUT.RANDOM_FLIP", "none", *larger)
    dataset = own.opened.splits["train"].read()
    content = json.loads(dataset.json_path.read_text())
    for shown in draw_samples(cfg, [dataset], seed=1, count=3):
        image = next(i for i in content["images"] if i["file_name"] == shown.file.name)
        truth = [a["segmentation"] for a in content["annotations"] if a["image_id"] == image["id"]]
        width, height = shown.size
        drawn = drawn_masks(shown.masks, len(truth), shown.size, np.array(shown.size) / shown.pixels.shape[1::-1])
        for given, mask in zip(truth, drawn, strict=True):
            rle = coco_mask.merge(coco_mask.frPyObjects(given, height, width)) if isinstance(given, list) else given
            expected = coco_mask.decode(rle)
            if expected.sum() > 100:
                assert (mask & expected).sum() / (mask | expected).sum() > 0.95


class Text(HTMLParser):
    """The words of a page, its tags, and its tables as rows of cells."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.rows = "", set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(key.startswith("on") or (key in ("src", "href") and not value.startswith("data:image/jpeg"))
                       for key, value in attrs)  # fmt: skip
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.cell = tag in ("td", "th")

    def handle_endtag(self, tag):
        self.cell = False

    def handle_data(self, data):
        self.text += data
        if getattr(self, "cell", False):
            self.rows[-1][-1] += data


def test_the_page_says_what_the_data_is(odd):
    """300 classes with names that would do harm, images without objects, a split that is not used."""
    val = odd / "annotations" / "instances_val.json"
    shutil.copytree(odd / "val", odd / "test")
    test = json.loads(val.read_text())
    test["categories"].reverse()  # their order says nothing
    for image in test["images"]:
        image["file_name"] = image["file_name"].replace("val", "gone")
    for path in (odd / "test").iterdir():
        path.rename(path.with_name(path.name.replace("val", "gone")))
    (odd / "annotations" / "instances_test.json").write_text(json.dumps(test))
    cfg, own = config(odd, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    page = Text(preview_page(gather(cfg, title="<b>odd</b>", own=own, samples=4)))
    assert not page.tags & {"script", "link", "iframe", "b "} and "Preview of <b>odd</b>" in page.text
    found = {row[0]: row for row in page.rows if row[0] in ("train", "val", "test")}
    assert [found[name][1:4] for name in ("train", "val", "test")] == [
        ["trained on", "9", "3"], ["evaluated on", "3", "1"], ["not used", "3", "1"],
    ]  # fmt: skip
    head = next(at for at, row in enumerate(page.rows) if row[0] == "class")
    assert page.rows[head][1::2] == ["train: objects", "val: objects", "test: objects"]
    table = {row[0]: [int(value) for value in row[1:]] for row in page.rows[head + 1 : head + 301]}
    for column, split in enumerate(("train", "val", "test")):
        content = json.loads((odd / "annotations" / f"instances_{split}.json").read_text())
        for category in content["categories"]:
            of_class = [a["image_id"] for a in content["annotations"] if a["category_id"] == category["id"]]
            assert table[category["name"]][2 * column : 2 * column + 2] == [len(of_class), len(set(of_class))]
    levels = [row for row in page.rows if re.fullmatch("p[2-7]", row[0])]
    assert len(levels) == len(cfg.MODEL.RPN.IN_FEATURES)


def test_a_histogram():
    chart = bar_chart([1, 2, 4, 8], [10, 0, 5], x="px", y="n", marks={"a <b>": [2.0, 100.0]}, logarithmic=True)
    bars = [
        tuple(map(float, found))
        for found in re.findall(r"<rect x='([\d.]+)' y='[\d.]+' width='([\d.]+)' height='([\d.]+)'", chart)
    ]
    full = (HEIGHT - TOP - BOTTOM) / 1.05
    assert [bar[2] for bar in bars] == [pytest.approx(full, abs=0.1), pytest.approx(full / 2, abs=0.1)]
    assert bars[0][1] == pytest.approx(bars[1][1], abs=0.11)  # octaves are alike
    assert chart.count("stroke-dasharray") == 1 and "a &lt;b&gt;: 2, 100" in chart


def test_config_and_split_are_those_of_the_training(tmp_path, monkeypatch):
    root = odd_set(tmp_path / "odd", images=9, classes=3)
    words = [str(root), "--task", "boxes", "--output", str(tmp_path / "out"), *SMALL[:2], "SOLVER.BASE_LR=0.003"]
    shown, trained = [], []
    monkeypatch.setattr(preview, "write_preview", lambda cfg, *args, **options: shown.append(cfg))
    assert main(["preview", *words]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "split").iterdir()}
    assert sorted(before) == ["train.json", "val.json"]
    monkeypatch.setattr("se_det.training.launch.launch", lambda run, args, **options: trained.append(*args))
    assert main(["train", *words]) == 0
    assert shown[0].dump() == trained[0].dump() and shown[0].SOLVER.BASE_LR == 0.003
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "split").iterdir()} == before


def test_a_preview_of_data_and_of_the_config_that_it_led_to(tmp_path, capsys):
    root, out = odd_set(tmp_path / "odd", images=9, classes=3), tmp_path / "out"
    shutil.copyfile(root / "train" / "猫 train & <1>.png", root / "train" / "again.png")
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][1], "id": 99, "file_name": "again.png"})
    path.write_text(json.dumps(content))
    assert main(["preview", str(root), "--output", str(out), "--samples", "2", "MODEL.DEVICE=cpu"]) == 0
    page = Text((out / "preview.html").read_text(encoding="utf-8"))
    assert "1 images are near-duplicates" in page.text and "猫 train & <1>.png = again.png" in page.text
    decided = {row[0]: row[1:] for row in page.rows if row[0].startswith(("SOLVER.", "INPUT."))}
    assert decided["SOLVER.MAX_ITER"][1].endswith("images")
    picture = cv2.imread(str(out / "preview.png"))
    assert picture.shape[1] == 960 and picture.shape[0] > 600
    (out / "config.yaml").write_text("SEED: 1\n")
    assert main(["preview", str(root), "--output", str(out)]) == 1
    assert f"{out} holds a run (config.yaml)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "nothing to preview"),
        (("DATA", "--samples", "0"), "--samples must be from 1 to 100, got 0"),
        (("DATA", "--config-file", "quickstart.yaml", "--minutes", "3"), "--minutes is for training without a config"),
        (("nowhere",), "no file or folder"),
        (("--config-file", "quickstart.yaml", "DATASETS.TRAIN=()"), "no training data"),
    ],
)
def test_refusals(odd, tmp_path, capsys, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    assert main(["preview", *(word.replace("DATA", str(odd)) if word == "DATA" else word for word in words)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and named in message and len(message.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("preview.*"))


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOLD = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs headless Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_a_word_and_without_scrolling_sideways(odd, tmp_path, width):
    cfg, own = config(odd)
    preview.write_preview(cfg, tmp_path / "out", title="odd", own=own, samples=6)
    url = (tmp_path / "out" / "preview.html").as_uri()
    with Page(BROWSER, tmp_path / "profile") as shown:
        shown.open(url, width, 900)
        assert shown.value("document.documentElement.scrollWidth") <= width
        assert shown.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert shown.value("document.images.length") == 6
        told = [params for method, params in shown.events if method in TOLD]
        asked = [params["request"]["url"] for method, params in shown.events if method == "Network.requestWillBeSent"]
    assert told == [] and {address for address in asked if not address.startswith("data:image/")} == {url}


def test_windows_are_shown_where_training_is_on_windows(odd):
    cfg, own = config(odd, "INPUT.TILE.SIZE", "64", "INPUT.TILE.EMPTY", "0.3", "SEED", "4")
    found = gather(cfg, title="t", own=own, samples=5)
    expected = first_samples(cfg, found.parts[0].dataset, 4)
    for shown, sample in zip(found.samples, expected):
        assert shown.window == sample["window"]
        np.testing.assert_array_equal(shown.pixels, bgr(sample, found.cfg.INPUT.FORMAT))
    assert any(not len(shown.boxes) for shown in found.samples)
    x0, y0, x1, y1 = found.samples[0].window
    page = preview_page(found)
    assert f"{x1 - x0} x {y1 - y0} px, from {x0}, {y0} on," in page and "windows of 64 px" in page
    # A window of 64 px that becomes one of 120 enlarges its objects.
    whole = list_objects(found.parts[0].dataset)
    np.testing.assert_allclose(found.boxes, whole.boxes * 120 / 64)
