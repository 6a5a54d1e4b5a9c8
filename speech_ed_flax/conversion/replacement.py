"""A file that appears whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path``; what was written there then takes ``path``'s place.

    The bytes reach the disk before the name changes, so a crash leaves the old file or the new one.
    After an error inside the block ``path`` is as it was and the temporary file is gone.

    Raises:
        OSError: if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        _reach_disk(temporary)
        os.replace(temporary, path)
        _reach_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _reach_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
