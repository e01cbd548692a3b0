"""Collections: what may be named, what is written, who does what, what is refused, and going on after an end."""

from __future__ import annotations

import functools
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import torch
import toy_collection as toy

from se_det.cli.main import main
from se_det.errors import CheckpointError, ConfigError, DataError
from se_det.inference import Predictor
from se_det.inference.collections import predict_collection, storage
from se_det.inference.collections.sources import find_containers

COUNT = 23


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, images, lists of them and shards."""
    root = tmp_path_factory.mktemp("collection")
    toy.weights(root / "w.pth")
    toy.folder(root / "photos", range(COUNT))
    names = [f"photos/{n:06d}.jpg" for n in range(COUNT)]
    (root / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(names).encode())
    (root / "list.csv").write_text("label;Image\n" + "".join(f'3;"{name}"\n' for name in names))
    (root / "plain.csv").write_text("".join(f"{name},7\n" for name in names))
    (root / "list.jsonl").write_text("".join(json.dumps({"id": 4, "file_name": name}) + "\n" for name in names))
    toy.shard(root / "0.tar", range(12))
    toy.shard(root / "1.tar", range(12, COUNT))
    toy.shard(root / "0.tgz", range(12), mode="w:gz")
    return root


@pytest.fixture(scope="module")
def predictor(place: Path) -> Predictor:
    torch.set_num_threads(1)
    return Predictor(place / "w.pth")


@pytest.fixture(scope="module")
def expected(place: Path, predictor: Predictor) -> dict[str, list]:
    """The detections of each image, by its file's name, as the predictor itself has them."""
    found = {}
    for path in (place / "photos").iterdir():
        [instances] = predictor.detect([predictor.sample(toy.cv2.imread(str(path)))])
        boxes = instances["pred_boxes"]
        xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        classes = instances["pred_classes"].tolist()
        found[path.name] = [(toy.IDS[k], b, s) for k, b, s in zip(classes, xywh, instances["scores"])]
    return found


def check(output: Path, expected: dict[str, list]) -> list[str]:
    """Each row against the predictor; batches of another size round otherwise. The names of all images."""
    rows = toy.rows(output)
    for row in rows:
        wanted = expected[row["image"].partition("::")[0].rpartition("/")[2]]
        assert (row["width"], row["height"]) == (toy.SIDE, toy.SIDE)
        assert [one["category_id"] for one in row["detections"]] == [category for category, *_ in wanted]
        for one, (_, box, score) in zip(row["detections"], wanted):
            assert one["bbox"] == pytest.approx(box.tolist(), abs=1e-4)
            assert one["score"] == pytest.approx(score.item(), abs=1e-6)
    return [row["image"] for row in rows]


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "plain.csv", "list.jsonl", "photos", "*.tar", "{0..1}.tar"])
def test_what_may_be_named(place: Path, predictor: Predictor, expected, tmp_path: Path, name: str) -> None:
    summary = predict_collection(predictor, [str(place / name)], tmp_path / "out", images_per_part=5)
    names = check(tmp_path / "out", expected)
    assert len(names) == len(set(names)) == COUNT
    parts = 6 if "tar" in name else 5  # each shard of 12 and 11 in three
    assert summary.total == {"images": COUNT, "failures": 0, "detections": 2 * COUNT, "parts": parts}
    assert (tmp_path / "out" / "failures.jsonl").read_text() == ""
    if name.startswith("list"):
        assert names[0] == "photos/000000.jpg"  # as the list has it, for who joins the two
    if name == "*.tar":
        assert names[0] == f"tar://000000.jpg::{place / '0.tar'}"


def test_a_packed_shard_and_results_as_a_list(place: Path, predictor: Predictor, expected, tmp_path: Path) -> None:
    predict_collection(predictor, [str(place / "0.tgz")], tmp_path / "packed")
    assert len(check(tmp_path / "packed", expected)) == 12
    pytest.importorskip("fsspec", reason="opens members of shards by URL")
    [part] = (tmp_path / "packed" / "parts").iterdir()
    listed = [json.loads(line)["image"] for line in part.read_text().splitlines()]
    (tmp_path / "again.txt").write_text("\n".join(url.replace("0.tgz", "0.tar") for url in listed))
    predict_collection(predictor, [str(tmp_path / "again.txt")], tmp_path / "again")
    assert len(check(tmp_path / "again", expected)) == 12


def test_urls(place: Path, predictor: Predictor, expected, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="opens URLs")
    memory = fsspec.filesystem("memory")
    for name in ("0.tar", "1.tar", "list.txt"):
        memory.pipe(f"/bucket/{name}", (place / name).read_bytes())
    for path in (place / "photos").iterdir():
        memory.pipe(f"/bucket/photos/{path.name}", path.read_bytes())
    for word, count in (
        ("memory://bucket/*.tar", COUNT), ("memory://bucket/{0..1}.tar", COUNT), ("memory://bucket/list.txt", COUNT),
        ("memory://bucket/photos", COUNT), ("memory://bucket", 2 * COUNT),
    ):  # fmt: skip
        output = tmp_path / word.replace("/", "_")
        predict_collection(predictor, [word], output)
        assert len(check(output, expected)) == count, word
    with pytest.raises(DataError, match=r"memory://bucket/2\.tar cannot be read"):
        find_containers(["memory://bucket/{0..2}.tar"])
    with pytest.raises(DataError, match=r"There are no images, lists or tar shards in memory://bucket/\*\.gif"):
        find_containers(["memory://bucket/*.gif"])
    with pytest.raises(ConfigError, match="nowhere://a.jpg cannot be opened"):
        storage.read_location("nowhere://a.jpg")
    memory.rm("/bucket", recursive=True)


def test_windows_of_an_image(place: Path, predictor: Predictor, tmp_path: Path) -> None:
    """TEST.TILE is done here, too, as by the predictor."""
    cfg = predictor.cfg.clone()
    cfg.defrost()
    cfg.TEST.TILE.SIZE = 32
    tiled = Predictor(cfg, place / "w.pth")
    pixels = toy.np.random.default_rng(0).integers(0, 256, (60, 90, 3), toy.np.uint8)
    toy.cv2.imwrite(str(tmp_path / "wide.png"), pixels)
    predict_collection(tiled, [str(tmp_path / "wide.png"), str(place / "photos" / "000001.jpg")], tmp_path / "out")
    _, row = sorted(toy.rows(tmp_path / "out"), key=lambda row: row["width"])
    expected = [{k: v for k, v in one.items() if k != "image_id"} for one in tiled(pixels).to_coco(0)]
    assert row["detections"] == expected and len(expected) > 2 and (row["width"], row["height"]) == (90, 60)


def test_labels_of_pixels_are_refused(place: Path, predictor: Predictor, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(predictor, "pixel_class_names", ["sky"])
    with pytest.raises(ConfigError, match="labels pixels"):
        predict_collection(predictor, [str(place / "0.tar")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Failing(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; each file from the second request on, and some never."""

    protocol_version = "HTTP/1.1"
    asked: dict[str, int] = {}  # noqa: RUF012
    down = False

    def send_head(self):
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        if self.down or self.asked[self.path] == 1:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return super().send_head()

    def log_message(self, *args: object) -> None: ...


def test_a_server_that_fails(place: Path, predictor: Predictor, expected, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("aiohttp", reason="fsspec fetches http(s) by it")
    pytest.importorskip("fsspec", reason="opens URLs")
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.01))
    monkeypatch.setattr(_Failing, "asked", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Failing, directory=str(place))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        names = [f"http://127.0.0.1:{server.server_port}/photos/{n:06d}.jpg" for n in range(COUNT)]
        (tmp_path / "urls.txt").write_text("\n".join([*names, names[0].replace("000000", "gone")]))
        call = predictor, [str(tmp_path / "urls.txt")], tmp_path / "out"
        _Failing.down = True
        with pytest.raises(DataError, match=r"10 of 10 images did not answer .*repeat the call"):
            predict_collection(*call, images_per_part=10)
        assert not toy.rows(tmp_path / "out")
        _Failing.down = False
        summary = predict_collection(*call, images_per_part=10)
        server.shutdown()
    assert len(check(tmp_path / "out", expected)) == COUNT and summary.total["failures"] == 1
    [failure] = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert "gone.jpg" in failure


def test_shares_and_parquet(place: Path, predictor: Predictor, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="--format parquet")
    inputs = [str(place / "list.txt"), str(place / "*.tar")]
    predict_collection(predictor, inputs, tmp_path / "lines", images_per_part=5)
    for share in (2, 0, 3):
        found = predict_collection(
            predictor, inputs, tmp_path / "out", images_per_part=5, share=(share, 4), format="parquet"
        )
        assert found.total is None and not (tmp_path / "out" / "summary.json").exists()
    # The last share may be done by others.
    counts = [
        predict_collection(predictor, inputs, tmp_path / "out", images_per_part=5, share=(s, 2), format="parquet")
        for s in (0, 1)
    ]
    assert counts[0].total is None and counts[1].total["images"] == 2 * COUNT
    table = parquet.read_table(tmp_path / "out" / "parts").to_pylist()
    for row in table:
        for one in row["detections"]:
            assert one.pop("segmentation") is None
    assert sorted(table, key=lambda row: row["image"]) == toy.rows(tmp_path / "lines")
    assert json.loads((tmp_path / "out" / "collection.json").read_text())["categories"] == [
        {"id": 3, "name": "cup"}, {"id": 9, "name": "owl"}
    ]  # fmt: skip


def test_what_cannot_be_read(place: Path, predictor: Predictor, expected, tmp_path: Path, capsys) -> None:
    toy.shard(tmp_path / "bad.tar", range(9), bad=4)
    whole = (place / "1.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for number in (0, 1, 0):
            info = tarfile.TarInfo("000000.jpg" if number == 0 else "000001.jpg")
            info.size = len(toy.picture(number))
            tar.addfile(info, io.BytesIO(toy.picture(number)))
    (tmp_path / "gaps.jsonl").write_text(f'"{place}/photos/000003.jpg"\n{{"a": 1}}\n"gone.jpg"\n{{\n')
    words = [str(tmp_path / name) for name in ("bad.tar", "cut.tar", "twice.tar", "gaps.jsonl")]
    call = ["predict", "--weights", str(place / "w.pth"), "--output", str(tmp_path / "out"), *words]
    for _ in range(2):  # nothing is tried again
        assert main(call) == 1
        said = capsys.readouterr()
        assert "6 of 24 images could not be read" in said.err and "failures.jsonl says which" in said.err
    lines = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    told = {Path(line["image"].partition("::")[0]).name: line["error"] for line in lines}
    assert "no image of a known format" in told["000004.jpg"]
    assert "cut" in told["cut.tar"] or "damaged" in told["cut.tar"]
    assert "000000.jpg is there twice" in told["twice.tar"]
    assert "names no image in the line" in told["gaps.jsonl, entry 2"] and "no JSON" in told["gaps.jsonl, entry 4"]
    assert told["gone.jpg"] == "No such file or directory"
    assert len(check(tmp_path / "out", expected)) == 18


def test_another_call_is_refused(place: Path, predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(str(place / "photos/000001.jpg"))
    inputs, output = [str(tmp_path / "l.txt")], tmp_path / "out"
    predict_collection(predictor, inputs, output)
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    other = Predictor(toy.weights(tmp_path / "other.pth", seed=1))
    cfg = predictor.cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = 48
    (tmp_path / "l2.txt").write_text((tmp_path / "l.txt").read_text())
    for call, how, sentence in (
        ((other, inputs), {}, "another call: the weights were others"),
        ((Predictor(cfg, place / "w.pth"), inputs), {}, "INPUT.MIN_SIZE_TEST was 32 and is 48"),
        ((predictor, inputs), {"classes": [1]}, r'--classes was null and is \["owl"\]'),
        ((predictor, inputs), {"images_per_part": 7}, "--part-images was 500 and is 7"),
        ((predictor, [*inputs, str(tmp_path / "l2.txt")]), {}, "there were 1 lists, folders and shards, and there are"),
        ((predictor, [str(tmp_path / "l2.txt")]), {}, r"the input \S+l\.txt was where \S+l2\.txt is"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            predict_collection(*call, output, **how)
    (tmp_path / "l.txt").write_text(f"{place / 'photos/000001.jpg'}\n{place / 'photos/000002.jpg'}")
    with pytest.raises(CheckpointError, match=r"l\.txt had 1 images and has 2"):
        predict_collection(predictor, inputs, output)
    assert before == {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}


def test_a_removed_part_is_made_again(place: Path, predictor: Predictor, tmp_path: Path) -> None:
    """As who mends what could not be read does."""
    images = toy.folder(tmp_path / "in", range(4))
    (images / "bad.jpg").write_bytes(b"")
    assert predict_collection(predictor, [str(images)], tmp_path / "out").total["failures"] == 1
    assert "the file is empty" in (tmp_path / "out" / "failures.jsonl").read_text()
    (images / "bad.jpg").write_bytes(toy.picture(9))
    (tmp_path / "out" / "parts" / "000000-0000.jsonl").unlink()
    left = tmp_path / "out" / "parts" / ".000000-0000.jsonl.abc.tmp"
    left.write_text("half")
    summary = predict_collection(predictor, [str(images)], tmp_path / "out")
    assert summary.total == {"images": 5, "failures": 0, "detections": 10, "parts": 1}
    assert not left.exists() and not list((tmp_path / "out" / "failures").iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--shard", "0/4", "list.txt"], "--shard 0/4 is no share: give 3/64 for the third of 64"),
        (["--shard", "5/4", "list.txt"], "--shard 5/4 is no share"),
        (["--format", "coco", "list.txt"], "list.txt is for collections, whose results are parts"),
        (["--limit", "3", "list.txt"], "--limit is for calls that draw"),
        (["--score-threshold", "0.3", "list.txt"], "or set MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
        (["--part-images", "0", "list.txt"], "--part-images must be at least 1"),
        (["gone.txt"], "There is no file or folder gone.txt"),
        (["--format", "jsonl", "film.mp4"], "film.mp4 is a video"),
        (["astray.txt"], "Of the first 2 images in astray.txt none is there, such as nowhere/1.jpg"),
        (["empty.txt"], "The list empty.txt names no images"),
        (["columns.csv"], "columns.csv does not say in which column its images are"),
        (["{9..3}.tar"], "{9..3} is no range"),
    ],
)
def test_refusals(place: Path, tmp_path: Path, monkeypatch, capsys, words: list[str], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(str(place / "photos/000001.jpg"))
    (tmp_path / "film.mp4").write_bytes(b"")
    (tmp_path / "astray.txt").write_text("nowhere/1.jpg\nnowhere/2.jpg")
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    assert main(["predict", "--weights", str(place / "w.pth"), "--output", "out", *words]) == 1
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert not (tmp_path / "out" / "parts").exists()


def test_processes_of_torchrun_share(place: Path, expected, tmp_path: Path, monkeypatch, caplog) -> None:
    """As its environment says; no process waits for another."""
    for name, value in (("WORLD_SIZE", 2), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", 29500)):
        monkeypatch.setenv(name, str(value))
    caplog.set_level("INFO")
    call = ["predict", "--weights", str(place / "w.pth"), "--output", str(tmp_path / "out"), "--part-images", "4"]
    for shard in ("1/2", "2/2"):
        for rank in (0, 1):
            monkeypatch.setenv("RANK", str(rank))
            assert main([*call, "--shard", shard, str(place / "photos")]) == 0
            said = caplog.text
            caplog.clear()
            assert "CPUs in use; the network computed" in said
            assert ("The collection is complete" in said) == ((shard, rank) == ("2/2", 1))
    assert len(check(tmp_path / "out", expected)) == COUNT
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 6


def test_nothing_is_imported_unless_it_is_asked_for(place: Path, tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(toy.__file__).parent)!r})
import toy_collection as toy
toy.detect({str(place / "w.pth")!r}, [{str(place / "list.txt")!r}, {str(place / "0.tar")!r}], {str(tmp_path / "o")!r})
print(sorted({{"pyarrow", "aiohttp", "s3fs", "gcsfs", "pandas"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_packages_that_are_missing_are_named(place: Path, predictor: Predictor, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"--format parquet needs the package pyarrow.*se_det\[cloud\]"):
        predict_collection(predictor, [str(place / "0.tar")], tmp_path / "out", format="parquet")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"the package fsspec.*se_det\[cloud\]"):
        predict_collection(predictor, ["s3://bucket/*.tar"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
