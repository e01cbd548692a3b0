"""Opening URLs from a given byte, with failures sorted by whether trying again may help."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from .. import __version__

TIMEOUT = 30.0  # seconds without an answer, or without a byte


class PermanentFailure(Exception):
    """The address or the answer is wrong, and trying again would not help. Its message is a predicate: "is gone"."""


class NoConnection(Exception):
    """The host cannot be reached: there is no network, or no such name."""


class TransientFailure(Exception):
    """The connection broke, or the server failed for the moment; trying again may help."""


class Response:
    """An open URL.

    Attributes:
        start: the byte of the file at which the body starts.
        total: size of the whole file in bytes; None if the server does not say.
        validator: headers that identify this version of the file, for the next request; None if there are none.
    """

    def __init__(self, body: IO[bytes], *, start: int, total: int | None, validator: dict[str, str] | None) -> None:
        self._body = body
        self.start, self.total, self.validator = start, total, validator

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body in pieces.

        Raises:
            TransientFailure: the connection broke, or nothing came for `TIMEOUT` seconds.
        """
        while True:
            try:
                chunk = self._body.read(size)
            except (OSError, http.client.HTTPException) as error:
                raise TransientFailure(_reason(error)) from error
            if not chunk:
                return
            yield chunk

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self._body.close()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, never to a local file or another protocol."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise PermanentFailure(f"leads to {newurl}, and only http and https are followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def local_path(url: str) -> Path:
    """The path of a `file://` URL.

    Raises:
        PermanentFailure: the URL names another host or is not valid.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise PermanentFailure(f"is not a valid address ({error})") from error
    if parts.netloc not in ("", "localhost"):
        raise PermanentFailure(
            f"names the host '{parts.netloc}', and file:// reads this machine's files: write file:///path"
        )
    return Path(urllib.request.url2pathname(parts.path))


def open_url(url: str, *, start: int = 0, validator: Mapping[str, str] | None = None) -> Response:
    """Open `url` from byte `start` if it is still the version of `validator`, else from the beginning.

    Proxies are those of the environment (`https_proxy` and its like).

    Raises:
        PermanentFailure, NoConnection, TransientFailure: see the classes.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return _open_file(local_path(url), start)
    if scheme not in ("http", "https"):
        raise PermanentFailure(f"starts with '{scheme}:', and only http, https and file are read")
    headers = {"User-Agent": f"se_det/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        version = (validator or {}).get("version")
        if version:
            headers["If-Range"] = version
    # Only these two handlers' schemes can be opened.
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # what is there is longer than the file
            return open_url(url)
        if error.code in (408, 425, 429) or error.code >= 500:
            raise TransientFailure(f"the server answered {error.code} {error.reason}") from error
        raise PermanentFailure(f"was answered with {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _sorted(error.reason if isinstance(error.reason, Exception) else error) from error
    except (http.client.InvalidURL, ValueError, UnicodeError) as error:
        raise PermanentFailure(f"is not a valid address ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _sorted(error) from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise PermanentFailure("was answered with a web page, not a file (a login page of the network?)")
    return _response(response, start)


def _response(response: Any, start: int) -> Response:
    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    tag = response.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    first = 0
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != start:
            response.close()
            raise TransientFailure("the server sent another part than was asked for")
        first = start
        total = int(span[2]) if span[2] != "*" else None
    return Response(response, start=first, total=total, validator={"version": version} if version else None)


def _open_file(path: Path, start: int) -> Response:
    try:
        body = open(path, "rb")  # noqa: SIM115 - the answer closes it
        status = os.fstat(body.fileno())
    except OSError as error:
        raise PermanentFailure(f"cannot be read ({error.strerror})") from error
    start = start if start <= status.st_size else 0
    body.seek(start)
    version = {"version": f"{status.st_size}-{status.st_mtime_ns}"}
    return Response(body, start=start, total=status.st_size, validator=version)


def _sorted(error: Exception) -> Exception:
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermanentFailure(f"has no valid certificate ({error.verify_message})")
    if isinstance(error, (socket.gaierror, ConnectionRefusedError)) or "Tunnel connection failed" in str(error):
        return NoConnection(_reason(error))
    if isinstance(error, OSError) and error.strerror and "unreachable" in error.strerror.lower():
        return NoConnection(_reason(error))
    return TransientFailure(_reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke off"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
