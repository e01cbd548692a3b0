"""A model folder for NVIDIA's Triton Inference Server: `config.pbtxt` beside the graph as version 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import ExportError
from ..files import atomic_write, check_writable

CONFIG, MODEL = "config.pbtxt", "1/model.onnx"
MAX_BATCH = 8
MAX_DELAY = 5000  # microseconds that an image waits for others of its size
METADATA = "se_det"  # of the graph, and the parameter of the config that it becomes
# ONNX's types of tensors, by their numbers there.
TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 6: "TYPE_INT32", 7: "TYPE_INT64", 10: "TYPE_FP16"}


def write_triton(model: str | Path, folder: str | Path) -> None:
    """Make a detector's graph a model of a Triton repository, with dynamic batching.

    Args:
        model: an ONNX file of `se-det export --part detector` whose first axis is free.
        folder: in the repository; its name is the model's. It is made; files of these names are replaced.

    Raises:
        ExportError: the graph is for a batch of fixed size, or has a type that is not expected.
        CheckpointError: the folder cannot be written.
    """
    folder, model = Path(folder), Path(model)
    config = triton_config(model, folder.resolve().name)
    check_writable((folder / MODEL).parent)
    atomic_write(folder / CONFIG, lambda file: file.write(config.encode("ascii")))
    content = model.read_bytes()
    atomic_write(folder / MODEL, lambda file: file.write(content))


def triton_config(model: Path, name: str) -> str:
    """The text of `config.pbtxt`.

    Its parameter `se_det` is the graph's metadata, for clients that ask for the classes.

    Raises:
        ExportError: see `write_triton`.
    """
    import onnx

    loaded = onnx.load(str(model), load_external_data=False)
    parts = [f"name: {json.dumps(name)}", 'backend: "onnxruntime"', f"max_batch_size: {MAX_BATCH}"]
    for kind, values in (("input", loaded.graph.input), ("output", loaded.graph.output)):
        parts += [f"{kind} {{\n{_tensor(value, model)}\n}}" for value in values]
    parts.append(f"dynamic_batching {{\n  max_queue_delay_microseconds: {MAX_DELAY}\n}}")
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}.get(METADATA)
    if metadata is not None:
        # As JSON of the text of a JSON of ASCII: protobuf's text escapes quotes and backslashes in the same way.
        text = json.dumps(json.dumps(json.loads(metadata)))
        parts.append(f'parameters {{\n  key: "{METADATA}"\n  value {{ string_value: {text} }}\n}}')
    return "\n".join(parts) + "\n"


def _tensor(value: object, model: Path) -> str:
    kind = value.type.tensor_type
    if kind.elem_type not in TYPES:
        raise ExportError(f"{model}: '{value.name}' has a type that Triton's config is not written for.")
    sides = [side.dim_value if side.HasField("dim_value") else -1 for side in kind.shape.dim]
    if not sides or sides[0] != -1:
        raise ExportError(
            f"{model}: '{value.name}' is for a batch of {sides[0] if sides else 'no'} images, and Triton makes batches "
            "of any: export the graph with a free batch size."
        )
    return "\n".join(f"  {line}" for line in [
        f"name: {json.dumps(value.name)}", f"data_type: {TYPES[kind.elem_type]}", *_dims(sides[1:]),
    ])  # fmt: skip


def _dims(sides: Sequence[int]) -> list[str]:
    """Triton's shape without the batch's axis; one value for each image has to be called a list of one."""
    if not sides:
        return ["dims: [ 1 ]", "reshape { shape: [ ] }"]
    return [f"dims: [ {', '.join(map(str, sides))} ]"]
