"""The folder for Triton, read by its own schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("onnx")

import onnx

from se_det.errors import ExportError
from se_det.export.triton import write_triton

from .contract_graph import BOXES, METADATA, write_graph

TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64"}  # by ONNX's numbers
# What Triton's model_config.proto has of it: messages, and the kinds of their fields.
TENSOR = {"name": str, "data_type": "enum", "dims": [int], "reshape": {"shape": [int]}}
SCHEMA = {
    "name": str, "backend": str, "max_batch_size": int, "input": [TENSOR], "output": [TENSOR],
    "dynamic_batching": {"max_queue_delay_microseconds": int},
    "parameters": [{"key": str, "value": {"string_value": str}}],
}  # fmt: skip
TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|(-?\d+)|(\"(?:[^\"\\\n]|\\[\"\\])*\")|([{}\[\]:,]))")


def parse(text: str, schema: dict) -> dict:
    """Protobuf's text of a message of the schema; whatever is not in it fails."""
    tokens, at = [], 0
    while text[at:].strip():
        found = TOKEN.match(text, at)
        assert found, f"no token: {text[at : at + 40]!r}"
        tokens.append(found[0].strip())
        at = found.end()
    message, rest = fields(tokens, schema)
    assert not rest
    return message


def fields(tokens: list[str], schema: dict) -> tuple[dict, list[str]]:
    """The fields up to the end of a message, and the tokens from there on."""
    message: dict = {}
    while tokens and tokens[0] != "}":
        name, *tokens = tokens
        kind = schema[name]
        repeated = isinstance(kind, list)
        kind = kind[0] if repeated else kind
        if isinstance(kind, dict):
            assert tokens[0] == "{"
            value, tokens = fields(tokens[1:], kind)
            assert tokens.pop(0) == "}"
        else:
            assert tokens.pop(0) == ":"
            if repeated:
                assert tokens[0] == "["
                end = tokens.index("]")
                value, tokens = [int(token) for token in tokens[1:end:2]], tokens[end + 1 :]
            else:
                token = tokens.pop(0)
                value = token if kind == "enum" else int(token) if kind is int else json.loads(token)
                assert kind == "enum" or isinstance(value, kind)
        if repeated and isinstance(kind, dict):
            message.setdefault(name, []).append(value)
        else:
            assert name not in message
            message[name] = value
    return message, tokens


@pytest.mark.parametrize(("with_masks", "with_keypoints"), [(True, False), (False, True)])
def test_the_config_says_what_the_graph_takes_and_gives(tmp_path: Path, with_masks: bool, with_keypoints: bool) -> None:
    graph = write_graph(tmp_path / "graph.onnx", with_masks=with_masks, with_keypoints=with_keypoints)
    write_triton(graph, tmp_path / "models" / "detector")
    folder = tmp_path / "models" / "detector"
    assert (folder / "1" / "model.onnx").read_bytes() == graph.read_bytes()
    assert sorted(path.name for path in folder.rglob("*")) == ["1", "config.pbtxt", "model.onnx"]
    config = parse((folder / "config.pbtxt").read_text(), SCHEMA)
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("detector", "onnxruntime", 8)
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 5000}
    [parameter] = config["parameters"]
    assert parameter["key"] == "se_det" and json.loads(parameter["value"]["string_value"]) == METADATA
    assert [(each["name"], each["dims"]) for each in config["input"]] == [("images", [-1, -1, 3]), ("sizes", [2])]
    names = ["boxes", "scores", "classes", "counts", *["masks"] * with_masks, *["keypoints"] * with_keypoints]
    assert [each["name"] for each in config["output"]] == names
    loaded = onnx.load(graph).graph
    for told, own in zip([*config["input"], *config["output"]], [*loaded.input, *loaded.output], strict=True):
        kind = own.type.tensor_type
        assert told["data_type"] == TYPES[kind.elem_type]
        # What Triton hands to the graph: the batch's axis and the dims, or what they are reshaped to.
        shape = told["reshape"]["shape"] if "reshape" in told else told["dims"]
        assert shape == [side.dim_value or -1 for side in kind.shape.dim][1:]
        assert len(told["dims"]) >= 1  # Triton refuses an empty list
    assert config["output"][1]["dims"] == [len(BOXES)]


def test_tritons_own_schema_reads_it(tmp_path: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from google.protobuf import text_format

    write_triton(write_graph(tmp_path / "graph.onnx"), tmp_path / "detector")
    text = (tmp_path / "detector" / "config.pbtxt").read_text()
    config = text_format.Parse(text, schema.ModelConfig())  # unknown fields fail
    assert json.loads(config.parameters["se_det"].string_value) == METADATA
    own = parse(text, SCHEMA)
    for told, other in zip([*config.input, *config.output], [*own["input"], *own["output"]], strict=True):
        assert (told.name, list(told.dims)) == (other["name"], other["dims"])
        assert schema.DataType.Name(told.data_type) == other["data_type"]
        assert told.HasField("reshape") == ("reshape" in other) and not list(told.reshape.shape)


def test_a_graph_for_one_image_is_refused(tmp_path: Path) -> None:
    graph = onnx.load(write_graph(tmp_path / "graph.onnx"))
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match="'images' is for a batch of 1"):
        write_triton(tmp_path / "graph.onnx", tmp_path / "models" / "detector")
    assert not (tmp_path / "models").exists()
