"""The bytes of a checkpoint file, mapped and not read, and what else they may turn out to be."""

from pathlib import Path

import numpy as np

from speech_ed_flax.errors import CheckpointError

__all__ = ["map_contents", "recognise"]

_BEGINNINGS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file: run 'git lfs pull'",
    b"<!doctype": "it is an HTML page, not the file: download the file itself",
    b"<html": "it is an HTML page, not the file: download the file itself",
    b"pk\x03\x04": "it is a zip file, perhaps a PyTorch .bin under another name",
    b"\x80": "it is a pickle, perhaps a PyTorch .bin under another name",
    b"\x1f\x8b": "it is compressed by gzip: unpack it first",
}


def map_contents(path: Path) -> np.ndarray:
    """Maps a file into memory; its bytes are read from disk only where they are looked at.

    Returns:
        The bytes, uint8 ``[size]``, read-only.

    Raises:
        CheckpointError: if it is missing, empty, or no regular file (reading a pipe would hang).
    """
    if not path.exists():
        raise CheckpointError("there is no such file")
    if not path.is_file():
        raise CheckpointError("it is not a regular file")
    if path.stat().st_size == 0:
        raise CheckpointError("it is empty: download or save it again")
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)


def recognise(contents: np.ndarray) -> str:
    """Returns what the bytes of a file that could not be read turn out to be, and what to do."""
    head = contents[:64].tobytes()
    for beginning, reason in _BEGINNINGS.items():
        if head.lstrip().lower().startswith(beginning):
            return reason
    if head[7:9] == b"\0{":
        return "it looks like a safetensors file, cut short or under another name"
    return "it is damaged, or no checkpoint at all: download or save it again"
