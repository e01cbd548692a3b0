"""Formats that are not read: each is called by its name, with the export of the same tool that is."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import DataError
from ...files import open_regular_file
from .tree import Tree

BEGINNING = 2**14
LOOKED_AT = 20  # files of each ending

# ending: (what stands in the file, what it is, what to do)
_SIGNS: dict[str, list[tuple[str, str, str]]] = {
    "json": [
        (r'"coordinates"\s*:\s*\{[^}]*"(x|width)"', "CreateML JSON", "export COCO or YOLO from the tool that wrote it"),
        (r'"shape_attributes"|"_via_', "a VGG Image Annotator (VIA) project",
         "use its 'Export annotations (COCO format)'"),
        (r'"classTitle"|"geometryType"', "a Supervisely project", "export it as COCO or YOLO (its export apps)"),
        (r'"from_name"|"rectanglelabels"|"polygonlabels"', "Label Studio's own JSON", "export it as COCO or YOLO"),
        (r'"data_row"|"featureId"|"Labeled Data"', "a Labelbox export", "convert it to COCO with Labelbox's SDK"),
        (r'"visitedTagNames"|"assetState"|"assetName"', "a VoTT project", "set its export format to Pascal VOC"),
        (r'"segments_info"', "COCO panoptic", "give the 'instances' JSON of the same images"),
        (r'"asset_path"|"annotations"[^\]]*"label_id"|"dm_format_version"', "Datumaro's own format",
         "convert it with `datum convert -f coco`"),
        (r'"label"\s*:\s*\[\s*\{[^}]*"category"|"box2d"', "BDD100K or Scalabel",
         "convert it to COCO with Scalabel's tools"),
        (r'"bbox"[^\]]*\][^}]*"score"', "COCO results (detections)", "give the ground truth that they were made for"),
        (r'"imgWidth"|"imgHeight"', "Cityscapes' polygons", "convert them to COCO with cityscapesscripts"),
    ],
    "csv": [
        (r"region_shape_attributes", "a VGG Image Annotator (VIA) CSV", "use its 'Export annotations (COCO format)'"),
        (r"(?i)(x_?cent(er|re)|[,;\t]cx[,;\t])", "a CSV of boxes by their centres",
         "write the corners: xmin, ymin, xmax, ymax"),
        (r"(?i)^[^\n]*[,;\t]bbox\b", "a CSV with a box in one cell, whose order cannot be known",
         "write the columns xmin, ymin, xmax, ymax"),
        (r"(?im)^[^\n]*\b(xmin|x_min|x1)\b[^\n]*$", "a CSV of boxes without an image or a class column",
         "name its columns filename, xmin, ymin, xmax, ymax, class"),
    ],
    "txt": [
        (r"(?m)^\s*(-?\d+(\.\d+)? ){8}\w\S* [012]\s*$", "DOTA's oriented boxes", "export them as YOLO OBB or COCO"),
        (r"(?m)^[A-Za-z]\w* \d(\.\d+)? \d( -?\d+(\.\d+)?){12}", "KITTI's labels", "convert them to COCO or YOLO"),
    ],
}  # fmt: skip
_ENDINGS = {
    "tfrecord": ("TFRecords", "export COCO or YOLO from the tool that wrote them"),
    "record": ("TFRecords", "export COCO or YOLO from the tool that wrote them"),
    "parquet": ("Parquet files", "export COCO or YOLO from the tool that wrote them"),
    "manifest": ("a SageMaker Ground Truth manifest", "convert it to COCO"),
    "ndjson": ("newline-delimited JSON, as Labelbox and ultralytics' platform write it", "export COCO or YOLO"),
    "vott": ("a VoTT project", "set its export format to Pascal VOC"),
    "mat": ("MATLAB files", "export COCO or Pascal VOC"),
}


def refuse_others(tree: Tree) -> None:
    """Refuse a folder of a known format that is not read.

    Raises:
        DataError: with the format's name and what to export in its place.
    """
    for ending, signs in _SIGNS.items():
        files = [tree.chosen] if tree.chosen.is_file() else tree.of(ending)[:LOOKED_AT]
        for path in files:
            text = _beginning(path) if path.suffix.lower() == f".{ending}" else ""
            for sign, what, remedy in signs:
                if text and re.search(sign, text):
                    raise DataError(f"{path} is {what}, which is not read: {remedy}, and give that.")
    for ending, (what, remedy) in _ENDINGS.items():
        for path in tree.of(ending)[:1]:
            raise DataError(f"{path.parent} has {what} ({path.name}), which are not read: {remedy}, and give that.")


def _beginning(path: Path) -> str:
    try:
        with open_regular_file(path) as file:
            return file.read(BEGINNING).decode("utf-8", "ignore")
    except OSError:
        return ""
