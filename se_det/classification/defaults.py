"""Every key of a pretraining recipe with its default. A key of the detector's has the detector's name and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..config.loading import load_config
from ..errors import ConfigError
from ..plugins import loaded_plugins

CN = CfgNode


def get_pretrain_cfg() -> CfgNode:
    """A new config with every key at its default: the SP/RG authors' recipe on a ResNet-50 with SE gates."""
    c = CN()
    c.VERSION = 2
    c.PLUGINS = loaded_plugins()  # a record of the files given by --plugin; setting it loads nothing
    c.WRITERS = ["json", "tensorboard"]  # where a run's numbers go: metrics.json, TensorBoard's event files
    c.OUTPUT_DIR = "./output/pretrain"
    c.SEED = -1  # -1 draws one, which is logged and kept in the checkpoint
    c.CUDNN_BENCHMARK = True  # every batch of a run has one size, so trying all algorithms once pays
    c.FLOAT32_PRECISION = ""  # "highest", "high" (TF32), "medium"; "": "high" on a GPU, nothing is set on a CPU

    # --- model ---------------------------------------------------------------------------------------------------
    c.MODEL = CN()
    c.MODEL.NAME = "se_resnet50"  # a model of the catalog; `se_det.list_models()` lists all
    c.MODEL.NUM_CLASSES = 0  # 0: what the training data has
    c.MODEL.DEVICE = "cuda"  # or mps, xpu, cpu; becomes cpu, with a line in the log, where there is no such GPU
    c.MODEL.WEIGHTS = ""  # weights to start from, or to evaluate
    c.MODEL.PIXEL_MEAN = [123.675, 116.280, 103.530]  # in the order of INPUT.FORMAT, on the 0..255 scale
    c.MODEL.PIXEL_STD = [58.395, 57.120, 57.375]
    c.MODEL.RESNETS = CN()
    c.MODEL.RESNETS.NORM = "BN"  # BN, SyncBN, GN
    c.MODEL.RESNETS.STRIDE_IN_1X1 = False
    c.MODEL.RESNETS.STEM_POOL = "pad1"
    c.MODEL.RESNETS.STEM_OUT_CHANNELS = 0  # 0: what the model has; 32 with RES2_OUT_CHANNELS 32 halves a ResNet-18
    c.MODEL.RESNETS.RES2_OUT_CHANNELS = 0  # of res2, doubled from stage to stage; 0: what the model has
    c.MODEL.GATE = CN()
    c.MODEL.GATE.REDUCTION = 16
    c.MODEL.GATE.BIAS = True
    c.MODEL.GATE.STAGES = ["res2", "res3", "res4", "res5"]
    c.MODEL.GATE.NORM = ""  # "" follows MODEL.RESNETS.NORM
    c.MODEL.GATE.PLACEMENT = "standard"  # standard, pre, post, identity; hosts that are no ResNets have "standard"
    c.MODEL.CHANNELS_LAST = True  # the layout that tensor cores and CPUs' convolutions want
    c.MODEL.COMPILE = False  # torch.compile
    c.MODEL.CHECKPOINT_ACTIVATIONS = False  # compute each block twice in place of keeping what it computed

    # --- data ----------------------------------------------------------------------------------------------------
    c.DATASETS = CN()
    c.DATASETS.TRAIN = ""  # class folders, a list of `imagename label` lines, or tar shards (a folder, file or pattern)
    c.DATASETS.TEST = ""
    c.DATASETS.TRAIN_ROOT = ""  # what the names of a list are relative to; "": the folder that the list lies in
    c.DATASETS.TEST_ROOT = ""
    c.DATASETS.CLASSES = ""  # a text file with the name of class 0, 1, ... a line, for lists and shards
    c.DATALOADER = CN()
    c.DATALOADER.NUM_WORKERS = 4  # per process
    c.DATALOADER.SKIP_BAD_IMAGES = 0  # go on without so many unreadable training images; 0: the first one ends the run
    c.INPUT = CN()
    c.INPUT.FORMAT = "RGB"  # RGB, BGR
    c.INPUT.IMAGE_SIZE = 224
    c.INPUT.SIZES = []  # progressive: [[epoch, size], ...], each from that epoch on; IMAGE_SIZE is the one before
    c.INPUT.SCALE = [0.08, 1.0]  # share of the image's area that a crop has
    c.INPUT.RATIO = [0.75, 4.0 / 3.0]  # of a crop's sides
    c.INPUT.FLIP = 0.5
    c.INPUT.RAND_AUGMENT = CN({"OPS": 0, "MAGNITUDE": 9})  # 0: off
    c.INPUT.ERASING = 0.0  # probability that a rectangle is painted with the mean colour
    c.INPUT.MIXUP = 0.0  # alpha; 0: off. With CUTMIX too, one of the two is drawn for every batch
    c.INPUT.CUTMIX = 0.0
    c.INPUT.REPEATS = 1  # how often an epoch has each of its images, of which there are then fewer
    c.INPUT.AUGMENT_ON = "worker"  # "device": flip, RandAugment and erasing on the GPU, which is image by image

    # --- training ------------------------------------------------------------------------------------------------
    s = c.SOLVER = CN()
    s.EPOCHS = 100.0
    s.MAX_ITER = 0  # steps; 0: EPOCHS
    s.IMS_PER_BATCH = 256  # images of an optimiser step, over all processes and parts
    s.ACCUMULATE = 1  # parts that one step is computed in
    s.OPTIMIZER = "SGD"  # SGD, AdamW
    s.BASE_LR = 0.1
    s.REFERENCE_BATCH = 256  # BASE_LR is for this many images and scaled linearly to IMS_PER_BATCH; 0: as it is
    s.TRUNK_LR_FACTOR = 1.0  # of the learning rate for the layers below the classifier, when they start from WEIGHTS
    s.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # or WarmupCosineLR
    s.EPOCH_STEPS = [30, 60, 90]  # epochs after which the rate is multiplied with GAMMA
    s.STEPS = []  # the same in steps; []: EPOCH_STEPS
    s.GAMMA = 0.1
    s.BASE_LR_END = 0.0  # where the cosine ends
    s.WARMUP_EPOCHS = 0.0
    s.WARMUP_ITERS = 0  # steps; 0: WARMUP_EPOCHS
    s.WARMUP_FACTOR = 0.01
    s.WARMUP_METHOD = "linear"
    s.MOMENTUM = 0.9
    s.NESTEROV = False
    s.WEIGHT_DECAY = 0.0001
    s.WEIGHT_DECAY_NORM = 0.0001
    s.WEIGHT_DECAY_BIAS = None
    s.BIAS_LR_FACTOR = 1.0
    s.CLIP_GRADIENTS = CN({"ENABLED": False, "CLIP_TYPE": "full_model", "CLIP_VALUE": 1.0, "NORM_TYPE": 2.0})
    s.AMP = CN({"ENABLED": False, "DTYPE": "bfloat16"})  # bfloat16, or float16 with loss scaling
    s.EMA = CN({"DECAY": 0.0})  # keep an average of the weights and evaluate it; 0: off
    s.LOSS = "CE"  # cross-entropy, or BCE: binary cross-entropy of every class, averaged
    s.LABEL_SMOOTHING = 0.0
    s.FP16_COMPRESSION = False  # processes exchange gradients in half precision
    s.CHECKPOINT_PERIOD = 0  # steps; 0: an epoch

    c.TEST = CN()
    c.TEST.IMAGE_SIZE = 0  # of the centre crop; 0: INPUT.IMAGE_SIZE
    c.TEST.CROP_RATIO = 0.875  # the crop's side as a share of the resized image's short side: 224 of 256
    c.TEST.IMS_PER_BATCH = 128  # per process
    c.TEST.EVAL_PERIOD = 0  # steps; 0: an epoch
    c.TEST.BEST_METRIC = "classification/top1"
    c.TEST.EARLY_STOP = 0
    return c


def load_recipe(name: str | Path, overrides: Sequence[Any] = ()) -> CfgNode:
    """A recipe by its name ("se_paper", "rg_se_paper", "modern") or the path of a YAML file, then `KEY VALUE` pairs.

    Raises:
        ConfigError: there is no such recipe; a key is unknown or its value of the wrong type.
    """
    if not str(name):
        raise ConfigError("--recipe is empty: name se_paper, rg_se_paper, modern, or a YAML file.")
    path = Path(name)
    if not path.suffix and len(path.parts) == 1:
        path = Path("configs", "pretrain", f"{name}.yaml")
    return load_config(path, overrides, defaults=get_pretrain_cfg())
