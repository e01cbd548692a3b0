"""A server with more to do than it can, whose callers leave, or that is asked to end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from se_det.cli.main import main
from se_det.inference import Predictor

from .running import running
from .small_model import checkpoint, pictures


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("weights"), "TEST.IMS_PER_BATCH", 4)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pictures(tmp_path_factory.mktemp("photos"))[0].read_bytes()


class Held(Predictor):
    """A predictor that begins to detect when it is let."""

    def __init__(self, weights: Path) -> None:
        super().__init__(weights)
        self.let, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def detect(self, samples):
        self.batches.append(len(samples))
        self.entered.set()
        assert self.let.wait(60)
        return super().detect(samples)


@pytest.fixture
def held(weights: Path) -> Iterator[Held]:
    predictor = Held(weights)
    yield predictor
    predictor.let.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_queue_refuses_and_all_that_were_admitted_are_answered(held: Held, photo: bytes) -> None:
    with running(held, queue=5, wait=0.0) as server, ThreadPoolExecutor(5) as callers:
        first = callers.submit(server.ask, "/predict", photo)
        assert held.entered.wait(30)
        rest = [callers.submit(server.ask, "/predict", photo) for _ in range(4)]
        until(lambda: server.service.waiting == 5)
        # The model's thread is held, the server is not.
        assert server.ask("/health").status == 200
        assert server.ask("/ready").status == 503
        assert b"se_det_waiting 5\n" in server.ask("/metrics").body
        refused = server.ask("/predict", photo)
        assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1
        assert "5 requests are waiting" in refused.json["error"]
        held.let.set()
        bodies = {call.result().body for call in [first, *rest]}
        assert {call.result().status for call in [first, *rest]} == {200} and len(bodies) <= 2  # alone, and together
        assert held.batches == [1, 4]
        assert server.service.waiting == 0 and server.ask("/ready").status == 200
        assert server.ask("/predict", photo).status == 200


def test_nothing_is_detected_for_callers_who_have_gone(held: Held, photo: bytes) -> None:
    with running(held, wait=0.0) as server, ThreadPoolExecutor(2) as callers:
        first = callers.submit(server.ask, "/predict", photo)
        assert held.entered.wait(30)
        leaving = http.client.HTTPConnection("127.0.0.1", server.port)
        leaving.request("POST", "/predict", photo)
        until(lambda: server.service.waiting == 2)
        leaving.close()
        until(lambda: server.service.waiting == 1)
        last = callers.submit(server.ask, "/predict", photo)
        until(lambda: server.service.waiting == 2)
        held.let.set()
        assert first.result().status == last.result().status == 200
        assert held.batches == [1, 1]


def test_an_image_that_the_model_fails_on_fails_alone(weights: Path, photo: bytes, caplog) -> None:
    predictor = Predictor(weights)
    detect = predictor.detect
    marked = []

    def failing(samples):
        if any(sample["image"].float().mean() < 1 for sample in samples):
            marked.append(len(samples))
            raise RuntimeError("out of memory")
        return detect(samples)

    predictor.detect = failing
    black = cv2.imencode(".png", np.zeros((96, 128, 3), np.uint8))[1].tobytes()
    with running(predictor, wait=2.0) as server, ThreadPoolExecutor(4) as callers:  # a full batch waits no longer
        answers = list(callers.map(lambda body: server.ask("/predict", body), [photo, black, photo, photo]))
        assert [answer.status for answer in answers] == [200, 500, 200, 200]
        assert "the server's log" in answers[1].json["error"] and "memory" not in answers[1].json["error"]
        assert "out of memory" in caplog.text
        assert marked == [4, 1] and server.ask("/ready").status == 200


def test_a_body_that_does_not_arrive_gives_its_place_back(weights: Path, photo: bytes) -> None:
    with running(Predictor(weights), upload_time=0.2, queue=1) as server:
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        slow.settimeout(30)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        slow.close()
        assert server.ask("/predict", photo).status == 200


def test_what_was_admitted_is_answered_when_the_server_is_asked_to_end(held: Held, photo: bytes) -> None:
    with running(held, wait=0.0) as server, ThreadPoolExecutor(3) as callers:
        calls = [callers.submit(server.ask, "/predict", photo) for _ in range(3)]
        until(lambda: server.service.waiting == 3 and held.entered.is_set())
        server.server.should_exit = True

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
            except ConnectionRefusedError:
                return True
            return False

        until(refused)
        held.let.set()
        assert [call.result().status for call in calls] == [200] * 3
        server.thread.join(30)
        assert not server.thread.is_alive()


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_sigterm_ends_the_command_when_all_are_answered(weights: Path, photo: bytes) -> None:
    command = [sys.executable, "-m", "se_det", "serve", str(weights), "--port", "0", "--wait", "1500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ThreadPoolExecutor(1) as caller:
        try:
            line = next(line for line in process.stdout if line.startswith("Serving"))
            port = int(re.search(r"http://127.0.0.1:(\d+):", line)[1])

            def call() -> int:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    connection.request("POST", "/predict", photo)
                    sent.set()
                    return connection.getresponse().status
                finally:
                    connection.close()

            sent = threading.Event()
            answer = caller.submit(call)
            assert sent.wait(30)
            time.sleep(0.5)  # it has arrived, and waits for others of its batch
            process.send_signal(signal.SIGTERM)
            assert answer.result() == 200
            assert process.wait(60) == 0
            assert "1 requests were answered" in process.stdout.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.pth"], "nothing.pth"),
        (["nothing.pth", "--port", "70000"], "--port must be from 0 to 65535"),
        (["nothing.pth", "--queue", "0"], "--queue must be at least 1"),
        (["nothing.pth", "--wait", "nan"], "--wait must be 0 or more"),
        (["nothing.pth", "--max-body", "0"], "--max-body must be above 0"),
        (["nothing.pth", "--max-pixels", "inf"], "--max-pixels must be above 0"),
        (["nothing.pth", "--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_told(words: list[str], told: str, capsys) -> None:
    assert main(["serve", "--port", "0", *words]) == 1
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_the_model_is_read(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "nothing.pth", "--port", str(port)]) == 1
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err
