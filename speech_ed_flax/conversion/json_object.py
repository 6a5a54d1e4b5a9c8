"""A JSON file that holds one object, read with a bound on its size."""

import json
from pathlib import Path
from typing import Any

from speech_ed_flax.conversion.blame import blaming
from speech_ed_flax.conversion.contents import map_contents, recognise
from speech_ed_flax.errors import CheckpointError

__all__ = ["read_json"]


def read_json(path: Path, limit: int = 1 << 20) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: the file, in UTF-8.
        limit: the most bytes it may have.

    Raises:
        CheckpointError: naming the file, if it is missing, larger, nested too deeply, not JSON, or
            no object.
    """
    with blaming(path):
        contents = map_contents(path)
        if contents.size > limit:
            raise CheckpointError(f"it has {contents.size} bytes, more than the {limit} allowed")
        try:
            value = json.loads(contents.tobytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{recognise(contents)} ({error})") from error
        if not isinstance(value, dict):
            raise CheckpointError(f"it holds a {type(value).__name__}, not a JSON object")
        return value
