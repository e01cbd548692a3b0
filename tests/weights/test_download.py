"""Downloads: resumed, verified, whole or absent, whatever the network and the disk do."""

from __future__ import annotations

import errno
import hashlib
import logging
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from file_server import FileServer

from se_det.errors import WeightsError
from se_det.weights import download, resolve_weights, transport
from se_det.weights.download import cache_path, fetch, hash_in_name

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"net-{SHA256[:8]}.pth"


@pytest.fixture
def server():
    with FileServer().running() as server:
        server.files = {NAME: CONTENT, "net.pth": CONTENT}
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


def weights_in(cache: Path) -> list[Path]:
    """What a reader could take for a weight file."""
    return sorted(cache.rglob("*.pth"))


def test_a_file_is_downloaded_once_and_verified_each_time(server, cache):
    path = fetch(f"{server.url}/{NAME}")
    assert path == cache / NAME and path.read_bytes() == CONTENT
    assert fetch(f"{server.url}/{NAME}", digest=SHA256) == path
    assert len(server.requests) == 1
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("se_resnet50-ce0d4300.pth", "ce0d4300"),
        ("seresnext26_32x4d-65ebdb501.pth", "65ebdb501"),
        ("se-resnet50_batch256_imagenet_20200804-ae206104.pth", "ae206104"),
        ("net-0123abcd.pth.tar", "0123abcd"),
        ("net-20200804.pth", None),
        ("R-50.pkl", None),
        ("model_final_721ade.pkl", None),
    ],
)
def test_the_hash_in_a_name(name, known):
    assert hash_in_name(name) == known


def test_names_without_a_hash_do_not_meet_in_the_cache(cache):
    root = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained"
    assert cache_path(f"{root}/MSRA/R-50.pkl") != cache_path(f"{root}/torchvision/R-50.pkl")
    assert cache_path("http://127.0.0.1/..").name == "file"
    one = cache_path("http://data.lip6.fr/cadene/pretrainedmodels/se_resnet50-ce0d4300.pth")
    assert one == cache / "se_resnet50-ce0d4300.pth"


def test_a_broken_connection_is_resumed(server, cache, caplog):
    server.cut_after = [1_000_000, 500_000, None]
    with caplog.at_level(logging.WARNING):
        assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT
    assert [span for _, span in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert sum("trying again" in r.message for r in caplog.records) == 2
    assert list(cache.glob("*.part*")) == []


def test_a_download_that_never_ends_is_an_error_and_goes_on_next_time(server, cache):
    server.cut_after = [200_000]
    with pytest.raises(WeightsError, match=r"ended after 800,000 of 3,000,000 bytes. 800,000 bytes are kept.* put the"):
        fetch(f"{server.url}/{NAME}")
    assert weights_in(cache) == [] and len(server.requests) == download.ATTEMPTS
    server.cut_after = [None]
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=800000-"


def test_a_server_without_ranges_sends_it_all_again(server, cache):
    server.ranges, server.cut_after = False, [1_000_000, None]
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server, cache):
    server.files[NAME] = CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match=rf"another file than it should.* not {SHA256[:8]}.*put it at .*{NAME}"):
        fetch(f"{server.url}/{NAME}")
    assert list(cache.iterdir()) == []
    server.files[NAME] = CONTENT
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT


def test_a_stale_part_is_thrown_away(server, cache):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(b"0" * 1000)
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT
    assert [span for _, span in server.requests] == ["bytes=1000-", None]
    (cache / NAME).unlink()
    (cache / f"{NAME}.part").write_bytes(b"0" * 4_000_000)  # longer than the file
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT


def test_without_a_known_hash_it_says_so_and_notices_later_damage(server, cache, caplog):
    with caplog.at_level(logging.WARNING):
        path = fetch(f"{server.url}/net.pth")
    assert path.parent.parent == cache and f"unverified. Its sha256 is {SHA256}" in caplog.text
    path.write_bytes(CONTENT[:100])
    assert fetch(f"{server.url}/net.pth").read_bytes() == CONTENT
    assert "is damaged (its hash has changed)" in caplog.text


def test_without_a_known_hash_parts_of_two_versions_are_not_joined(server, cache):
    server.cut_after = [200_000]
    with pytest.raises(WeightsError, match="800,000 bytes are kept"):
        fetch(f"{server.url}/net.pth")
    newer = CONTENT[::-1]
    server.files["net.pth"], server.cut_after = newer, [None]
    assert fetch(f"{server.url}/net.pth").read_bytes() == newer


def test_a_file_brought_by_hand_is_taken_and_verified(server, cache):
    cache.mkdir()
    (cache / NAME).write_bytes(CONTENT)
    fetch(f"{server.url}/{NAME}")
    assert server.requests == []


def test_a_file_url(cache, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch((tmp_path / NAME).as_uri()).read_bytes() == CONTENT
    with pytest.raises(WeightsError, match=r"absent.pth cannot be read \(No such file"):
        fetch((tmp_path / "absent.pth").as_uri())
    assert resolve_weights((tmp_path / NAME).as_uri()) == (tmp_path / NAME, None)
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=rf"sha256 begins with \w{{8}}, not {SHA256[:8]}"):
        resolve_weights((tmp_path / NAME).as_uri())
    with pytest.raises(WeightsError, match="names the host 'elsewhere'"):
        resolve_weights("file://elsewhere/net.pth")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: setattr(s, "status", 403), r"answered with 403 Forbidden. Get the file elsewhere and put it at"),
        (lambda s: s.files.clear(), "answered with 404"),
        (lambda s: setattr(s, "status", 503), "could not be downloaded: the server answered 503"),
        (lambda s: setattr(s, "kind", "text/html"), "a web page, not a file"),
        (lambda s: s.redirects.update({NAME: "file:///etc/passwd"}), "file:///etc/passwd' is not allowed"),
        (lambda s: s.redirects.update({NAME: "ftp://example.org/x"}), "leads to ftp://example.org/x, and only http"),
        (lambda s: s.redirects.update({NAME: f"/{NAME}"}), "redirect"),
    ],
)
def test_answers_that_are_no_file(server, cache, spoil, message):
    spoil(server)
    with pytest.raises(WeightsError, match=message):
        fetch(f"{server.url}/{NAME}")
    assert weights_in(cache) == [] and len(server.requests) <= 12


def test_redirects_are_followed(server, cache):
    server.redirects["moved-" + SHA256[:8] + ".pth"] = f"{server.url}/{NAME}"
    assert fetch(f"{server.url}/moved-{SHA256[:8]}.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/net.pth", "starts with 'ftp:'"),
        ("http://[/net.pth", "not a valid address|Invalid"),
        ("http:///net.pth", "not a valid address|no host"),
        ("http://host name/net.pth", "not a valid address"),
        ("http://127.0.0.1:port/net.pth", "not a valid address"),
    ],
)
def test_addresses_that_cannot_be(cache, url, message):
    with pytest.raises(WeightsError, match=message):
        fetch(url)


def test_no_network_says_how_to_bring_the_file(cache):
    url = "http://127.0.0.1:9/net-0123abcd.pth"  # nobody listens there
    with pytest.raises(WeightsError) as refused:
        fetch(url)
    assert str(refused.value) == (
        "net-0123abcd.pth is not in the cache, and there is no way to its host (Connection refused). Get "
        f"{url} on a machine that can, and put the file at {cache}/net-0123abcd.pth or name its path in MODEL.WEIGHTS."
    )


def test_a_silent_server_is_given_up(cache, monkeypatch, server):
    monkeypatch.setattr(transport, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.gate = threading.Event()
    with pytest.raises(WeightsError, match=r"no answer within"):
        fetch(f"{server.url}/{NAME}")
    assert weights_in(cache) == []


def test_proxies_are_the_environments(server, cache, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(WeightsError, match="Connection refused"):
        fetch(f"{server.url}/{NAME}")


def test_a_full_disk(server, cache, monkeypatch):
    def write(file, chunk):
        file.write(chunk[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(download, "_write", write)
        with pytest.raises(WeightsError, match=r"^The disk is full: net-.*Free space.*SE_DET_CACHE"):
            fetch(f"{server.url}/{NAME}")
    assert weights_in(cache) == []
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


def test_too_little_room_is_told_before_anything_is_written(server, cache, monkeypatch):
    usage = type("usage", (), {"free": 2_000_000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=r"The disk is full \(it needs 3 MiB and there are 2\)"):
        fetch(f"{server.url}/{NAME}")


def test_a_cache_that_cannot_be_made(server, cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"SE_DET_CACHE names another folder"):
        fetch(f"{server.url}/{NAME}")


def test_a_cache_that_can_only_be_read(server, cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(download, "_lock", refuse)
    with pytest.raises(WeightsError, match=r"cannot be written \(Read-only file system\).*SE_DET_CACHE"):
        fetch(f"{server.url}/{NAME}")
    cache.mkdir(exist_ok=True)
    (cache / NAME).write_bytes(CONTENT)
    assert fetch(f"{server.url}/{NAME}") == cache / NAME  # nothing needs to be written


def test_a_killed_download_goes_on(server, cache):
    server.gate = threading.Event()
    code = f"from se_det.weights.download import fetch; fetch({f'{server.url}/{NAME}'!r})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    part = cache / f"{NAME}.part"
    deadline = time.monotonic() + 300  # of a busy machine
    try:
        while not (part.exists() and part.stat().st_size > 500_000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert weights_in(cache) == []
    had = part.stat().st_size
    server.gate.set()
    assert fetch(f"{server.url}/{NAME}").read_bytes() == CONTENT
    assert server.requests[-1][1] == f"bytes={had}-"


def test_processes_that_want_the_same_file_download_it_once(server, cache):
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        paths = pool.map(fetch, [f"{server.url}/{NAME}"] * 4)
    assert set(paths) == {cache / NAME} and len(server.requests) == 1
