"""Weights from the Hugging Face Hub: `hf://org/name`, `hf://org/name@revision`, `hf://org/name/file.pth@revision`."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ..errors import WeightsError
from .reading import READERS

SCHEME = "hf://"
WEIGHTS = "model.safetensors"  # what `se-det push` calls them
ADDRESS = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")


def hub_file(address: str) -> Path:
    """The weight file of a repository on this machine, fetched where it is not in the Hub's own cache.

    Without a name it is `model.safetensors`, else the only one there is. HF_HUB_OFFLINE, HF_TOKEN, HF_HOME and the
    others of the Hub's variables say what they always do.

    Raises:
        WeightsError: the address is none, huggingface_hub is not installed, there is no such repository, revision or
            file, or several files; or the Hub does not answer.
    """
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise WeightsError(
            f"MODEL.WEIGHTS {address} is no address on the Hub: use hf://org/name or hf://org/name@revision."
        )
    try:
        from huggingface_hub import hf_hub_download, list_repo_files
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise WeightsError(
            f"MODEL.WEIGHTS {address} needs the package huggingface_hub, which cannot be imported ({error}): pip "
            "install 'se_det[hub]'."
        ) from error
    repository, name, revision = parts["repository"], parts["file"], parts["revision"]

    def fetch(file: str) -> Path:
        return Path(hf_hub_download(repository, file, revision=revision))

    try:
        if name is not None:
            return fetch(name)
        try:
            return fetch(WEIGHTS)
        except LocalEntryNotFoundError:  # it is not known whether it is there
            raise
        except EntryNotFoundError:
            listed = list_repo_files(repository, revision=revision)
        found = [file for file in listed if PurePosixPath(file).suffix in READERS]
        if not found:
            raise WeightsError(f"MODEL.WEIGHTS {address}: the repository has no weights ({', '.join(READERS)}).")
        if len(found) > 1:
            raise WeightsError(
                f"MODEL.WEIGHTS {address}: the repository has several weight files ({', '.join(found[:6])}): name one, "
                f"as in hf://{repository}/{found[0]}."
            )
        return fetch(found[0])
    except WeightsError:
        raise
    except Exception as error:  # the Hub's own, and those of whatever it fetches with
        raise WeightsError(f"MODEL.WEIGHTS {address} could not be fetched: {hub_error(error)}") from error


def hub_error(error: Exception) -> str:
    """What went wrong with the Hub, as the end of a sentence, with what to do."""
    kind = type(error).__name__
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), kind).rstrip(".")
    if kind == "GatedRepoError":
        return "its owner asks for consent. Give it on the repository's page, then log in with `hf auth login`."
    if kind == "RepositoryNotFoundError":
        return "there is no such repository, or it is private. Check the name; for a private one, `hf auth login`."
    if kind == "RevisionNotFoundError":
        return "the repository has no such revision: name a branch, a tag or a commit after @."
    if kind in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
        return "it is not in the Hub's cache here, and the Hub cannot be reached. Check the network and HF_HUB_OFFLINE."
    if kind in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
        return "the repository has no such file at this revision."
    return f"{first}."
