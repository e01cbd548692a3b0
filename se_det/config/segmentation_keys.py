"""Keys of semantic and panoptic segmentation: Detectron2's with its values, and those of one's own label files."""

from __future__ import annotations

from fvcore.common.config import CfgNode


def add_detectron2_segmentation_keys(c: CfgNode) -> None:
    """Detectron2's keys."""
    head = c.MODEL.SEM_SEG_HEAD = type(c)()
    head.NAME = "SemSegFPNHead"
    head.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    head.IGNORE_VALUE = 255  # label of pixels that no loss is computed on, and that augmentations fill with
    # Classes of pixels, taken from the data where it names them. For PanopticFPN class 0 is all things together.
    head.NUM_CLASSES = 54
    head.CONVS_DIM = 128
    head.COMMON_STRIDE = 4  # all maps are brought to this stride, added and classified
    head.NORM = "GN"  # "", BN, SyncBN, GN
    head.LOSS_WEIGHT = 1.0

    panoptic = c.MODEL.PANOPTIC_FPN = type(c)()
    panoptic.INSTANCE_LOSS_WEIGHT = 1.0  # of the RoI heads' losses of boxes and masks
    panoptic.COMBINE = type(c)()  # how instances and classes of pixels become one map
    panoptic.COMBINE.ENABLED = True  # Detectron2 no longer looks at it, and neither does this
    # An instance of which a larger share lies under surer ones is left out.
    panoptic.COMBINE.OVERLAP_THRESH = 0.5
    panoptic.COMBINE.STUFF_AREA_LIMIT = 4096  # px; smaller regions of stuff are left out
    panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.5  # instances that score less are left out


def add_own_segmentation_keys(cfg: CfgNode) -> None:
    """Ours, see docs/segmentation.md."""
    # A folder of label PNGs, one per image and with its stem, whose values are classes. Beside DATASETS.TRAIN_IMAGES,
    # and beside DATASETS.TRAIN_JSON for a panoptic model.
    cfg.DATASETS.TRAIN_SEM_SEG = ""
    cfg.DATASETS.VAL_SEM_SEG = ""
    # The classes' names in order; or a single entry that is a JSON file with them. Empty: numbers.
    cfg.DATASETS.SEM_SEG_CLASSES = []
    # COCO's panoptic format: the JSON, and the folder of its PNGs (empty: the JSON's path without .json). Instances are
    # those of DATASETS.TRAIN_JSON, or where it is empty the panoptic PNGs' own.
    cfg.DATASETS.TRAIN_PANOPTIC_JSON = ""
    cfg.DATASETS.TRAIN_PANOPTIC = ""
    cfg.DATASETS.VAL_PANOPTIC_JSON = ""
    cfg.DATASETS.VAL_PANOPTIC = ""
    # Of RandomCrop_CategoryAreaConstraint, which takes RandomCrop's place after the resizing where it is below 1: no
    # class covers a larger share of the window, where ten draws find such a one.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0


RANGES: dict[str, tuple[float, float | None]] = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": (1, 255),
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": (0, 255),
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": (1, None),
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (1, None),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": (0, None),
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": (0, None),
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": (0, 1),
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": (0, None),
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": (0, 1),
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": (1e-6, 1),
}
