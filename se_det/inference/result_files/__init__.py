"""What `predict` writes its detections into: COCO's JSON, or pre-annotations for a labelling tool."""

from .coco import CocoFile
from .cvat import CvatFile
from .label_studio import LabelStudioFile
from .protocol import Detected, ResultFile

FORMATS: dict[str, type[ResultFile]] = {"coco": CocoFile, "label-studio": LabelStudioFile, "cvat": CvatFile}

__all__ = ["FORMATS", "Detected", "ResultFile"]
