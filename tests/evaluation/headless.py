"""A page in headless Chromium, through its DevTools protocol on two pipes: nothing but the browser is needed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

SECONDS = 120  # for one answer; a page takes a second, a machine under load many


class Page:
    """A page of a browser of its own; a context manager.

    Attributes:
        events: what the browser told besides answers, as `(method, params)`.
    """

    def __init__(self, program: str, profile: Path) -> None:
        pipes = [os.pipe() for _ in range(2)]
        (read, self._write), (self._read, write) = pipes
        # Chromium reads from 3 and writes to 4; so that neither is written over, both are moved away from there.
        read_far, write_far = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write))
        self._browser = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(read_far, 3), os.dup2(write_far, 4)),
        )  # fmt: skip
        for end in (read, write, read_far, write_far):
            os.close(end)
        self._buffer, self._number, self._session = b"", 0, None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The browser's answer to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str, width: int, height: int) -> None:
        """Show `url` as a screen of that size would, a telephone's where it is narrow."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Page.navigate", url=url)
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._message()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, "the browser has ended" if ready else f"the browser said nothing in {SECONDS} s"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.kill()
        self._browser.wait()
        os.close(self._read)
        os.close(self._write)
