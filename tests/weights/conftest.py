"""A zoo of the tests' own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from file_server import FileServer

from se_det.weights import zoo

RGB = {"format": "RGB", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


@pytest.fixture
def add_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`add_entry(name, tensors, **fields)` makes an entry whose file a local server has; returns the file's name."""
    monkeypatch.setenv("SE_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    entries = dict(zoo._entries())
    monkeypatch.setattr(zoo, "_entries", lambda: entries)
    with FileServer().running() as server:

        def add(name: str, tensors: dict[str, torch.Tensor], *, stride: bool | None = False, pool: str | None = "pad1",
                relu: bool | None = None, image: dict = RGB, family: str = "se_det") -> str:  # fmt: skip
            folder = tmp_path / f"entry-{name}"
            folder.mkdir()
            torch.save(tensors, folder / "file.pth")
            content = (folder / "file.pth").read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            file_name = f"{name.replace('.', '_')}-{digest[:8]}.pth"
            server.files[file_name] = content
            fields = {
                "url": f"{server.url}/{file_name}", "sha256": digest, "architecture": name.split(".")[0],
                "stride_in_1x1": stride, "stem_pool": pool, "branch_relu": relu,
                "reports": [{"top1": 70.0, "top5": 90.0, "crop": 224, "source": "test"}],
            }  # fmt: skip
            head = {"source": "https://example.org", "license": "none", "family": family, "input": image}
            (folder / "x.yaml").write_text(yaml.safe_dump({**head, "entries": {name: fields}}))
            entries.update(zoo.read_entries(folder))
            return file_name

        add.server = server
        yield add
