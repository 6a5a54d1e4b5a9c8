"""A folder that appears under its name only when it is complete."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
    "*.index.json",
    "flax_model.msgpack",
)


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``destination``; what was written there then moves to it.

    If ``destination`` holds files already, weights of every layout are removed, because readers
    could prefer them to the new ones, and files of the same names are replaced; but a model card
    that is there stays. After an error inside the block it is as it was.

    Raises:
        OSError: if the disk is full or the folder cannot be written.
    """
    temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if destination.is_dir() and any(destination.iterdir()):
            _merge(temporary, destination)
        else:
            os.replace(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _merge(folder: Path, destination: Path) -> None:
    """Moves files into a folder; a crash meanwhile leaves it without weights, never a mixture."""
    for pattern in _WEIGHTS:
        for path in destination.glob(pattern):
            path.unlink()
    # Weights last: until they are there, nobody can load a mixture.
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_size):
        target = destination / path.relative_to(folder)
        if target.name == "README.md" and target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
