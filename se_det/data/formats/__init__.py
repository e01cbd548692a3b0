"""Annotation formats: recognised by a folder's shape, read by one file each, handed over as COCO."""

from .opening import FORMATS, OpenedData, OpenedSplit, open_data, recognise

__all__ = ["FORMATS", "OpenedData", "OpenedSplit", "open_data", "recognise"]
