"""From the name of a checkpoint to its files: a folder, or a repository of the Hugging Face Hub."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from speech_ed_flax.conversion.json_object import read_json
from speech_ed_flax.conversion.weights import read_weights
from speech_ed_flax.errors import CheckpointError

__all__ = ["read_json", "read_weights", "resolve"]

_DESCRIPTIONS = ["*.json", "*.txt", "*.model"]  # configs, shard indices, vocabularies, tokenizers
_WEIGHTS = [  # in order of preference, as names that a glob and the Hub read alike
    ["model.safetensors", "model-*-of-*.safetensors"],
    ["pytorch_model.bin", "pytorch_model-*-of-*.bin"],
    ["flax_model.msgpack"],
]
_REASONS = {  # in this order: a gated repository is a repository that was not found
    GatedRepoError: "its authors ask for consent: accept their terms on the Hub and log in",
    RevisionNotFoundError: "the Hub has no such revision of it",
    RepositoryNotFoundError: "the Hub has no such repository, or it is private: check the name",
    LocalEntryNotFoundError: "it is not complete in the local cache, and the Hub is out of reach",
    HFValidationError: "it is neither a folder nor the name of a repository",
}


def resolve(name: str | Path, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Returns the folder of a checkpoint, downloading what is needed of it.

    Weights are downloaded in one format only: safetensors, else PyTorch's pickle, else Flax's.

    Args:
        name: a folder, or a repository such as ``facebook/wav2vec2-base``.
        revision: a branch, tag or commit of the repository; a folder has none, so it is ignored.
        local_files_only: looks only in the Hub's local cache, as ``HF_HUB_OFFLINE=1`` does.

    Raises:
        CheckpointError: with the reason, if there is no such folder or repository.
    """
    folder = Path(os.path.expanduser(name))  # unlike Path.expanduser, lets "~nobody" pass
    if folder.is_dir():
        return folder
    if _looks_local(str(name)) or folder.exists():
        raise CheckpointError(f"{name}: it is not a folder; give a checkpoint's folder or Hub name")
    try:
        return _download(str(name), revision, local_files_only)
    except Exception as error:  # the client lets its HTTP library's errors through, whichever it is
        for kind, reason in _REASONS.items():
            if isinstance(error, kind):
                raise CheckpointError(f"{name}: {reason}") from error
        summary = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{name}: the Hub could not be used ({summary})") from error


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


def _download(name: str, revision: str | None, local_files_only: bool) -> Path:
    """Downloads the descriptions, then the weights in the first format that the repository has."""

    def snapshot(patterns: list[str], commit: str | None) -> Path:
        options = {"allow_patterns": patterns, "local_files_only": local_files_only}
        return Path(snapshot_download(name, revision=commit, ignore_patterns="*/*", **options))

    folder = snapshot(_DESCRIPTIONS, revision)
    for patterns in _WEIGHTS:
        # The folder is named after the commit: a push meanwhile cannot mix two versions.
        snapshot(patterns, folder.name)
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            break
    return folder
