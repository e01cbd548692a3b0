"""The folder for Triton, read by its own schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx")

import onnx

from se_det.errors import ExportError
from se_det.export.triton import write_triton

from .contract_graph import BOXES, METADATA, write_graph

TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64"}  # by ONNX's numbers


@pytest.mark.parametrize(("with_masks", "with_keypoints"), [(True, False), (False, True)])
def test_the_config_says_what_the_graph_takes_and_gives(tmp_path: Path, with_masks: bool, with_keypoints: bool) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from google.protobuf import text_format

    graph = write_graph(tmp_path / "graph.onnx", with_masks=with_masks, with_keypoints=with_keypoints)
    write_triton(graph, tmp_path / "models" / "detector")
    folder = tmp_path / "models" / "detector"
    assert (folder / "1" / "model.onnx").read_bytes() == graph.read_bytes()
    assert sorted(path.name for path in folder.rglob("*")) == ["1", "config.pbtxt", "model.onnx"]
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())  # unknown fields fail
    assert (config.name, config.backend) == ("detector", "onnxruntime")
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching") and config.dynamic_batching.max_queue_delay_microseconds == 5000
    assert json.loads(config.parameters["se_det"].string_value) == METADATA
    assert [(each.name, list(each.dims)) for each in config.input] == [("images", [-1, -1, 3]), ("sizes", [2])]
    names = ["boxes", "scores", "classes", "counts", *["masks"] * with_masks, *["keypoints"] * with_keypoints]
    assert [each.name for each in config.output] == names
    loaded = onnx.load(graph).graph
    for told, own in zip([*config.input, *config.output], [*loaded.input, *loaded.output], strict=True):
        kind = own.type.tensor_type
        assert schema.DataType.Name(told.data_type) == TYPES[kind.elem_type]
        # What Triton hands to the graph: the batch's axis and the dims, or what they are reshaped to.
        shape = told.reshape.shape if told.HasField("reshape") else told.dims
        assert list(shape) == [side.dim_value or -1 for side in kind.shape.dim][1:]
        assert len(told.dims) >= 1  # Triton refuses an empty list
    assert list(config.output[1].dims) == [len(BOXES)]


def test_a_graph_for_one_image_is_refused(tmp_path: Path) -> None:
    graph = onnx.load(write_graph(tmp_path / "graph.onnx"))
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match="'images' is for a batch of 1"):
        write_triton(tmp_path / "graph.onnx", tmp_path / "models" / "detector")
    assert not (tmp_path / "models").exists()
