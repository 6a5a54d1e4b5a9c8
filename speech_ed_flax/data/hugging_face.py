"""Data sets of the library ``datasets``, without its decoder of sound, which needs PyTorch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.extras import require
from speech_ed_flax.data.rows import Fault, Row, read_row

PREFIX = "hf:"
_SAVED = ("dataset_info.json", "dataset_dict.json")


def is_saved(folder: Path) -> bool:
    """Tells whether a folder was written by ``save_to_disk``."""
    return any((folder / name).is_file() for name in _SAVED)


def scan_hugging_face(name: str, needs_text: bool = True) -> Iterator[Row | Fault]:
    """Yields the rows of a data set.

    Args:
        name: ``NAME``, ``NAME:CONFIG`` or ``NAME:CONFIG:SPLIT`` of the Hub, or the folder of a
            data set that was saved, in place of NAME; CONFIG may be empty, SPLIT is ``train``.
        needs_text: whether rows without text are faults.

    Raises:
        DataError: it cannot be loaded, or has no column of sound.
        ConfigError: the library is not installed.
    """
    library: Any = require("datasets", "hf")
    place, config, split, *_ = (*name.removeprefix(PREFIX).split(":"), "", "", "")
    try:
        data = _load(library, place, config, split or "train")
    except Exception as error:  # the library raises what its file systems and formats raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{name}: cannot be loaded, {reason}") from error
    sound = _sound_column(library, data, name)
    data = data.cast_column(sound, library.Audio(decode=False))
    for number, columns in enumerate(data, 1):
        yield _entry(dict(columns), sound, name, number, needs_text)


def _load(library: Any, place: str, config: str, split: str) -> Any:
    if not Path(place).is_dir() or not is_saved(Path(place)):
        return library.load_dataset(place, config or None, split=split)
    saved = library.load_from_disk(place)
    return saved[split] if isinstance(saved, library.DatasetDict) else saved


def _sound_column(library: Any, data: Any, name: str) -> str:
    kinds = data.features
    for column, kind in kinds.items():
        if isinstance(kind, library.Audio):
            return column
    if "audio" in kinds:
        return "audio"
    raise DataError(f"{name}: no column is of sound; it has {', '.join(kinds)}.")


def _entry(
    columns: dict[str, Any], sound: str, source: str, number: int, needs_text: bool
) -> Row | Fault:
    """Returns a row whose name, if it has none, is that of its file, or its number."""
    cell: Mapping[str, Any] = columns.pop(sound) or {}
    columns.pop("path", None)  # where the file was when the data set was made
    audio = cell.get("bytes") or cell.get("path")
    path = cell.get("path") or f"{source}/{number}"
    if not audio:
        return Fault(source, number, "no audio", path)
    return read_row(columns, audio, path, source, number, needs_text)
