"""The server as its callers see it: the same detections as `predict`, and a sentence for everything else."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from se_det.cli.main import main
from se_det.inference import Predictor
from se_det.inference.drawing import class_color
from se_det.serving import answers
from se_det.weights import config_of_checkpoint

from .running import Running, form, running
from .small_model import CATEGORIES, THRESHOLDS, checkpoint, pictures

NAMES = {category["id"]: category["name"] for category in CATEGORIES}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A checkpoint, pictures, what `predict` makes of them, and a server of the checkpoint."""
    folder = tmp_path_factory.mktemp("house")
    weights, photos = checkpoint(folder), pictures(folder / "photos")
    assert main(["predict", "--weights", str(weights), "--output", str(folder / "drawn"), str(folder / "photos")]) == 0
    found = json.loads((folder / "drawn" / "detections.json").read_text())
    assert len(found) > 5 * len(photos) and {entry["category_id"] for entry in found} == set(NAMES)
    with running(Predictor(weights), max_pixels=10**6, max_body=2**20) as server:
        yield SimpleNamespace(folder=folder, photos=photos, found=found, weights=weights, server=server)


@pytest.fixture
def server(house: SimpleNamespace) -> Running:
    return house.server


def expected(house: SimpleNamespace, photo: Path) -> list[dict]:
    """What `predict` wrote of a picture, as the server answers it."""
    entries = [entry for entry in house.found if entry["file_name"] == str(photo)]
    return [
        {**{k: v for k, v in e.items() if k != "file_name"}, "image_id": 0, "category": NAMES[e["category_id"]]}
        for e in entries
    ]


def test_detections_are_those_of_predict(house: SimpleNamespace, server: Running) -> None:
    for photo in house.photos:
        answer = server.ask("/predict", photo.read_bytes(), content_type="image/jpeg")
        assert answer.status == 200 and answer.headers["content-type"] == "application/json"
        assert answer.json["detections"] == expected(house, photo)
        height, width = cv2.imread(str(photo)).shape[:2]  # turned as EXIF says
        assert (answer.json["height"], answer.json["width"]) == (height, width)
        body, kind = form("image", photo)
        assert server.ask("/predict", body, content_type=kind).json == answer.json


@pytest.mark.parametrize("asked", ["accept", "query"])
def test_pictures_are_those_of_predict(house: SimpleNamespace, server: Running, asked: str) -> None:
    for photo in house.photos:
        kind = "png" if photo.suffix == ".png" else "jpeg"
        headers = {"accept": f"text/html, image/{kind};q=0.9, */*;q=0.1"} if asked == "accept" else {}
        query = f"?format={kind}" if asked == "query" else ""
        answer = server.ask(f"/predict{query}", photo.read_bytes(), **headers)
        assert answer.headers["content-type"] == f"image/{kind}"
        assert answer.body == (house.folder / "drawn" / photo.name).read_bytes()


def test_filters(house: SimpleNamespace, server: Running) -> None:
    photo = house.photos[1]
    everything = expected(house, photo)
    body = photo.read_bytes()

    def ask(query: str) -> list[dict]:
        return server.ask(f"/predict?{query}", body).json["detections"]

    limit = sorted(entry["score"] for entry in everything)[len(everything) // 2]
    above = [entry for entry in everything if entry["score"] >= limit]
    assert 0 < len(above) < len(everything) and ask(f"threshold={limit}") == above
    for query in ("classes=cat&classes=dog,%20small", "classes=cat,7"):
        assert ask(query) == [entry for entry in everything if entry["category_id"] in (4, 7)]
    assert ask("image_id=12") == [{**entry, "image_id": 12} for entry in everything]
    blank = server.ask("/predict?format=png&threshold=1", body).body
    drawn = cv2.imdecode(np.frombuffer(blank, np.uint8), cv2.IMREAD_COLOR)
    pixels = cv2.imread(str(photo))
    factor = drawn.shape[0] // pixels.shape[0]  # small pictures are enlarged
    assert np.array_equal(drawn, cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))


def png(width: int, height: int) -> bytes:
    """The header of a PNG, with next to nothing behind it."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99))]
    packed = [struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "told"),
    [
        ("/predict", b"", {}, 400, "no body"),
        ("/predict", b"hello", {}, 400, "no image of a known format"),
        ("/predict", "cut", {}, 400, "truncated"),
        ("/predict", b"x" * (2**20 + 1), {}, 413, "larger than 1 MiB"),
        ("/predict", iter([b"x" * 2**19] * 3), {}, 413, "larger than 1 MiB"),
        ("/predict", png(2000, 600), {}, 413, "2000 x 600 px, and at most 1 million"),
        ("/predict", png(30000, 30000), {}, 413, "more than the 1 million"),
        ("/predict", b"a", {"content_type": "multipart/form-data; boundary=xyz"}, 400, "multipart"),
        ("/predict", b"a", {"content_type": "multipart/form-data"}, 400, "boundary"),
        ("/predict", b'--xyz\r\nContent-Disposition: form-data; name="image"\r\n\r\na\r\n--xyz--\r\n',
         {"content_type": "multipart/form-data; boundary=xyz"}, 400, "no file"),
        ("/predict?threshold=2", b"", {}, 422, "threshold=2"),
        ("/predict?threshold=nan", b"", {}, 422, "threshold=nan"),
        ("/predict?image_id=x", b"", {}, 422, "image_id=x"),
        ("/predict?format=gif", b"", {}, 422, "'json', 'jpeg' or 'png'"),
        ("/predict?classes=cats", b"", {}, 422, "Did you mean 'cat'?"),
        ("/predict", b"", {"accept": "text/html, image/png;q=0"}, 406, "image/png"),
        ("/predict", None, {}, 405, "POST an image"),
        ("/other", None, {}, 404, "/metadata"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_told_in_a_sentence(
    house: SimpleNamespace, server: Running, path: str, body: object, headers: dict, status: int, told: str
) -> None:
    body = house.photos[0].read_bytes()[:900] if body == "cut" else body
    answer = server.ask(path, body, **headers)
    assert answer.status == status
    assert list(answer.json) == ["error"] and told in answer.json["error"]
    assert re.fullmatch(r"['A-Z/].*[.?]", answer.json["error"])


def test_what_the_server_tells_of_itself(house: SimpleNamespace, server: Running) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    assert (server.ask("/ready").status, server.ask("/ready").json) == (200, {"ready": True})
    told = server.ask("/metadata").json
    assert told["model"] == "model_best.pth"
    assert told["classes"] == [{**category, "threshold": THRESHOLDS.get(category["name"])} for category in CATEGORIES]
    assert told["limits"] == {"queue": 256, "batch": 1, "max_body_mib": 1, "max_megapixels": 1}
    assert "/predict" in server.ask("/openapi.json").json["paths"]
    page = server.ask("/")
    assert page.headers["content-type"].startswith("text/html")
    # All that the page needs is in it.
    assert re.findall(rb"https?://|src=|@import|href=\"(?!data:)", page.body) == []


def samples(text: str) -> dict[str, float]:
    """What Prometheus reads of its text format."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics(house: SimpleNamespace, server: Running) -> None:
    before = samples(server.ask("/metrics").body.decode())
    answer = server.ask("/predict", house.photos[0].read_bytes())
    server.ask("/predict", b"x")
    told = server.ask("/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    after = samples(told.body.decode())
    changed = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert changed['se_det_responses_total{status="200"}'] == changed['se_det_responses_total{status="400"}'] == 1
    assert changed["se_det_detections_total"] == len(answer.json["detections"])
    for name in ("se_det_request_seconds", "se_det_model_seconds", "se_det_batch_size"):
        assert changed[f"{name}_count"] == changed[f'{name}_bucket{{le="+Inf"}}'] == 1
        counts = [value for sample, value in after.items() if sample.startswith(f"{name}_bucket")]
        assert counts == sorted(counts)
    assert after["se_det_waiting"] == 0


def test_a_large_image_is_drawn_smaller(house: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_DRAWN", 500)
    detect = Predictor(house.weights)
    pixels = np.full((400, 1000, 3), 90, np.uint8)
    [found] = detect.detect([detect.sample(pixels)])
    found = {name: value[:1] if name != "image_size" else value for name, value in found.items()}
    found["pred_boxes"] = found["pred_boxes"].new_tensor([[200.0, 100.0, 600.0, 300.0]])
    encoded, count = answers.as_picture(found, pixels, answers.Wish("image/png", threshold=0.0), detect)
    drawn = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert count == 1 and drawn.shape == (200, 500, 3)
    color = class_color(found["pred_classes"][0])
    for y, x in ((149, 200), (100, 100), (100, 300)):  # lower, left and right side of the box
        assert (np.abs(drawn[y - 1 : y + 2, x - 1 : x + 2].astype(int) - color) <= 1).all(2).any()
    assert (drawn[180:] == 90).all() and (drawn[:, 320:] == 90).all()


def test_under_tiles_detections_are_those_of_predict(house: SimpleNamespace, tmp_path: Path) -> None:
    photo, key = house.photos[1], "TEST.TILE.SIZE=100"
    words = ["--weights", str(house.weights), "--output", str(tmp_path), str(photo), key]
    assert main(["predict", *words]) == 0
    found = json.loads((tmp_path / "detections.json").read_text())
    cfg = config_of_checkpoint(house.weights, key.split("="), data=False)
    with running(Predictor(cfg, house.weights)) as server:
        answer = server.ask("/predict", photo.read_bytes()).json["detections"]
        assert server.ask("/predict?format=png", photo.read_bytes()).body == (tmp_path / photo.name).read_bytes()
    assert len(answer) > 20  # more than a whole image may have
    left_out = ("file_name", "image_id", "category")
    assert [{k: v for k, v in entry.items() if k not in left_out} for entry in answer] == [
        {k: v for k, v in entry.items() if k not in left_out} for entry in found
    ]
