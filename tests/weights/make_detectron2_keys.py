"""Writes `detectron2_keys.json.xz`: what Detectron2's own models of its zoo are called and shaped.

`python tests/weights/make_detectron2_keys.py <Detectron2's checkout>`, in an environment with Detectron2. Models are
built on PyTorch's meta device, one after the other, so that no weights are allocated. The file holds, for each
published config, by its path in the URL of its weights,

    keys: parameter or buffer -> shape, of the model's state dict
    config: key -> value, of its CfgNode where it differs from Detectron2's defaults; null for a lazy config
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path

import torch

TARGET = Path(__file__).with_name("detectron2_keys.json.xz")


def flatten(node, prefix: str = "") -> dict:
    """Key to value of a CfgNode's leaves."""
    leaves = {}
    for name, value in node.items():
        leaves |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def configured(path: Path, *, pointrend: bool):
    """The config of a YAML file, and Detectron2's defaults with the keys that it may use."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    if pointrend:
        from point_rend import add_pointrend_config

        add_pointrend_config(cfg)
    defaults = flatten(cfg)
    # Only Detectron2's own files may be given to a loader that evaluates what they say.
    cfg.merge_from_file(str(path), allow_unsafe=True)
    return cfg, defaults


def shapes(model) -> dict[str, list[int]]:
    """Name to shape of everything that a checkpoint of the model has."""
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def describe(path: Path, *, pointrend: bool = False) -> dict:
    """Keys and config of one model."""
    from detectron2.config import LazyConfig, instantiate
    from detectron2.modeling import build_model

    if path.suffix == ".py":
        with torch.device("meta"):
            return {"keys": shapes(instantiate(LazyConfig.load(str(path)).model)), "config": None}
    cfg, defaults = configured(path, pointrend=pointrend)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        keys = shapes(build_model(cfg))
    told = {key: value for key, value in flatten(cfg).items() if defaults[key] != value and key != "MODEL.DEVICE"}
    return {"keys": keys, "config": told}


def main(checkout: Path) -> None:
    """See the module."""
    sys.path.insert(0, str(checkout / "projects" / "PointRend"))
    from detectron2.model_zoo.model_zoo import _ModelZooUrls

    found = {}
    for name in _ModelZooUrls.CONFIG_PATH_TO_URL_SUFFIX:
        path = next(p for p in (checkout / "configs" / f"{name}{end}" for end in (".yaml", ".py")) if p.is_file())
        found[name] = describe(path)
        print(name, len(found[name]["keys"]), flush=True)
    project = checkout / "projects" / "PointRend"
    readme = (project / "README.md").read_text()
    for name in re.findall(r'"configs/(\w+/\w+)\.yaml"', readme):
        found[f"PointRend/{name}"] = describe(project / "configs" / f"{name}.yaml", pointrend=True)
        print(name, len(found[f"PointRend/{name}"]["keys"]), flush=True)
    TARGET.write_bytes(lzma.compress(json.dumps(found).encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
