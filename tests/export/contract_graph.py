"""A graph with a detector's inputs and outputs that finds the same four things in every image, made by hand.

Three of its D = 4 rows are detections; their scores are the red, green and blue of the upper left pixel, so a test sees
what the graph was given.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

BOXES = np.array([[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0], [0.5, 0.25, 0.75, 0.5], [0, 0, 0, 0]], np.float32)
CLASSES = np.array([0, 2, 2, -1], np.int64)
FOUND = 3
KEYPOINTS = np.array([[0.25, 0.5, 0.9], [0.5, 0.75, 0.8]], np.float32)
METADATA = {
    "classes": [
        {"id": 4, "name": "cat", "threshold": 0.25},
        {"id": 7, "name": "dog", "threshold": None},
        {"id": 90, "name": "Vögel", "threshold": 0.75},
    ],
    "max_detections": len(BOXES),
}


def masks() -> np.ndarray:
    """float32 (D, 28, 28): a disc, a slope, noise, nothing."""
    y, x = np.mgrid[:28, :28].astype(np.float32)
    disc = 1 / (1 + np.exp(np.hypot(x - 13.5, y - 13.5) - 10))
    noise = np.random.default_rng(0).random((28, 28))
    return np.stack([disc, x / 27, noise, np.zeros((28, 28))]).astype(np.float32)


def write_graph(path: Path, *, with_masks: bool = True, with_keypoints: bool = False) -> Path:
    """Write the graph to `path`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "whole": np.array([0]), "end": np.array([1]), "axes": np.array([1]),
        "xyxy": np.array([1, 0, 1, 0]), "xy": np.array([1, 0]), "boxes_of_1": BOXES[None],
        "classes_of_1": CLASSES[None], "counts_of_1": np.array([FOUND]), "white": np.array(255, np.float32),
        "masks_of_1": masks()[None], "padding": np.array([0, 0, 0, 1]),
        "points_of_1": np.tile(KEYPOINTS[None, None], (1, len(BOXES), 1, 1)), "axes_1_2": np.array([1, 2]),
        "size_padding": np.array([0, 0, 0, 1]), "d": np.array([len(BOXES)]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Shape", ["sizes"], ["shape"]), node("Slice", ["shape", "whole", "end"], ["n"]),
        node("Cast", ["sizes"], ["float_sizes"], to=TensorProto.FLOAT),
        node("Gather", ["float_sizes", "xyxy"], ["whxy"], axis=1), node("Unsqueeze", ["whxy", "axes"], ["scale"]),
        node("Mul", ["boxes_of_1", "scale"], ["boxes"]),
        # images[:, 0, 0, :], and 0 for the fourth row
        node("Slice", ["images", "corner_start", "corner_end", "axes_1_2"], ["corner"]),
        node("Squeeze", ["corner", "axes_1_2"], ["pixel"]), node("Cast", ["pixel"], ["grey"], to=TensorProto.FLOAT),
        node("Div", ["grey", "white"], ["three"]), node("Pad", ["three", "padding"], ["scores"]),
        node("Concat", ["n", "d"], ["n_d"], axis=0), node("Expand", ["classes_of_1", "n_d"], ["classes"]),
        node("Expand", ["counts_of_1", "n"], ["counts"]),
    ]  # fmt: skip
    constants |= {"corner_start": np.array([0, 0]), "corner_end": np.array([1, 1])}
    d = len(BOXES)
    outputs = [
        ("boxes", TensorProto.FLOAT, ["N", d, 4]), ("scores", TensorProto.FLOAT, ["N", d]),
        ("classes", TensorProto.INT64, ["N", d]), ("counts", TensorProto.INT64, ["N"]),
    ]  # fmt: skip
    if with_masks:
        constants["mask_shape"] = np.array([d, 28, 28])
        nodes += [node("Concat", ["n", "mask_shape"], ["n_mask"], axis=0),
                  node("Expand", ["masks_of_1", "n_mask"], ["masks"])]  # fmt: skip
        outputs.append(("masks", TensorProto.FLOAT, ["N", d, 28, 28]))
    if with_keypoints:
        nodes += [
            node("Gather", ["float_sizes", "xy"], ["wh"], axis=1),
            node("Pad", ["wh", "size_padding", "visible_scale"], ["wh1"]),
            node("Unsqueeze", ["wh1", "axes_1_2"], ["point_scale"]),
            node("Mul", ["points_of_1", "point_scale"], ["keypoints"]),
        ]
        constants["visible_scale"] = np.array(1, np.float32)
        outputs.append(("keypoints", TensorProto.FLOAT, ["N", d, len(KEYPOINTS), 3]))
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3]),
            helper.make_tensor_value_info("sizes", TensorProto.INT64, ["N", 2]),
        ],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"se_det": json.dumps(METADATA)})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
