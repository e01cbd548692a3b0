"""A checkpoint to the Hugging Face Hub: weights, the config without one's own places, and a model card."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save

from ..config.loading import parse_yaml
from ..errors import ConfigError, ExportError
from ..files import atomic_write, write_text
from ..weights import read_weights, resolve_weights
from ..weights.hub import WEIGHTS, hub_error
from .model_card import metrics_of, model_card

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# Keys that say where things lay on the machine of the training.
PLACES = ("OUTPUT_DIR", "DATASETS")
PUBLIC = ("zoo://", "hf://", "http://", "https://")


def push(
    checkpoint: str, repository: str, *, license: str | None = None, private: bool = False, revision: str | None = None
) -> str:
    """Make `org/name` on the Hub, or change it, and return its address.

    The weights become `model.safetensors`, averaged ones where there are any, with config, classes and thresholds in
    its header: `hf://org/name` is all that predicting and fine-tuning need. Of the metrics those count that the run
    beside the checkpoint measured of these weights. The report is not sent: it shows the validation images.

    Args:
        checkpoint: of a detector or a classifier.
        license: an identifier of the Hub's, such as apache-2.0.
        private: for a repository that is made.
        revision: a branch; None is main.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ConfigError: it does not say what it is of, or `repository` is no name.
        ExportError: the package is missing, or the Hub refuses.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ConfigError(f"'{repository}' is no repository: give org/name, such as anna/birds.")
    path, _ = resolve_weights(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        write_repository(path, Path(folder), repository, license=license)
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise ExportError(
                f"push needs the package huggingface_hub, which cannot be imported ({error}): pip install "
                "'se_det[hub]'."
            ) from error
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            api.upload_folder(
                repo_id=repository, folder_path=folder, revision=revision, commit_message="Weights from se_det"
            )
        except Exception as error:  # the Hub's own, and those of whatever it sends with
            raise ExportError(f"{repository} could not be pushed: {hub_error(error)}") from error
    return f"hf://{repository}{f'@{revision}' if revision else ''}"


def write_repository(checkpoint: Path, folder: Path, repository: str, *, license: str | None = None) -> None:
    """What `push` sends, into `folder`.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ConfigError: it does not say what it is of.
    """
    file = read_weights(checkpoint)
    extra = dict(file.extra)
    classifier = "architecture" in extra
    if not extra.get("config") and not classifier:
        raise ConfigError(
            f"{checkpoint} carries no config that would say what it is of: push a checkpoint of se_det's."
        )
    config = parse_yaml(extra.get("config") or "{}", f"The config in {checkpoint}")
    public = _public(config)
    if extra.get("config"):
        extra["config"] = yaml.safe_dump(public, sort_keys=False)
    tensors = {name: tensor.contiguous() for name, tensor in file.tensors.items()}
    data = save(tensors, metadata={"format": "pt", "se_det": json.dumps(extra)})
    atomic_write(folder / WEIGHTS, lambda out: out.write(data))
    write_text(folder / "config.yaml", yaml.safe_dump(public, sort_keys=False))
    step = extra.get("iteration")
    card = model_card(
        repository,
        config={**public, "DATASETS": config.get("DATASETS") or {}},
        names=[category["name"] for category in extra.get("categories") or []],
        metrics=metrics_of(checkpoint.parent, step),
        classifier=classifier,
        license=license,
        step=step,
    )
    write_text(folder / "README.md", card)


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what it says of somebody's disk."""
    kept = {key: value for key, value in config.items() if key not in PLACES}
    model = dict(kept.get("MODEL") or {})
    if not str(model.get("WEIGHTS", "")).startswith(PUBLIC):
        model.pop("WEIGHTS", None)
    return {**kept, "MODEL": model}
