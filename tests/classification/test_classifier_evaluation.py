"""Accuracy: against a count by hand, over processes, in its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from picture_sets import CLASSES
from tiny_pretraining import recipe, tiny_pretraining
from torch import nn

from se_det.classification.data.loader import Batch
from se_det.classification.evaluation import evaluate_classifier
from se_det.classification.preprocessing import Preprocessing
from se_det.classification.run import run_classifier_evaluation
from se_det.errors import ConfigError, DataError, WeightsError

CPU = torch.device("cpu")


class Told(nn.Module):
    """Logits that were made beforehand, by the number in an image's first pixel."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.logits[x[:, 0, 0, 0].round().long()]


def batches(labels: list[int], size: int) -> list[Batch]:
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
    whole = torch.tensor(labels)
    return [
        Batch(images[i : i + size], whole[i : i + size], torch.arange(len(labels))[i : i + size], [])
        for i in range(0, len(labels), size)
    ]


def test_accuracy_by_hand() -> None:
    # Seven classes; the own class of each image is ranked 1, 2, 5, 6, 1, 7.
    labels, ranks = [0, 1, 2, 3, 3, 5], [1, 2, 5, 6, 1, 7]
    logits = torch.zeros(6, 7)
    for row, (label, rank) in enumerate(zip(labels, ranks)):
        others = [c for c in range(7) if c != label]
        order = [*others[: rank - 1], label, *others[rank - 1 :]]
        logits[row, order] = torch.arange(7, 0, -1, dtype=torch.float32)
    model = Told(logits).train()
    plain = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    for size in (1, 4, 6):
        result = evaluate_classifier(model, batches(labels, size), num_classes=7, preprocessing=plain, device=CPU)
        assert result["top1"] == pytest.approx(100 * 2 / 6)
        assert result["top5"] == pytest.approx(100 * 4 / 6)
        assert result["top1_error"] == pytest.approx(100 * 4 / 6)
        assert result["images"] == 6
        assert result["per_class"] == {0: 100.0, 1: 0.0, 2: 0.0, 3: 50.0, 5: 0.0}
        expected = nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
        assert result["loss"] == pytest.approx(expected, rel=1e-6)
    assert model.training
    with pytest.raises(DataError, match="no images to evaluate on"):
        evaluate_classifier(model, [], num_classes=7, preprocessing=plain, device=CPU)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    tiny_pretraining(pictures, folder, "SOLVER.MAX_ITER", 4, "SOLVER.EMA.DECAY", 0.0)
    return folder


def test_evaluation_of_a_checkpoint_is_the_runs_own(pictures: Path, trained: Path, tmp_path: Path) -> None:
    own = json.loads((trained / "inference" / "metrics.json").read_text())
    assert list(own["per_class"]) == list(CLASSES)
    assert own["classification"]["top5"] == 100.0  # of three classes
    cfg = recipe(pictures, tmp_path, "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    result = run_classifier_evaluation(cfg)
    assert result["top1"] == own["classification"]["top1"]
    again = json.loads((tmp_path / "inference" / "metrics.json").read_text())
    # Norms are folded here, so the loss has another rounding.
    assert again["classification"].pop("loss") == pytest.approx(own["classification"].pop("loss"), rel=1e-4)
    assert again == own
    # A list has no class names: the checkpoint's are taken, and its labels are held to them.
    (tmp_path / "list.txt").write_text("ash/100.jpg 0\ncedar/101.jpg 2\n")
    keys = ["DATASETS.TEST", str(tmp_path / "list.txt"), "DATASETS.TEST_ROOT", str(pictures / "val")]
    weights = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    run_classifier_evaluation(recipe(pictures, tmp_path, *weights, *keys))
    assert set(json.loads((tmp_path / "inference" / "metrics.json").read_text())["per_class"]) == {"ash", "cedar"}
    (tmp_path / "list.txt").write_text("ash/100.jpg 3\n")
    with pytest.raises(DataError, match="line 1: the label 3 .* out of range: there are 3 classes"):
        run_classifier_evaluation(recipe(pictures, tmp_path, *weights, *keys))


def test_evaluation_is_refused(pictures: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No weights were given"):
        run_classifier_evaluation(recipe(pictures, tmp_path))
    with pytest.raises(WeightsError, match="of another architecture|lacks"):
        weights = str(trained / "model_final.pth")
        run_classifier_evaluation(recipe(pictures, tmp_path, "MODEL.NAME", "rg_se_tiny", "MODEL.WEIGHTS", weights))
