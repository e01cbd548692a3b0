"""Every configuration key with its default: Detectron2's names and values, then our own keys.

Values may be changed in a YAML file (`_BASE_` names a parent) or as `KEY VALUE` pairs on the command line.
A key that only Detectron2's engine implements is listed in `DETECTRON2_ONLY`, so that the builtin engine can say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fvcore.common.config import CfgNode

from ..errors import ConfigError
from ..plugins import load_installed_plugins, loaded_plugins
from .keypoint_keys import add_keypoint_keys
from .one_stage_keys import add_fcos_keys, add_retinanet_keys
from .point_rend_keys import add_point_rend_keys
from .proposal_keys import add_proposal_keys
from .segmentation_keys import add_detectron2_segmentation_keys, add_own_segmentation_keys

CN = CfgNode


def get_cfg() -> CfgNode:
    """A new config with every key of the builtin engine at its default."""
    cfg = _detectron2_keys()
    add_se_det_config(cfg)
    return cfg


def register_keys(add: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """Have `add(cfg)` add keys, with their defaults and comments, to every config made from now on: those of a part
    that is registered outside the package, declared beside it. A new section is `type(cfg)()`.

    Raises:
        ConfigError: it changes or removes keys that there are.
    """
    cfg = get_cfg()
    before = dict(_leaves(cfg))
    add(cfg)
    after = dict(_leaves(cfg))
    for key, value in before.items():
        if key not in after or after[key] != value:
            raise ConfigError(
                f"The config keys of {add.__module__} change {key}, which there is already: rename theirs."
            )
    _MORE_KEYS[f"{add.__module__}.{add.__qualname__}"] = add
    return add


def add_installed_keys(cfg: CfgNode) -> None:
    """Give a detector's config the keys that plugins of installed packages add; see `load_installed_plugins`."""
    known = set(_MORE_KEYS)
    load_installed_plugins()
    for name, add in _MORE_KEYS.items():
        if name not in known and "META_ARCHITECTURE" in cfg.MODEL:
            add(cfg)


_MORE_KEYS: dict[str, Callable[[CfgNode], None]] = {}


def _leaves(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def add_se_det_config(cfg: CfgNode) -> None:
    """Add the keys that are ours to `cfg`: this module's own config, or one of Detectron2's `get_cfg()`."""
    section = type(cfg)  # Detectron2's configs merge only with sections of their own class
    # --- gates: what recalibrates the channels of each residual branch -------------------------------------------
    cfg.MODEL.GATE = section()
    cfg.MODEL.GATE.NAME = "none"  # none, se, sp_se, rg_se, cbam
    cfg.MODEL.GATE.REDUCTION = 16  # hidden width is channels // REDUCTION
    cfg.MODEL.GATE.BIAS = True  # biases in both fully connected layers; the released weights have them
    cfg.MODEL.GATE.STAGES = ["res2", "res3", "res4", "res5"]  # the stages whose blocks have a gate
    # Gates on the pyramid's outputs, too (builtin engine); their norm, where GATE.NORM is "", is FPN.NORM's, else GN.
    cfg.MODEL.GATE.FPN = False
    # Where a residual block has its gate. "standard": on the branch, before the addition; "pre": on the branch's input;
    # "post": after the addition and its ReLU; "identity": on the shortcut. Other hosts than ResNets have "standard".
    cfg.MODEL.GATE.PLACEMENT = "standard"
    cfg.MODEL.GATE.NORM = ""  # norm inside SP-SE, RG-SE and CBAM; "" follows MODEL.RESNETS.NORM
    # "paper": the authors' initial values. "identity": the fresh gate leaves the network's function unchanged
    # (FC2 zero, the last norm doubled). "": identity where plain weights start a gated network, else paper.
    cfg.MODEL.GATE.INIT = ""
    # What lies outside an image in its padded batch. "keep": counts, as in Detectron2. "squeeze": left out of every
    # gate's averages. "exact": as if it did not exist (builtin engine), so results do not depend on batch mates.
    cfg.MODEL.GATE.PADDING = "keep"
    # "triton": our own kernels, for GPUs alone, make the passes over maps that gates add, and NMS of all images'
    # proposals. "pytorch": PyTorch's and torchvision's operators do.
    cfg.MODEL.KERNELS = "pytorch"
    # Anchors' corners, seen from their centre, as whole numbers: torchvision's detectors. Detectron2's are not rounded.
    cfg.MODEL.ANCHOR_GENERATOR.ROUNDED = False
    cfg.MODEL.RESNETS.STEM_POOL = "pad1"  # "pad1": 3x3 stride 2 padding 1; "ceil": padding 0, ceil mode (Caffe)
    # Stochastic depth: how often, in training, the last block of the ResNet leaves out its branch; the blocks before it
    # less often, down to the first one's never.
    cfg.MODEL.RESNETS.STOCHASTIC_DEPTH = 0.0
    # Compute each block of the trunk twice in place of keeping what it computed: less memory, about a third more time.
    cfg.MODEL.CHECKPOINT_ACTIVATIONS = False
    cfg.MODEL.RESNETS.BRANCH_RELU = False  # a ReLU before the gate of a basic block: timm's legacy_seresnet18 and -34

    # The maps above P5. "": as MODEL.BACKBONE.NAME says, P6 by a maximum unless it is a retinanet builder; max_pool;
    # p6p7_res5 (RetinaNet), p6p7_p5 (FCOS): P6 and P7 by convolutions of that map; p6p7_res5_linear: without the ReLU
    # between the two, as mmdetection's RetinaNet.
    cfg.MODEL.FPN.TOP_BLOCK = ""
    cfg.MODEL.RETINANET.CLIP_BEFORE_NMS = False  # cut boxes off at the image's border before NMS, as torchvision does
    add_fcos_keys(cfg)

    # How detections of one object become one. "hard": all but the best are dropped; soft-NMS lowers their scores:
    # "linear" where they overlap by MODEL.ROI_HEADS.NMS_THRESH_TEST, "gaussian" the more they overlap.
    cfg.MODEL.ROI_HEADS.NMS_TYPE = "hard"
    cfg.MODEL.ROI_HEADS.SOFT_NMS_SIGMA = 0.5  # of "gaussian": the score is multiplied with exp(-IoU^2 / sigma)

    # --- data ----------------------------------------------------------------------------------------------------
    # One's own data: a COCO JSON and the folder its file names are relative to. They take the place of
    # DATASETS.TRAIN and DATASETS.TEST; the command line's --train-json and its like set them.
    cfg.DATASETS.TRAIN_JSON = ""
    cfg.DATASETS.TRAIN_IMAGES = ""
    cfg.DATASETS.VAL_JSON = ""
    cfg.DATASETS.VAL_IMAGES = ""
    # Whether a file_name may be an absolute path, or climb out of the image folder with "..": for trusted files.
    cfg.DATASETS.ABSOLUTE_FILE_NAMES = False
    # Training goes on without images that cannot be read, or are of another size than declared: as many different ones
    # as this, each replaced by another image and named in the log. 0: the first one ends the run.
    cfg.DATALOADER.SKIP_BAD_IMAGES = 0
    # RandomSubsetTrainingSampler (a name of Detectron2's, whose config has no such key): the share of the images that
    # a run trains on, drawn by its seed.
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 1.0
    # "pil": Detectron2's pixels exactly. "fast": twice as fast, within one grey level (two for 2 values in 10^8).
    cfg.INPUT.RESIZE = "pil"
    # What is done to training images, one after another: [{name: ..., argument: value, ...}, ...]. Empty is
    # ResizeShortestEdge, then RandomFlip, whose arguments are by default the keys MIN_SIZE_TRAIN, RANDOM_FLIP, ...
    cfg.INPUT.AUGMENTATIONS = []
    # Training on windows of the images in place of whole ones: SIZE px wide and high, 0 is off. Each is resized and
    # augmented as an image is. Neighbours share at least OVERLAP of SIZE.
    cfg.INPUT.TILE = section()
    cfg.INPUT.TILE.SIZE = 0
    cfg.INPUT.TILE.OVERLAP = 0.2
    cfg.INPUT.TILE.MIN_VISIBLE = 0.25  # an object is learned where a window shows this share of its box
    cfg.INPUT.TILE.EMPTY = 0.1  # share of an epoch's windows that show nothing annotated, drawn anew for each epoch

    # --- training ------------------------------------------------------------------------------------------------
    cfg.SOLVER.OPTIMIZER = "SGD"  # SGD, AdamW
    cfg.SOLVER.ACCUMULATE = 1  # parts that one optimiser step of IMS_PER_BATCH images is computed in
    # BASE_LR is given for this many images per step and scaled linearly to IMS_PER_BATCH; 0 leaves it as it is.
    cfg.SOLVER.REFERENCE_BATCH = 16
    # Of the learning rate for the trunk below the pyramid; and for each of its layers (stem and blocks) once more for
    # each layer above it: 0.7 to 0.8 for modern weights. 1: no other rate.
    cfg.SOLVER.BACKBONE_LR_FACTOR = 1.0
    cfg.SOLVER.LAYER_DECAY = 1.0
    cfg.SOLVER.FP16_COMPRESSION = False  # processes exchange gradients in half precision
    cfg.SOLVER.AMP.DTYPE = "float16"  # float16 (with loss scaling, as in Detectron2) or bfloat16
    cfg.SOLVER.EMA = section()
    # Keep an exponential average of the weights and evaluate it: 0.999, say, reached from 0.1 over the first steps.
    cfg.SOLVER.EMA.DECAY = 0.0  # 0: off
    # Images per forward pass in evaluation, per process. `Predictor` and `predict` take only images together that are
    # of one size when resized, as a video's frames are, so that none is padded for another.
    cfg.TEST.IMS_PER_BATCH = 1
    # float32, or bfloat16: about twice as fast on GPUs and on CPUs that compute in it, at a small cost in AP. Scores,
    # boxes and NMS stay in float32.
    cfg.TEST.PRECISION = "float32"
    # torch.compile of the backbone, for the first 8 shapes that images have; takes most of a minute for each, and a C++
    # compiler. For GPUs: on CPUs float32 became slower, bfloat16 hardly faster.
    cfg.TEST.COMPILE = False
    cfg.TEST.BEST_METRIC = ""  # task/metric that model_best.pth maximises, "bbox/AP"; "": the first task's AP
    # Each evaluation also computes the training's losses on its data (validation/loss_cls, ...), without augmentation
    # and with the norms' statistics as in evaluation; that about doubles its time.
    cfg.TEST.EVAL_LOSS = False
    cfg.TEST.EARLY_STOP = 0  # stop after this many evaluations without a better BEST_METRIC; 0: never
    # Detections of a class in an image that AP looks at: COCO's 100. Another number is the last of AR's names (AR300).
    cfg.TEST.MAX_DETS_PER_IMAGE = 100
    # Detection in windows of the images (see INPUT.TILE), in evaluation and prediction. TEST.DETECTIONS_PER_IMAGE then
    # limits what each window may give.
    cfg.TEST.TILE = section()
    cfg.TEST.TILE.SIZE = 0  # px; 0 is off
    cfg.TEST.TILE.OVERLAP = 0.2
    # Detections of several windows are one object's where they agree by THRESHOLD in what both windows show: "nms":
    # intersection over union, "ios": over the smaller of the two.
    cfg.TEST.TILE.MERGE = "nms"
    cfg.TEST.TILE.THRESHOLD = 0.5
    cfg.TEST.TILE.WHOLE_IMAGE = False  # the whole image, resized, is a window too: for objects larger than windows
    cfg.TEST.EVALUATORS = ["coco"]  # what evaluates, one after another: coco, or those of plugins
    cfg.WRITERS = ["json", "tensorboard"]  # where a run's numbers go: metrics.json, TensorBoard's event files
    add_own_segmentation_keys(cfg)
    cfg.PLUGINS = loaded_plugins()  # a record of the files given by --plugin; setting it loads nothing
    for add in _MORE_KEYS.values():
        add(cfg)


def _detectron2_keys() -> CfgNode:
    c = CN()
    c.VERSION = 2
    c.OUTPUT_DIR = "./output"
    c.SEED = -1  # -1 draws one, which is logged and kept in the checkpoint
    c.CUDNN_BENCHMARK = False
    # torch.set_float32_matmul_precision: "highest", "high" (TF32), "medium"; "": "high" on a GPU, else unset
    c.FLOAT32_PRECISION = ""

    # --- model ---------------------------------------------------------------------------------------------------
    c.MODEL = CN()
    c.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    # cuda (ROCm, too), mps, xpu or cpu; becomes cpu, with a line in the log, where there is no such GPU
    c.MODEL.DEVICE = "cuda"
    c.MODEL.WEIGHTS = ""  # a path, zoo://name (model_zoo/README.md) or a URL; "" starts from random weights
    c.MODEL.MASK_ON = False
    c.MODEL.KEYPOINT_ON = False
    c.MODEL.PIXEL_MEAN = [103.530, 116.280, 123.675]  # in the order of INPUT.FORMAT, on the 0..255 scale
    c.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]

    c.MODEL.BACKBONE = CN()
    # build_se_resnet_fpn_backbone (or build_resnet_fpn_backbone): the ResNet of MODEL.RESNETS with MODEL.GATE.NAME;
    # build_se_resnet_retinanet_fpn_backbone (or build_retinanet_resnet_fpn_backbone): the same with P6 and P7;
    # or a model's name, gate included, such as se_bn_inception: its stages with FPN.
    c.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    c.MODEL.BACKBONE.FREEZE_AT = 2  # 0: nothing is frozen; 1: the stem; 2: the stem and res2; ...
    c.MODEL.RESNETS = CN()
    c.MODEL.RESNETS.DEPTH = 50
    c.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    c.MODEL.RESNETS.NUM_GROUPS = 1
    c.MODEL.RESNETS.WIDTH_PER_GROUP = 64
    c.MODEL.RESNETS.NORM = "FrozenBN"  # FrozenBN, BN, SyncBN, GN
    c.MODEL.RESNETS.STRIDE_IN_1X1 = True  # Caffe's and MSRA's weights: True; torchvision's and timm's: False
    c.MODEL.RESNETS.RES5_DILATION = 1
    # Deformable 3 x 3 convolutions in res2 to res5 of a ResNet with bottlenecks; MODULATED is their second version.
    c.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, False, False]
    c.MODEL.RESNETS.DEFORM_MODULATED = False
    c.MODEL.RESNETS.DEFORM_NUM_GROUPS = 1
    c.MODEL.RESNETS.RES2_OUT_CHANNELS = 256  # 64 for depths 18 and 34
    c.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
    c.MODEL.FPN = CN()
    c.MODEL.FPN.IN_FEATURES = []
    c.MODEL.FPN.OUT_CHANNELS = 256
    c.MODEL.FPN.NORM = ""  # "", BN, SyncBN, GN
    c.MODEL.FPN.FUSE_TYPE = "sum"  # sum, avg

    c.MODEL.PROPOSAL_GENERATOR = CN()
    c.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    c.MODEL.PROPOSAL_GENERATOR.MIN_SIZE = 0  # proposals whose sides are not above this many pixels are dropped
    c.MODEL.ANCHOR_GENERATOR = CN()
    c.MODEL.ANCHOR_GENERATOR.NAME = "DefaultAnchorGenerator"
    c.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64, 128, 256, 512]]
    c.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    c.MODEL.ANCHOR_GENERATOR.OFFSET = 0.0
    c.MODEL.RPN = CN()
    c.MODEL.RPN.HEAD_NAME = "StandardRPNHead"
    c.MODEL.RPN.IN_FEATURES = ["res4"]
    c.MODEL.RPN.BOUNDARY_THRESH = -1
    c.MODEL.RPN.IOU_THRESHOLDS = [0.3, 0.7]
    c.MODEL.RPN.IOU_LABELS = [0, -1, 1]
    c.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 256
    c.MODEL.RPN.POSITIVE_FRACTION = 0.5
    c.MODEL.RPN.BBOX_REG_LOSS_TYPE = "smooth_l1"  # smooth_l1, giou, diou, ciou
    c.MODEL.RPN.BBOX_REG_LOSS_WEIGHT = 1.0
    c.MODEL.RPN.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
    c.MODEL.RPN.SMOOTH_L1_BETA = 0.0
    c.MODEL.RPN.LOSS_WEIGHT = 1.0
    c.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 12000
    c.MODEL.RPN.PRE_NMS_TOPK_TEST = 6000
    c.MODEL.RPN.POST_NMS_TOPK_TRAIN = 2000
    c.MODEL.RPN.POST_NMS_TOPK_TEST = 1000
    c.MODEL.RPN.NMS_THRESH = 0.7
    c.MODEL.RPN.CONV_DIMS = [-1]

    add_retinanet_keys(c)

    c.MODEL.ROI_HEADS = CN()
    c.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    c.MODEL.ROI_HEADS.NUM_CLASSES = 80  # taken from the annotation file when there is one
    c.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    c.MODEL.ROI_HEADS.IOU_THRESHOLDS = [0.5]
    c.MODEL.ROI_HEADS.IOU_LABELS = [0, 1]
    c.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512
    c.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.25
    c.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
    c.MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.5
    c.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT = True
    c.MODEL.ROI_BOX_HEAD = CN()
    c.MODEL.ROI_BOX_HEAD.NAME = ""
    c.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "smooth_l1"  # smooth_l1, giou, diou, ciou
    c.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT = 1.0
    c.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
    c.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.0
    c.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
    c.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 0
    c.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignV2"  # ROIAlign: not aligned, as in torchvision and Detectron
    c.MODEL.ROI_BOX_HEAD.NUM_FC = 0
    c.MODEL.ROI_BOX_HEAD.FC_DIM = 1024
    c.MODEL.ROI_BOX_HEAD.NUM_CONV = 0
    c.MODEL.ROI_BOX_HEAD.CONV_DIM = 256
    c.MODEL.ROI_BOX_HEAD.NORM = ""
    c.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = False
    c.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES = False  # the other heads learn from boxes as the box head moves them
    c.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = False  # a sigmoid for each class, in place of a softmax over all
    # With it: the loss of a step is over the classes in it, filled up to FED_LOSS_NUM_CLASSES with others, drawn by the
    # number of training images that have each to the power of FED_LOSS_FREQ_WEIGHT_POWER.
    c.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False
    c.MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER = 0.5
    c.MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES = 50
    # CascadeROIHeads: for each stage the factors of its deltas, and the IoU from which a box is positive.
    c.MODEL.ROI_BOX_CASCADE_HEAD = CN()
    c.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    c.MODEL.ROI_BOX_CASCADE_HEAD.IOUS = (0.5, 0.6, 0.7)
    c.MODEL.ROI_MASK_HEAD = CN()
    c.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    c.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
    c.MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = 0
    c.MODEL.ROI_MASK_HEAD.POOLER_TYPE = "ROIAlignV2"  # "" with PointRendMaskHead, which reads the maps itself
    c.MODEL.ROI_MASK_HEAD.NUM_CONV = 0
    c.MODEL.ROI_MASK_HEAD.CONV_DIM = 256
    c.MODEL.ROI_MASK_HEAD.NORM = ""
    c.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = False
    add_keypoint_keys(c)
    add_point_rend_keys(c)

    add_detectron2_segmentation_keys(c)

    # --- data ----------------------------------------------------------------------------------------------------
    c.INPUT = CN()
    c.INPUT.MIN_SIZE_TRAIN = (800,)  # short sides to draw from
    c.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"  # choice: one of the list; range: between the list's two numbers
    c.INPUT.MAX_SIZE_TRAIN = 1333
    c.INPUT.MIN_SIZE_TEST = 800  # 0 leaves images as they are
    c.INPUT.MAX_SIZE_TEST = 1333
    c.INPUT.RANDOM_FLIP = "horizontal"  # none, horizontal, vertical
    c.INPUT.CROP = CN()  # see se_det/data/augmentations/crop.py
    c.INPUT.CROP.ENABLED = False  # RandomCrop before the resizing
    c.INPUT.CROP.TYPE = "relative_range"  # relative, relative_range, absolute, absolute_range
    c.INPUT.CROP.SIZE = [0.9, 0.9]  # shares of height and width, or px
    c.INPUT.FORMAT = "BGR"  # BGR, RGB
    c.INPUT.MASK_FORMAT = "polygon"  # the builtin engine reads polygons and RLE alike, whatever stands here
    c.DATASETS = CN()
    c.DATASETS.TRAIN = ()
    c.DATASETS.TEST = ()
    add_proposal_keys(c)
    c.DATALOADER = CN()
    c.DATALOADER.NUM_WORKERS = 4  # per process; 0 loads in the training process
    c.DATALOADER.ASPECT_RATIO_GROUPING = True
    c.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"  # RepeatFactorTrainingSampler, RandomSubsetTrainingSampler
    # RepeatFactorTrainingSampler: an image comes up as often as its rarest class needs, threshold / share of the images
    # that have the class, but at least once in an epoch; 0: none more than once. Of that the square root, or not.
    c.DATALOADER.REPEAT_THRESHOLD = 0.0
    c.DATALOADER.REPEAT_SQRT = True
    c.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True  # drop training images without annotations; the count is logged

    # --- solver --------------------------------------------------------------------------------------------------
    c.SOLVER = CN()
    c.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # WarmupMultiStepLR, WarmupCosineLR
    c.SOLVER.MAX_ITER = 40000
    c.SOLVER.BASE_LR = 0.001
    c.SOLVER.BASE_LR_END = 0.0  # where the cosine ends
    c.SOLVER.MOMENTUM = 0.9
    c.SOLVER.NESTEROV = False
    c.SOLVER.WEIGHT_DECAY = 0.0001
    c.SOLVER.WEIGHT_DECAY_NORM = 0.0
    c.SOLVER.WEIGHT_DECAY_BIAS = None  # None follows WEIGHT_DECAY
    c.SOLVER.BIAS_LR_FACTOR = 1.0
    c.SOLVER.GAMMA = 0.1
    c.SOLVER.STEPS = (30000,)
    c.SOLVER.WARMUP_FACTOR = 1.0 / 1000
    c.SOLVER.WARMUP_ITERS = 1000
    c.SOLVER.WARMUP_METHOD = "linear"  # linear, constant
    c.SOLVER.CHECKPOINT_PERIOD = 5000
    c.SOLVER.IMS_PER_BATCH = 16  # images per optimiser step, over all processes and accumulated parts
    c.SOLVER.CLIP_GRADIENTS = CN()
    c.SOLVER.CLIP_GRADIENTS.ENABLED = False
    c.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value"  # value: each element; norm: each parameter; full_model: all together
    c.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    c.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0
    c.SOLVER.AMP = CN()
    c.SOLVER.AMP.ENABLED = False

    # --- evaluation ----------------------------------------------------------------------------------------------
    c.TEST = CN()
    c.TEST.EVAL_PERIOD = 0  # evaluate every so many steps; 0: only at the end
    c.TEST.DETECTIONS_PER_IMAGE = 100
    # Of each keypoint how far people place it from where it is, as a share of the object's size (OKS); empty: COCO's
    # for its 17, and the data's own number of others gets their mean.
    c.TEST.KEYPOINT_OKS_SIGMAS = []
    # After the last evaluation, and with --eval-only, once more with each image detected in several sizes and mirrored:
    # as tasks bbox_TTA, segm_TTA. That takes as many times as long as there are views.
    c.TEST.AUG = CN()
    c.TEST.AUG.ENABLED = False
    c.TEST.AUG.MIN_SIZES = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
    c.TEST.AUG.MAX_SIZE = 4000
    c.TEST.AUG.FLIP = True
    # Before each evaluation and the checkpoint with it, the batch norms that train get the exact statistics of NUM_ITER
    # training batches, in place of averages over the last steps, whose weights were others.
    c.TEST.PRECISE_BN = CN()
    c.TEST.PRECISE_BN.ENABLED = False
    c.TEST.PRECISE_BN.NUM_ITER = 200
    return c


# Keys (or whole sections) that exist in Detectron2 and that the builtin engine does not implement.
DETECTRON2_ONLY = (
    "CUDNN_DETERMINISTIC",
    "GLOBAL",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "SOLVER.NUM_DECAYS",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "SOLVER.RESCALE_INTERVAL",
    "TEST.EXPECTED_RESULTS",
    "VIS_PERIOD",
)
