"""A server in a thread, and what a client says to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from se_det.inference import Predictor
from se_det.serving.app import create_app
from se_det.serving.limits import Limits
from se_det.serving.server import Server, open_socket
from se_det.serving.service import DetectionService


@dataclass
class Answer:
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that answers."""

    port: int
    service: DetectionService
    server: Server
    thread: threading.Thread

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; headers as `content_type="image/png"`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, names)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


@contextmanager
def running(predictor: Predictor, **limits: Any) -> Iterator[Running]:
    """A server on a free port, which is ended as SIGTERM ends it."""
    service = DetectionService(predictor, Limits(**limits))
    started = threading.Event()
    listening = open_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = Server(create_app(service, "model_best.pth"), listening, on_start=started.set)
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        assert started.wait(30)
        yield Running(port, service, server, thread)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def form(name: str, file: Path) -> tuple[bytes, str]:
    """A form with a file, and its content type."""
    head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"; filename="{file.name}"\r\n\r\n'
    return head.encode() + file.read_bytes() + b"\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"
