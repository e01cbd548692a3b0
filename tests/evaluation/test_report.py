"""report.html: whole, closed to what the data set says, nothing from outside, and right where a number is known."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_samples import HEIGHT, WIDTH, random_content, random_outputs, write
from headless import Page

from se_det.data.coco import read_coco
from se_det.evaluation.coco_eval import CocoEvaluator
from se_det.evaluation.report import write_report
from se_det.evaluation.report.history import read_history
from se_det.evaluation.report.svg import POINTS, line_chart

HOSTILE = "<script>alert('x')</script>\"&'"
VOID = {"meta", "img", "i", "circle", "line", "polyline"}


def outcome(folder: Path, *, tasks=("bbox", "segm"), images: int = 16, nothing: bool = False, hostile: bool = False):
    folder.mkdir(exist_ok=True)
    content = random_content(images=images)
    content["categories"] = [dict(c) for c in content["categories"]]
    if hostile:
        content["categories"][0]["name"] = HOSTILE
        for image in content["images"]:
            image["file_name"] = f"<b onmouseover=alert(1)>{image['id']}.png"
    for image in content["images"]:
        cv2.imwrite(str(folder / image["file_name"]), np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
    dataset = read_coco(write(folder / "a.json", content), folder)
    evaluator = CocoEvaluator(dataset, tasks)
    if not nothing:
        evaluator.process(*random_outputs(content))
    evaluator.evaluate()
    return evaluator.outcome


class Reader(HTMLParser):
    """Tags opened and closed, what is said, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID or tag == "i":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


def page(folder: Path, outcomes: dict, config: str = "A: 1\n") -> tuple[str, Reader]:
    text = write_report(folder, outcomes, config=config).read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == []
    return text, reader


def test_names_of_the_data_set_are_words_and_nothing_comes_from_outside(tmp_path: Path) -> None:
    found = outcome(tmp_path / "set", hostile=True)
    text, reader = page(tmp_path, {HOSTILE: found}, config=f"NAME: {HOSTILE}\n")
    assert "script" not in reader.tags and "b" in reader.tags and HOSTILE in reader.text
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "<script" not in text and "<b onmouseover" not in text
    links = [value for name, value in reader.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links and all(value.startswith("data:image/jpeg;base64,") for value in links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^']*", "", text))
    assert any("default-src 'none'" in value for _, value in reader.attributes if value)


def test_numbers_masks_and_several_sets(tmp_path: Path) -> None:
    first, second = outcome(tmp_path / "a"), outcome(tmp_path / "b", tasks=("bbox",))
    (tmp_path / "metrics.json").write_text(
        '{"iteration": 1, "total_loss": 2.5, "lr": 0.1}\n{"iteration": 2, "total_loss": null, "bbox/AP": 3.0}\ntorn {'
    )
    text, reader = page(tmp_path, {"first": first, "second": second})
    for value in (first.metrics["bbox"]["AP"], first.metrics["segm"]["AP50"], second.metrics["bbox"]["APl"]):
        assert f"{value:.1f}" in reader.text
    assert text.count("<h3>Error kinds</h3>") == text.count("<h3>Confusion matrix</h3>") == 2
    assert text.count("<h3>Precision over recall, mask</h3>") == 1
    assert "scores of 0.5 and more" in text and "Training" in reader.text and ">total_loss<" in text
    assert 0 < text.count("<img ") <= 2 * 2 * 12


def test_nothing_found_nothing_evaluated_and_images_gone(tmp_path: Path) -> None:
    empty = outcome(tmp_path / "set", nothing=True)
    _, reader = page(tmp_path, {"val": empty})
    assert "100.0" in reader.text  # all of AP is lost to missed objects
    for path in (tmp_path / "set").glob("*.png"):
        path.unlink()
    _, reader = page(tmp_path, {"val": empty})
    assert "is not there" in reader.text and "img" not in reader.tags
    _, reader = page(tmp_path, {})
    assert "Nothing was evaluated" in reader.text and "No metrics.json" in reader.text


def test_pictures_show_what_was_annotated_and_found(tmp_path: Path) -> None:
    import base64

    found = outcome(tmp_path / "set")
    text, _ = page(tmp_path, {"val": found})
    sides = re.findall(r"base64,([^']*)'", text)
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(s), np.uint8), cv2.IMREAD_COLOR) for s in sides]
    assert all(max(p.shape) == 560 for p in decoded)
    grey = np.full_like(decoded[0], 120)
    assert any(np.abs(p.astype(int) - grey).max() > 60 for p in decoded)


def test_the_size_is_bounded(tmp_path: Path) -> None:
    found = outcome(tmp_path / "set", images=60)
    text, _ = page(tmp_path, {"val": found})
    assert text.count("<img ") == 24
    many = {"loss": [(float(i), 1.0 + i % 7) for i in range(100_000)]}
    chart = line_chart(many, x="step", y="loss")
    assert len(re.search(r"points='([^']*)'", chart)[1].split()) <= POINTS
    small = line_chart({"lr": [(0.0, 0.0), (90_000.0, 0.001)]}, x="step", y="learning rate")
    assert {">0<", ">2.5e-4<", ">1e-3<", ">80000<"} <= set(re.findall(r">[\d.e-]+<", small))
    assert "Nothing to draw" in line_chart({"a": [(0.0, float("nan"))]}, x="x", y="y")
    assert "<circle" in line_chart({"a": [(1.0, 0.0)]}, x="x", y="y")


def test_a_history_with_strange_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('[]\n{"iteration": "x"}\n{"iteration": 3, "a": "b", "c": 1, "d": null, "e": NaN}\n\x00\n3\n')
    assert read_history(path) == {"c": [(3.0, 1.0)]}
    assert read_history(tmp_path / "absent") == {}


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What a page has to say: errors of scripts and of loading, and what scripts print.
TOLD = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs headless Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_a_word_and_without_scrolling_sideways(tmp_path: Path, width: int) -> None:
    """On a screen and on a telephone, with names from the data set that would do harm, and nothing from the network."""
    page(tmp_path, {"val": outcome(tmp_path / "set", hostile=True)})
    url = (tmp_path / "report.html").as_uri()
    with Page(BROWSER, tmp_path / "profile") as shown:
        shown.open(url, width, 900)
        assert shown.value("window.innerWidth") == width
        assert shown.value("document.documentElement.scrollWidth") <= width
        height = shown.value("document.documentElement.scrollHeight")
        area = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = shown.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=area)["data"]
        told = [params for method, params in shown.events if method in TOLD]
        asked = [params["request"]["url"] for method, params in shown.events if method == "Network.requestWillBeSent"]
    assert told == []
    assert {address for address in asked if not address.startswith("data:image/")} == {url}
    (tmp_path / f"{width}.png").write_bytes(base64.b64decode(shot))
    pixels = cv2.imread(str(tmp_path / f"{width}.png"))
    assert pixels.shape == (height, width, 3) and height > 900 and pixels.std() > 10
