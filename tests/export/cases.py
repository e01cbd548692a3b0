"""Of each kind a checkpoint and the files that `se-det export` makes of it, which take most of a minute each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch

from se_det.cli.main import main
from se_det.config import merge_overrides
from se_det.export.formats import openvino
from se_det.inference import Predictor

from .batches import quarter_score, raise_threshold
from .test_export import needs_onnx
from .tiny import tiny
from .truth import PIXELS, THINGS, write_data, write_panoptic_truth

ENDINGS = (".onnx", ".xml", ".pt2")
# The key of the score from which there are detections.
THRESHOLDS = {"RetinaNet": "MODEL.RETINANET.SCORE_THRESH_TEST", "FCOS": "MODEL.FCOS.INFERENCE_TH_TEST",
              "GeneralizedRCNN": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
              "PanopticFPN": "MODEL.ROI_HEADS.SCORE_THRESH_TEST"}  # fmt: skip


@dataclass(frozen=True)
class ExportCase:
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
    def build(cls, kind: str, folder: Path) -> ExportCase:
        """With a checkpoint as a training leaves one, which finds nothing in a quarter of the images of `MANY`."""
        model, cfg = tiny(kind)
        score = quarter_score(model, cfg)
        if score is not None:
            raise_threshold(model, score)
            merge_overrides(cfg, [THRESHOLDS[cfg.MODEL.META_ARCHITECTURE], score])
        content = {"model": model.state_dict(), "config": cfg.dump()}
        if kind not in ("semantic", "proposals"):
            content["categories"] = THINGS
        if kind in ("semantic", "panoptic"):
            content["pixel_classes"] = [{"id": k and 30 + k, "name": n} for k, n in enumerate(PIXELS)]
        torch.save(content, folder / "w.pth")
        return cls(kind, folder, model, cfg)

    @property
    def weights(self) -> Path:
        return self.folder / "w.pth"

    @cached_property
    def drawn(self) -> Path:
        """The folder that `predict` makes of `images` by the checkpoint."""
        return predicted(self.weights, self.images, self.folder / "drawn")

    @cached_property
    def _keys(self) -> list[str]:
        return write_data(self.folder / "data", Predictor(self.weights))

    @property
    def images(self) -> Path:
        """The folder of images that `data` are of."""
        return Path(self._keys[self._keys.index("DATASETS.VAL_IMAGES") + 1])

    @property
    def data(self) -> list[str]:
        """What to evaluate on, as config keys."""
        return self._keys + self._panoptic if self.kind == "panoptic" else self._keys

    @cached_property
    def _panoptic(self) -> list[str]:
        return write_panoptic_truth(self.folder / "data", self.drawn)

    @cached_property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The checkpoint's."""
        return evaluated(self.weights, self.data, self.folder / "evaluated")

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


def predicted(weights: Path, images: Path, output: Path) -> Path:
    """Have `predict` write its folder."""
    assert main(["predict", "--weights", str(weights), str(images), "MODEL.DEVICE=cpu", "--output", str(output)]) == 0
    return output


def evaluated(weights: Path, data: list[str], output: Path) -> dict[str, dict[str, float | None]]:
    """What `train --eval-only` gives."""
    words = [f"MODEL.WEIGHTS={weights}", "DATALOADER.NUM_WORKERS=0", "MODEL.DEVICE=cpu", *data]
    assert main(["train", "--eval-only", *words, "--output", str(output)]) == 0
    found: dict[str, dict[str, float | None]] = {}
    for file in (output / "inference").glob("*metrics.json"):
        found |= json.loads(file.read_text())
    return found


@contextmanager
def _made_of(graph: Path) -> Iterator[None]:
    """OpenVINO's files are made by way of ONNX: of the one that is there already."""
    with pytest.MonkeyPatch.context() as patch:
        if graph.exists():
            patch.setattr(openvino, "write_onnx", lambda network, path: shutil.copyfile(graph, path))
        yield
