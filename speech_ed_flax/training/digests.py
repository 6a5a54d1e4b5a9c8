"""SHA-256 digests of the files of a checkpoint, by which damage is found before it is loaded."""

import hashlib
import json
import os
from pathlib import Path

from speech_ed_flax.errors import CheckpointError

DIGESTS = Path("digests", "sha256.json")
"""Where the digests of a checkpoint are, inside its folder."""

_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""What orbax writes into a checkpoint's folder while it publishes it, and nobody needs to read."""


def write_digests(files: Path, destination: Path) -> None:
    """Writes size and SHA-256 of every file below ``files``, and has all of them reach the disk.

    Args:
        files: folder of a checkpoint that is complete but not published yet.
        destination: folder of the digests, left out itself.

    Raises:
        OSError: if the disk is full.
    """
    record = {}
    for path in sorted(path for path in files.rglob("*") if path.is_file()):
        if path.parent != destination and path.relative_to(files).as_posix() not in _LATER:
            record[path.relative_to(files).as_posix()] = [path.stat().st_size, digest(path)]
            _reach_disk(path)
    target = destination / DIGESTS.name
    target.write_text(json.dumps(record, indent=1), encoding="utf-8")
    _reach_disk(target)
    for folder in {target.parent, files, *(path.parent for path in map(files.joinpath, record))}:
        _reach_disk(folder)


def check_digests(checkpoint: Path) -> None:
    """Reads every file of a published checkpoint and compares it with its digest.

    Raises:
        CheckpointError: naming the first file that is missing, cut short or changed.
    """
    for name, (size, meant) in _read_digests(checkpoint / DIGESTS).items():
        path = checkpoint / name
        try:
            found = path.stat().st_size
            if found != size:
                raise CheckpointError(f"{path}: it has {found} bytes, but {size} were written.")
            if digest(path) != meant:
                raise CheckpointError(f"{path}: its bytes are not those that were written.")
        except OSError as error:
            raise CheckpointError(f"{path}: it cannot be read, {error.strerror}.") from error


def _read_digests(path: Path) -> dict[str, tuple[int, str]]:
    try:
        record = json.loads(path.read_bytes())
        return {str(name): (int(size), str(meant)) for name, (size, meant) in record.items()}
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read, {error.strerror}.") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: it is not the list of digests it was ({error}).") from error


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reach_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
