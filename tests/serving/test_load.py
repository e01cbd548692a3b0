"""Two hundred callers at once for a minute: every request is answered, and with its own image's detections."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from se_det.inference import Predictor

from .small_model import checkpoint, pictures

CALLERS = 200
SECONDS = 60.0


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
    """The status and the body that an image is answered with, on a connection that stays open."""
    writer.write(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    return int(head.split(b" ")[1]), await reader.readexactly(length)


@pytest.mark.slow
def test_nothing_is_lost_of_two_hundred_callers_for_a_minute(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path, "TEST.IMS_PER_BATCH", 8)
    bodies = [photo.read_bytes() for photo in pictures(tmp_path / "photos")]
    detect = Predictor(weights)
    expected = [detect(photo) for photo in sorted((tmp_path / "photos").iterdir())]
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    wrong: list[str] = []

    async def caller(number: int, port: int, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            began = time.monotonic()
            status, body = await post(reader, writer, bodies[number % len(bodies)])
            seconds.append(time.monotonic() - began)
            statuses[status] += 1
            if status == 200:
                found, own = json.loads(body)["detections"], expected[number % len(bodies)]
                if [f["score"] for f in found] != pytest.approx(own.scores.tolist(), abs=1e-4):
                    wrong.append(f"caller {number}: {len(found)} detections for {len(own)}")
            number += 7
        writer.close()
        await writer.wait_closed()

    async def storm(port: int) -> None:
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(caller(number, port, until) for number in range(CALLERS)))

    command = [sys.executable, "-m", "se_det", "serve", str(weights), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stdout if line.startswith("Serving"))
            asyncio.run(storm(int(re.search(r"http://127.0.0.1:(\d+):", line)[1])))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert f"Ended; {sum(statuses.values())} requests were answered." in process.stdout.read()
        finally:
            process.kill()
    seconds.sort()
    print(
        f"\n{sum(statuses.values())} requests in {SECONDS:g} s by {CALLERS} callers: {dict(statuses)}; "
        f"median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s"
    )
    assert set(statuses) == {200} and statuses[200] >= CALLERS
    assert not wrong, wrong[:3]
