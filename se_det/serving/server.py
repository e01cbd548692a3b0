"""A server that listens until it is asked to end, and answers what it has admitted before it does."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from ..errors import ConfigError


def open_socket(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody is answered yet.

    Args:
        port: 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: there is no such address ({error.strerror or error}).") from error
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows SO_REUSEADDR would share a port that is in use
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): give another --port or --host."
        ) from error
    return opened


class Server(uvicorn.Server):
    """uvicorn's server on one socket.

    Args:
        app: what answers.
        at: of `open_socket`; it is closed in the end.
        on_start: called as soon as requests are answered.
    """

    def __init__(self, app: FastAPI, at: socket.socket, *, on_start: Callable[[], None] = lambda: None) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, lifespan="on"))
        self._at, self._on_start = at, on_start

    def serve_until_stopped(self) -> None:
        """Answer until SIGTERM, Ctrl-C or `should_exit`: then no more requests are taken, those under way are answered.

        A second Ctrl-C ends at once.
        """
        with self._signals():
            self.run(sockets=[self._at])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """uvicorn sends itself the signals once more that have ended it, when its own handlers are gone: as the work is
        done by then, they are to end nothing else. Before its handlers are there, these do what they do."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            self.should_exit = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
