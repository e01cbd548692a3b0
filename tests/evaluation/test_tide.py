"""Error kinds, confusion and curves against hand-worked numbers and computations written out here."""

from __future__ import annotations

import numpy as np
import pytest
from coco_samples import Dataset, random_content, random_outputs, write

from se_det.evaluation.coco_eval import CocoEvaluator
from se_det.evaluation.confusion_matrix import confusion_matrix, largest_confusions
from se_det.evaluation.overlaps import ImageOverlaps, image_overlaps
from se_det.evaluation.precision_recall import precision_recall
from se_det.evaluation.ranking import rank_images
from se_det.evaluation.tide import error_types

A, B = 0, 1


def image(objects: list[int], detections: list[tuple[float, int, list[float]]], crowd: list[bool] | None = None):
    """(score, class, IoU with each object) per detection, the surest first."""
    return ImageOverlaps(
        image_id=1,
        scores=np.array([d[0] for d in detections], float),
        classes=np.array([d[1] for d in detections], int),
        truth_classes=np.array(objects, int),
        crowd=np.array(crowd or [False] * len(objects), bool),
        iou=np.array([d[2] for d in detections], float).reshape(len(detections), len(objects)),
    )


# Class A has 4 objects, class B one. All kinds occur, and each number below is worked out by hand.
WORKED = image(
    [A, A, A, A, B],
    [
        (0.95, A, [0.00, 0.00, 0.00, 0.00, 0.05]),  # background
        (0.90, A, [0.80, 0.00, 0.00, 0.00, 0.00]),  # finds object 0
        (0.85, A, [0.70, 0.00, 0.00, 0.00, 0.00]),  # duplicate of it
        (0.80, A, [0.00, 0.30, 0.00, 0.00, 0.00]),  # localisation of object 1
        (0.70, B, [0.00, 0.00, 0.60, 0.00, 0.00]),  # classification of object 2
        (0.60, B, [0.00, 0.00, 0.00, 0.20, 0.00]),  # both, at object 3, which stays missed
        (0.50, B, [0.00, 0.00, 0.00, 0.00, 0.90]),  # finds object 4
    ],
)
# AP of A: 26 of 101 recalls (0 to 0.25) at precision 1/2. AP of B: all at 1/3, as two false ones are before it.
AP_A, AP_B = 26 / 101 / 2, 1 / 3
WORKED_LOSSES = {
    # A's detections: F T F F T(0.7): 26 recalls at 1/2, 25 at 2/5. B's: F T, so 1/2.
    "classification": ((26 / 2 + 25 * 2 / 5) / 101 + 1 / 2) / 2,
    # F T F T: 51 recalls, of which the best precision from there on is 1/2.
    "localisation": (51 / 101 / 2 + AP_B) / 2,
    "both": (AP_A + 1 / 2) / 2,  # B: F T
    "duplicate": (AP_A + AP_B) / 2,  # behind the only true one: nothing gained
    "background": (26 / 101 + AP_B) / 2,  # A: T F F
    "missed": (34 / 101 / 2 + AP_B) / 2,  # A has 3 objects: recalls 0 to 0.33
}


def test_a_hand_worked_example() -> None:
    kinds = error_types([WORKED], 2)
    before = 100 * (AP_A + AP_B) / 2
    assert kinds.ap50 == pytest.approx(before)
    assert kinds.counts == dict.fromkeys(WORKED_LOSSES, 1)
    assert kinds.losses == pytest.approx({kind: 100 * ap - before for kind, ap in WORKED_LOSSES.items()})


def test_only_the_surest_error_on_an_object_is_put_right() -> None:
    picture = image([A], [(0.9, A, [0.4]), (0.8, B, [0.7]), (0.7, A, [0.45])])
    kinds = error_types([picture], 2)
    assert kinds.counts["localisation"] == 2 and kinds.counts["classification"] == 1
    assert kinds.counts["missed"] == 0  # errors explain it
    # Localisation put right: one true detection, the second removed, and the object is found: AP 100.
    assert kinds.losses["localisation"] == pytest.approx(100)
    # The classification error is not the surest on the object: it is removed, which brings class A nothing.
    assert kinds.losses["classification"] == pytest.approx(0)


def test_an_error_on_an_object_found_is_removed() -> None:
    picture = image([A], [(0.9, A, [0.2]), (0.8, A, [0.9])])
    assert error_types([picture], 1).losses["localisation"] == pytest.approx(50)


def test_detections_in_a_crowd_are_no_errors() -> None:
    picture = image([A, A], [(0.9, A, [0.0, 0.9]), (0.8, A, [0.6, 0.0])], crowd=[False, True])
    kinds = error_types([picture], 1)
    assert kinds.ap50 == pytest.approx(100) and not any(kinds.counts.values())


def test_nothing_found_and_nothing_there() -> None:
    kinds = error_types([image([A, B], [])], 2)
    assert kinds.ap50 == 0 and kinds.counts["missed"] == 2 and kinds.losses["missed"] == pytest.approx(100)
    assert np.isnan(error_types([], 2).ap50)
    background = error_types([image([], [(0.9, A, [])])], 2)
    assert background.counts["background"] == 1 and np.isnan(background.ap50)


@pytest.fixture(scope="module", params=[("bbox", 0), ("segm", 1)], ids=["boxes", "masks"])
def evaluated(request, tmp_path_factory):
    task, seed = request.param
    content = random_content(images=25, seed=seed)
    evaluator = CocoEvaluator(Dataset(write(tmp_path_factory.mktemp("set") / "a.json", content)), ("bbox", "segm"))
    evaluator.process(*random_outputs(content, seed=seed + 5))
    evaluator.evaluate()
    outcome = evaluator.outcome
    return task, outcome, image_overlaps(outcome.truth, outcome.results, task)


def test_ap50_is_the_protocols(evaluated) -> None:
    task, outcome, images = evaluated
    kinds = error_types(images, 3)
    assert kinds.ap50 == pytest.approx(outcome.metrics[task]["AP50"], abs=1e-9)
    assert sum(kinds.counts.values()) > 10


def test_curves_agree_with_a_computation_from_the_definition(evaluated) -> None:
    task, outcome, images = evaluated
    curves = precision_recall(outcome.precision[task])
    for threshold, name in ((0.5, "IoU 0.50"), (0.75, "IoU 0.75")):
        per_class = [points(images, index, threshold) for index in range(3)]
        assert curves.overall[name] == pytest.approx(np.mean(per_class, axis=0), abs=1e-9)
        if threshold == 0.5:
            assert curves.per_class == pytest.approx(np.array(per_class), abs=1e-9)
    every = [[points(images, c, 0.5 + 0.05 * step) for c in range(3)] for step in range(10)]
    assert curves.overall["mean of IoU 0.50 to 0.95"] == pytest.approx(np.mean(every, axis=(0, 1)), abs=1e-9)


def points(images: list[ImageOverlaps], label: int, threshold: float) -> list[float]:
    """The best precision at each recall, by plain loops over sure and unsure detections."""
    marks, objects = [], 0
    for place, picture in enumerate(images):
        own = [g for g in range(len(picture.crowd)) if picture.truth_classes[g] == label]
        objects += sum(not picture.crowd[g] for g in own)
        used = set()
        for d in range(len(picture.scores)):
            if picture.classes[d] != label:
                continue
            best, best_iou = None, threshold - 1e-12
            for g in own:
                if not picture.crowd[g] and g not in used and picture.iou[d, g] >= best_iou:
                    best, best_iou = g, picture.iou[d, g]
            if best is not None:
                used.add(best)
            elif any(picture.crowd[g] and picture.iou[d, g] >= threshold for g in own):
                continue
            marks.append((-picture.scores[d], place, d, best is not None))
    pairs, right = [], 0
    for total, (_, _, _, true) in enumerate(sorted(marks), 1):
        right += true
        pairs.append((right / objects, right / total))
    return [max((p for r, p in pairs if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]


def test_the_confusion_matrix_agrees_with_plain_loops(evaluated) -> None:
    _, _, images = evaluated
    expected = np.zeros((4, 4), int)
    for picture in images:
        detections = {d for d in range(len(picture.scores)) if picture.scores[d] >= 0.3}
        objects = {g for g in range(len(picture.crowd)) if not picture.crowd[g]}
        while True:
            pairs = [
                (picture.iou[d, g], picture.classes[d] == picture.truth_classes[g], -d, d, g)
                for d in detections
                for g in objects
                if picture.iou[d, g] >= 0.5
            ]
            if not pairs:
                break
            *_, d, g = max(pairs)
            expected[picture.truth_classes[g], picture.classes[d]] += 1
            detections.remove(d)
            objects.remove(g)
        for g in objects:
            expected[picture.truth_classes[g], 3] += 1
        for d in detections:
            crowds = [g for g in np.flatnonzero(picture.crowd) if picture.truth_classes[g] == picture.classes[d]]
            expected[3, picture.classes[d]] += not any(picture.iou[d, g] >= 0.5 for g in crowds)
    matrix = confusion_matrix(images, 3, score_threshold=0.3)
    assert matrix.tolist() == expected.tolist() and matrix.sum() > 50
    assert sum(count for *_, count in largest_confusions(matrix, 99)) == matrix[:3, :3].sum() - np.trace(matrix[:3, :3])


def test_the_worked_example_as_a_confusion_matrix() -> None:
    # Object 0 by the 0.9 one, 2 taken for B, 4 found; 1 and 3 unfound; of detections three As and a B on nothing.
    assert confusion_matrix([WORKED], 2).tolist() == [[1, 1, 2], [0, 1, 0], [3, 1, 0]]
    assert confusion_matrix([WORKED], 2, score_threshold=0.75).tolist() == [[1, 0, 3], [0, 0, 1], [3, 0, 0]]
    assert largest_confusions(confusion_matrix([WORKED], 2), 5) == [(A, B, 1)]


def test_images_are_ranked_by_f1() -> None:
    good = image([A], [(0.9, A, [0.8])])
    bad = image([A, A, A], [(0.4, A, [0.9, 0.0, 0.0])])  # not sure enough
    ranking = rank_images([good, image([], []), WORKED, bad])
    assert [(s.found, s.false, s.missed) for s in ranking] == [(0, 0, 3), (2, 5, 3), (1, 0, 0)]
    assert [s.f1 for s in ranking] == pytest.approx([0, 4 / 12, 1])
