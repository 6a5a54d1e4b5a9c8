"""The weights in a folder, whichever of the known files they are in."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from speech_ed_flax.conversion.msgpack import read_msgpack
from speech_ed_flax.conversion.pickle import read_pickle
from speech_ed_flax.conversion.safetensors import read_safetensors
from speech_ed_flax.conversion.shards import read_shards
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.types import State

__all__ = ["read_weights"]

_READERS: dict[str, Callable[[Path], State]] = {
    "model.safetensors": read_safetensors,
    "model.safetensors.index.json": partial(read_shards, read=read_safetensors),
    "pytorch_model.bin": read_pickle,
    "pytorch_model.bin.index.json": partial(read_shards, read=read_pickle),
    "flax_model.msgpack": read_msgpack,
}


def read_weights(folder: Path) -> tuple[State, Path]:
    """Reads the weights of a checkpoint folder: safetensors, else PyTorch's pickle, else Flax's.

    Returns:
        Arrays by PyTorch name, and the file (or the index of the shards) that they came from.

    Raises:
        CheckpointError: if there is no such file, or the first there is cannot be read.
    """
    for name, read in _READERS.items():
        path = folder / name
        if path.exists() or path.is_symlink():  # a dangling link is an error to report, not absence
            return read(path), path
    raise CheckpointError(f"{folder}: it holds no weights; looked for {', '.join(_READERS)}")
