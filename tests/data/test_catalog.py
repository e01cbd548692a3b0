"""Named data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_files import small_set

from se_det.data import catalog
from se_det.errors import DataError


def test_names_stand_for_detectron2s_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    expected = {
        "coco_2017_train": ("coco/annotations/instances_train2017.json", "coco/train2017"),
        "coco_2017_val": ("coco/annotations/instances_val2017.json", "coco/val2017"),
        "coco_2014_train": ("coco/annotations/instances_train2014.json", "coco/train2014"),
        "coco_2014_val": ("coco/annotations/instances_val2014.json", "coco/val2014"),
        "coco_2014_minival": ("coco/annotations/instances_minival2014.json", "coco/val2014"),
        "coco_2014_valminusminival": ("coco/annotations/instances_valminusminival2014.json", "coco/val2014"),
        "shapes_train": ("shapes/annotations/instances_train.json", "shapes/train"),
        "shapes_val": ("shapes/annotations/instances_val.json", "shapes/val"),
    }
    for name, (json, images) in expected.items():
        assert catalog.dataset_paths(name) == (Path("/data") / json, Path("/data") / images)


def test_the_root_is_datasets_when_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert catalog.dataset_paths("coco_2017_val")[1] == Path("datasets/coco/val2017")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no data set 'coco_2017_trian'\. Did you mean 'coco_2017_train'\?"):
        catalog.open_dataset("coco_2017_trian")


def test_absent_files_are_named_with_the_variable_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(DataError) as error:
        catalog.open_dataset("shapes_val")
    for part in (str(tmp_path / "shapes/annotations/instances_val.json"), f"DETECTRON2_DATASETS is {tmp_path}"):
        assert part in str(error.value)
    assert "python datasets/make_shapes.py" in str(error.value)
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/instances_val2017.json").write_text("{}")
    with pytest.raises(DataError, match=r"folder of images of the data set 'coco_2017_val' is not there: .*val2017"):
        catalog.open_dataset("coco_2017_val")


def test_ones_own_set_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "DATASETS", dict(catalog.DATASETS))
    small_set(tmp_path)
    catalog.register_dataset("mine", tmp_path / "instances.json", tmp_path / "images")
    catalog.register_dataset("mine", tmp_path / "instances.json", tmp_path / "images")  # the same again is no fault
    assert len(catalog.open_dataset("mine")) == 4
    with pytest.raises(DataError, match="There is a data set 'mine' already"):
        catalog.register_dataset("mine", tmp_path / "other.json", tmp_path / "images")
