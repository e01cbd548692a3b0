"""Before a network is built: the file that MODEL.WEIGHTS names, and the keys that its weights decide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fvcore.common.config import CfgNode

from ..backbones.catalog import HOSTS, list_models, parse_name
from ..backbones.resnet import ResNet
from ..backbones.timm_trunk import PREFIX
from ..config.defaults import get_cfg
from ..config.loading import get_key
from ..config.provenance import key_source
from ..config.resolution import Decision
from ..errors import ConfigError
from .conventions import config_keys, key_decisions, saved_keys
from .families import SE_DET
from .load_report import shorten
from .reading import WeightFile
from .source import open_weights
from .zoo import SCHEME, DetectorEntry, Entry, get_entry

# Which ResNet a detector stands on.
TRUNK_KEYS = ("MODEL.RESNETS.DEPTH", "MODEL.RESNETS.NUM_GROUPS", "MODEL.RESNETS.WIDTH_PER_GROUP")

logger = logging.getLogger(__name__)


def open_configured_weights(
    cfg: CfgNode, *, trained: bool = False, class_keys: Sequence[str] = ()
) -> tuple[WeightFile | None, list[Decision]]:
    """Fetch and read the file of MODEL.WEIGHTS, and find what its weights need of network and input.

    An entry of the zoo tells that; so does the family that a file's keys show, and a checkpoint of ours by the config
    that it carries. Of a file of which nothing is known, the config stands.

    Args:
        cfg: not changed.
        trained: a whole detector is needed, for evaluation; most entries of the zoo are classifiers.
        class_keys: with `trained`, the keys that hold the network's number of classes.

    Returns:
        The file, for `load_weights` (None where MODEL.WEIGHTS is empty), and what it decides.

    Raises:
        ConfigError: the config says otherwise than the weights need; the sentence names the keys. Or the entry's
            network is not the config's.
        WeightsError: the file cannot be had or read.
    """
    source = str(cfg.MODEL.WEIGHTS)
    if not source:
        return None, []
    # What is known of an entry is checked before a hundred megabytes are fetched.
    if source.startswith(SCHEME):
        _entry_decisions(cfg, get_entry(source), trained)
    of_timm = cfg.MODEL.BACKBONE.NAME.startswith(PREFIX)
    file, entry = open_weights(source, foreign=of_timm)
    decisions = [] if entry is None else _entry_decisions(cfg, entry, trained)
    wanted = config_keys(file.facts)
    if of_timm:  # its layers are timm's own, whatever these keys say
        wanted = {key: value for key, value in wanted.items() if not key.startswith("MODEL.RESNETS.")}
    if (file.family == SE_DET.name or isinstance(entry, DetectorEntry)) and not trained:
        # Fine-tuning may feed other images on purpose; where the stride is belongs to the weights.
        wanted = {
            key: x for key, x in wanted.items() if key.startswith("MODEL.RESNETS.") or key_source(cfg, key) is None
        }
    decisions += key_decisions(cfg, wanted, f"{SCHEME}{entry.name}" if entry else str(file.path))
    if trained:
        for key in class_keys:
            decisions += _class_decisions(cfg, file, key)
    return file, decisions


def _class_decisions(cfg: CfgNode, file: WeightFile, key: str) -> list[Decision]:
    """The number of classes is what a checkpoint names, unless the user says otherwise.

    Raises:
        ConfigError: the user set another number.
    """
    categories, given = file.extra.get("categories"), get_key(cfg, key)
    if not categories or given == len(categories):
        return []
    source = key_source(cfg, key)
    if source is not None:
        names = shorten([ascii(str(category["name"])) for category in categories])
        raise ConfigError(
            f"{key} is {given} ({source}), and {file.path} was trained on {len(categories)} classes ({names}): leave "
            "that key out, or give other weights with MODEL.WEIGHTS."
        )
    return [Decision(key, len(categories), str(file.path), "the classes it was trained on")]


def saved_decisions(cfg: CfgNode, config: str, source: str) -> list[Decision]:
    """These keys as in the run that `config` is of, where the user set none: to resume needs no file.

    Args:
        config: the YAML that a checkpoint carries.
        source: the checkpoint.
    """
    found = saved_keys(config)
    return [Decision(key, value, source) for key, value in found.items() if key_source(cfg, key) is None]


def _entry_decisions(cfg: CfgNode, entry: Entry, trained: bool) -> list[Decision]:
    if isinstance(entry, DetectorEntry):
        _check_trunk(cfg, entry)
        return []  # as with a checkpoint of ours, what was read decides
    if trained:
        raise ConfigError(
            f"MODEL.WEIGHTS {SCHEME}{entry.name} is a pretrained backbone, and no weights of a trained detector were "
            "given: set MODEL.WEIGHTS <path> to a checkpoint."
        )
    if entry.facts is None:
        return []  # nobody published it, which is said when the file is asked for
    _check_architecture(cfg, entry)
    return key_decisions(cfg, config_keys(entry.facts), f"{SCHEME}{entry.name}")


def _check_trunk(cfg: CfgNode, entry: DetectorEntry) -> None:
    """Refuse, before it is fetched, a detector on another ResNet than the config's.

    Raises:
        ConfigError: naming the keys.
    """
    if not cfg.MODEL.BACKBONE.NAME.startswith("build_"):
        return  # a catalog's name may stand for the same network, and loading tells
    defaults = get_cfg()
    needed = {key: entry.config.get(key, get_key(defaults, key)) for key in TRUNK_KEYS}
    wrong = [f"{key} is {get_key(cfg, key)}, not {x}" for key, x in needed.items() if get_key(cfg, key) != x]
    if wrong:
        raise ConfigError(
            f"MODEL.WEIGHTS {SCHEME}{entry.name} is a detector on another network than the config's: "
            f"{'; '.join(wrong)}. Set those keys, or give other weights."
        )


def _check_architecture(cfg: CfgNode, entry: Entry) -> None:
    """Refuse an entry whose network is not the config's; a plain network's weights may start a gated one.

    Raises:
        ConfigError: naming the key.
    """
    try:
        gate, host = parse_name(entry.architecture)
    except ConfigError:
        raise ConfigError(
            f"MODEL.WEIGHTS {SCHEME}{entry.name} is a {entry.architecture}, which this version has no network for."
        ) from None
    name, needed = cfg.MODEL.BACKBONE.NAME, {}
    if name in list_models():
        own_gate, own_host = parse_name(name)
        fits = own_host == host
    else:
        own_gate, fits = cfg.MODEL.GATE.NAME, name.startswith("build_") and _in_keys(host)
    if not fits:
        needed["MODEL.BACKBONE.NAME"] = entry.architecture
    elif name not in list_models():
        needed = _in_keys(host)
    if fits and gate != "none" and own_gate == "none":
        needed["MODEL.GATE.NAME"] = gate
    wrong = [f"{key} is {get_key(cfg, key)}, not {x}" for key, x in needed.items() if get_key(cfg, key) != x]
    if wrong:
        raise ConfigError(
            f"MODEL.WEIGHTS {SCHEME}{entry.name} is a {entry.architecture}, and the config's network is another: "
            f"{'; '.join(wrong)}. Give a config of {entry.architecture}, or other weights."
        )
    if gate == "none" and own_gate != "none":
        logger.info("%s is a plain %s: the %s gates start fresh.", entry.name, host, own_gate)


def _in_keys(host: str) -> dict[str, Any]:
    """The keys that make Detectron2's ResNet builders build `host`; {} where they cannot."""
    arguments = HOSTS[host].arguments
    if HOSTS[host].build is not ResNet or set(arguments) - {"depth", "groups", "width_per_group"}:
        return {}
    return {
        "MODEL.RESNETS.DEPTH": arguments["depth"],
        "MODEL.RESNETS.NUM_GROUPS": arguments.get("groups", 1),
        "MODEL.RESNETS.WIDTH_PER_GROUP": arguments.get("width_per_group", 64),
    }
