"""Of each kind a checkpoint and the files that `se-det export` makes of it, which take most of a minute each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from se_det.cli.main import main
from se_det.config import merge_overrides
from se_det.export.formats import openvino

from .batches import quarter_score, raise_threshold
from .test_export import needs_onnx
from .tiny import tiny

ENDINGS = (".onnx", ".xml", ".pt2")
NAMES, POINTS, SKELETON = ["ant", "bee", "cat"], ["head", "left", "right", "tail"], [[1, 2], [1, 3]]
PIXELS = ["things", "sky", "sea", "sand", "wood"]
# The key of the score from which there are detections.
THRESHOLDS = {"RetinaNet": "MODEL.RETINANET.SCORE_THRESH_TEST", "FCOS": "MODEL.FCOS.INFERENCE_TH_TEST",
              "GeneralizedRCNN": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
              "PanopticFPN": "MODEL.ROI_HEADS.SCORE_THRESH_TEST"}  # fmt: skip


@dataclass(frozen=True)
class House:
    """
    Attributes:
        model: of the checkpoint, in PyTorch.
        weights: the checkpoint.
    """

    kind: str
    folder: Path
    model: torch.nn.Module
    cfg: object

    @classmethod
    def build(cls, kind: str, folder: Path) -> House:
        """With a checkpoint as a training leaves one, which finds nothing in a quarter of the images of `MANY`."""
        model, cfg = tiny(kind)
        score = quarter_score(model, cfg)
        if score is not None:
            raise_threshold(model, score)
            merge_overrides(cfg, [THRESHOLDS[cfg.MODEL.META_ARCHITECTURE], score])
        content = {"model": model.state_dict(), "config": cfg.dump()}
        if kind not in ("semantic", "proposals"):
            points = {"keypoints": POINTS, "skeleton": SKELETON}
            content["categories"] = [{"id": 10 + k, "name": n, **points} for k, n in enumerate(NAMES)]
        if kind in ("semantic", "panoptic"):
            content["pixel_classes"] = [{"id": k and 30 + k, "name": n} for k, n in enumerate(PIXELS)]
        torch.save(content, folder / "w.pth")
        return cls(kind, folder, model, cfg)

    @property
    def weights(self) -> Path:
        return self.folder / "w.pth"

    def file(self, ending: str) -> Path:
        """The exported file, made when it is first asked for."""
        path = self.folder / f"d{ending}"
        if ending != ".pt2":
            needs_onnx()
        if ending == ".xml":
            pytest.importorskip("openvino", reason='OpenVINO files need openvino: pip install "se_det[openvino]"')
        if not path.exists():
            with _made_of(self.folder / "d.onnx"):
                assert main(["export", "--weights", str(self.weights), "--output", str(path)]) == 0
        return path


@contextmanager
def _made_of(graph: Path) -> Iterator[None]:
    """OpenVINO's files are made by way of ONNX: of the one that is there already."""
    with pytest.MonkeyPatch.context() as patch:
        if graph.exists():
            patch.setattr(openvino, "write_onnx", lambda network, path: shutil.copyfile(graph, path))
        yield
