"""As much of the Hugging Face Hub's HTTP as pushing and fetching need, over a dict of repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """
    Attributes:
        repositories: name -> branch -> file -> bytes.
        private: repositories that were made private.
        requests: (method, path) of each.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                path = self.path.partition("?")[0]
                hub.requests.append((self.command, path))
                code, headers, data = hub.respond(self.command, path.strip("/").split("/"), body)
                self.send_response(code)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_POST = do_PUT = answer

            def log_message(self, *args: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield self
            server.shutdown()

    def respond(self, method: str, parts: list[str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(name, {"main": {}})
            if asked.get("private") or asked.get("visibility") == "private":
                self.private.add(name)
            return _json({"url": f"{self.url}/{name}", "name": name, "id": name})
        if parts[0] == "api" and parts[1] == "validate-yaml":
            return _json({"errors": [], "warnings": []})
        if parts[0] == "api" and parts[1] == "models":
            return self._api("/".join(parts[2:4]), parts[4:], body)
        repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        branches = self.repositories.get(repository)
        if branches is None:
            return _json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        files = next((f for branch, f in branches.items() if revision in (branch, _commit(f))), None)
        if files is None:
            return _json({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if name not in files:
            return _json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(files[name]).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": _commit(files)}, files[name]

    def _api(self, repository: str, rest: list[str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        branches = self.repositories.get(repository)
        if branches is None:
            return _json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        what, revision = (*rest, "main", "main")[:2] if rest else ("revision", "main")
        if what == "branch":
            branches.setdefault(revision, dict(branches["main"]))
            return _json({})
        files = branches.get(revision)
        if files is None:
            return _json({"error": "Revision not found"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if what == "preupload":
            asked = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in asked]
            return _json({"files": modes})
        if what == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return _json({"commitOid": _commit(files), "commitUrl": f"{self.url}/{repository}/commit/{_commit(files)}"})
        listed = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()]
        if what == "tree":
            return _json(listed)
        siblings = [{"rfilename": name} for name in files]
        return _json({"id": repository, "sha": _commit(files), "siblings": siblings, "tags": [], "private": False})


def _commit(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()


def _json(value: Any, code: int = 200, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    return code, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()
