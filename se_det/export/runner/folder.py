"""The runner's folder: the graph, `predict.py`, its requirements and how to use it."""

from __future__ import annotations

from pathlib import Path

from ...files import atomic_write, check_writable

TEMPLATE = Path(__file__).with_name("template")
MODEL = "model.onnx"
FILES = ("predict.py", "requirements.txt", "README.md")


def write_runner(model: str | Path, folder: str | Path) -> None:
    """Copy a detector's graph into a folder, with what runs it.

    Args:
        model: an ONNX file of `se-det export --part detector`.
        folder: is made; files of these names are replaced.

    Raises:
        CheckpointError: it cannot be written.
    """
    folder = Path(folder)
    check_writable(folder)
    for source, name in ((Path(model), MODEL), *((TEMPLATE / name, name) for name in FILES)):
        content = source.read_bytes()
        atomic_write(folder / name, lambda file, content=content: file.write(content))
