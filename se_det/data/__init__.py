"""Data: named data sets, reading and checking COCO files, images, transforms, samplers and loaders."""

from .catalog import DATASETS, DatasetEntry, dataset_paths, open_dataset, register_dataset
from .coco import CocoDataset, compare_categories, read_coco
from .images import read_image
from .loader import build_test_loader, build_train_loader, test_loader, train_loader
from .samplers import TrainBatchSampler

__all__ = [
    "DATASETS",
    "CocoDataset",
    "DatasetEntry",
    "TrainBatchSampler",
    "build_test_loader",
    "build_train_loader",
    "compare_categories",
    "dataset_paths",
    "open_dataset",
    "read_coco",
    "read_image",
    "register_dataset",
    "test_loader",
    "train_loader",
]
