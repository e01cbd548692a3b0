"""A web server for the tests of downloads, which can misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `files` (name to content) with ranges, and notes the requests.

    Attributes:
        cut_after: send so many bytes of a body and hang up; None sends all. One number per request, the last for good.
        ranges: understand `Range`.
        redirects: name to the address that is answered.
        status: answer every request with this code.
        gate: when set, a body's second half waits for this event.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int | None] = [None]
        self.ranges = True
        self.redirects: dict[str, str] = {}
        self.status: int | None = None
        self.kind = "application/octet-stream"
        self.gate: threading.Event | None = None
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""

    def next_cut(self) -> int | None:
        return self.cut_after.pop(0) if len(self.cut_after) > 1 else self.cut_after[0]

    @contextmanager
    def running(self) -> Iterator[FileServer]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(owner, self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # a client that hung up
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            if self.gate:
                self.gate.set()
            server.shutdown()
            server.server_close()


def answer(owner: FileServer, request: BaseHTTPRequestHandler) -> None:
    name, span = request.path.lstrip("/"), request.headers.get("Range")
    owner.requests.append((name, span))
    if owner.status:
        request.send_error(owner.status)
        return
    if name in owner.redirects:
        request.send_response(302)
        request.send_header("Location", owner.redirects[name])
        request.end_headers()
        return
    if name not in owner.files:
        request.send_error(404)
        return
    content = owner.files[name]
    tag = f'"{hash(content)}"'
    start = 0
    asked = re.fullmatch(r"bytes=(\d+)-", span or "")
    if asked and owner.ranges and request.headers.get("If-Range", tag) == tag:
        start = int(asked[1])
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        request.send_response(200)
    body = content[start:]
    request.send_header("ETag", tag)
    request.send_header("Content-Type", owner.kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    cut = owner.next_cut()
    body = body if cut is None else body[:cut]
    half = len(body) // 2 if owner.gate else len(body)
    request.wfile.write(body[:half])
    request.wfile.flush()
    if owner.gate:
        owner.gate.wait(20)
        request.wfile.write(body[half:])
