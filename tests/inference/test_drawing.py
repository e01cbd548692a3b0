"""Pictures: what is drawn, where, and that labels stay inside and off one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from se_det.inference import draw_detections, drawing

NAMES = ["person", "bicycle", "traffic light"]


def test_boxes_masks_and_colours() -> None:
    image = np.full((200, 300, 3), 100, dtype=np.uint8)
    masks = torch.zeros(2, 200, 300, dtype=torch.bool)
    masks[0, 60:120, 40:90] = True
    found = _instances([[30.2, 49.8, 100, 130], [150, 50, 250, 150]], [0.9, 0.4], [1, 2], pred_masks=masks)
    drawn = draw_detections(image, found, NAMES)
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    assert (image == 100).all()
    color = np.array(drawing.class_color(1))
    assert (drawn[130, 30:101] == color).all() and (drawn[50:131, 100] == color).all()
    assert (drawn[70:110, 50:80] == np.rint(100 * 0.6 + color * 0.4)).all()
    assert (drawn[125, 50:80] == 100).all()  # inside the box, outside the mask
    assert (drawn[:, 105:] == 100).all()  # the second scores below the threshold
    both = draw_detections(image, found, NAMES, score_threshold=0.4)
    assert (both[150, 150:251] == drawing.class_color(2)).all()


def test_colours_are_distinct() -> None:
    colours = np.array([drawing.class_color(index) for index in range(12)], dtype=float)
    distances = [np.abs(a - b).max() for a, b in itertools.combinations(colours, 2)]
    assert min(distances) > 40
    assert drawing.class_color(7) == drawing.class_color(np.int64(7))


@pytest.mark.parametrize("size", [(24, 20), (64, 48), (200, 300), (1200, 1600)])
def test_labels_stay_inside_and_apart(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = size
    rng = np.random.default_rng(0)
    corners = rng.uniform(-0.1, 1.1, size=(40, 2, 2)) * (width, height)
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    x, y = width - 3, height - 3
    boxes[:4] = [[0, 0, 3, 3], [x, 0, width, 3], [0, y, 3, height], [x, y, width, height]]
    written = []
    write = drawing._write

    def spy(canvas: np.ndarray, label: drawing._Label, place: tuple[int, int], *rest: object) -> None:
        written.append((*place, place[0] + label.width, place[1] + label.height))
        before = canvas.copy()
        write(canvas, label, place, *rest)
        x0, y0, x1, y1 = written[-1]
        before[y0:y1, x0:x1] = canvas[y0:y1, x0:x1]
        assert (before == canvas).all()  # letters do not leave their label

    monkeypatch.setattr(drawing, "_write", spy)
    found = _instances(boxes.tolist(), np.linspace(1, 0.5, 40), rng.integers(0, 3, size=40).tolist())
    drawn = draw_detections(np.zeros((height, width, 3), np.uint8), found, NAMES)
    assert drawn.shape == (height, width, 3)
    assert len(written) >= 1
    for x0, y0, x1, y1 in written:
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert y1 - y0 >= min(10, height)
    for a, b in itertools.combinations(written, 2):
        shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        assert shared <= 0.05 * (b[2] - b[0]) * (b[3] - b[1])


def test_long_names_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "can_draw", lambda text: False)  # no font has them
    label = drawing._longest_label("traffic light", 2, 0.987, (400, 400))
    assert label is not None and label.text == "traffic light 99%"
    short = drawing._longest_label("traffic light", 2, 0.987, (40, 40))
    assert short is not None and short.text.endswith(".") and "traffic light".startswith(short.text[:-1])
    assert drawing._longest_label("traffic light", 2, 0.987, (5, 5)) is None
    for name, text in (("Wäscheständer", "Waschestander 50%"), ("犬", "class 2 50%")):
        label = drawing._longest_label(name, 2, 0.5, (400, 400))
        assert label is not None and label.text == text


def test_tiny_images_can_be_enlarged() -> None:
    masks = torch.zeros(1, 30, 40, dtype=torch.bool)
    masks[0, 10:20, 10:30] = True
    found = _instances([[10, 10, 30, 20]], [0.9], [0], pred_masks=masks)
    image = np.zeros((30, 40, 3), np.uint8)
    assert draw_detections(image, found, NAMES).shape == image.shape
    drawn = draw_detections(image, found, NAMES, enlarge_below=300)
    assert drawn.shape == (240, 320, 3)
    assert (drawn[160, 80:240] == drawing.class_color(0)).all()  # the box's lower edge


def test_nothing_found_leaves_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(50, 60, 3), dtype=np.uint8)
    empty = _instances([], [], [], pred_masks=torch.zeros(0, 50, 60, dtype=torch.bool))
    drawn = draw_detections(image, empty, NAMES)
    assert (drawn == image).all() and drawn is not image


def test_other_forms_are_refused() -> None:
    found = _instances([[1, 1, 9, 9]], [0.9], [0], pred_masks=torch.zeros(1, 10, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(np.zeros((10, 10, 3), np.float32), found, NAMES)
    with pytest.raises(ValueError, match=r"masks are \(10, 10\)"):
        draw_detections(np.zeros((20, 20, 3), np.uint8), found, NAMES)


def _instances(boxes: list, scores: list, classes: list, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "pred_boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(np.asarray(scores), dtype=torch.float32),
        "pred_classes": torch.tensor(classes, dtype=torch.int64),
        **more,
    }
