"""Where rows come from, told by what a name is the name of."""

from collections.abc import Iterator
from pathlib import Path

from speech_ed_flax.data import hugging_face, manifest, tar
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.rows import Fault, Row

_PREFERRED = ("metadata", "manifest")


def scan_source(
    name: str, audio_root: str | Path | None = None, needs_text: bool = True
) -> Iterator[Row | Fault]:
    """Yields rows and faults of a source, in order.

    Args:
        name: a manifest; a tar archive; ``hf:`` and the name of a Hugging Face data set; or a
            folder that holds a manifest, archives, or such a data set saved.
        audio_root: folder that paths of manifests are relative to; their own if omitted.
        needs_text: whether rows without text are faults.

    Raises:
        DataError: it is none of these, or cannot be read.
        ConfigError: an optional library is missing.
    """
    path = Path(name)
    if name.startswith(hugging_face.PREFIX):
        yield from hugging_face.scan_hugging_face(name, needs_text)
    elif path.is_dir():
        yield from _scan_folder(path, audio_root, needs_text)
    elif name.lower().endswith(tar.SUFFIXES):
        yield from tar.scan_tar(path, needs_text)
    else:
        yield from manifest.scan_manifest(path, audio_root, needs_text)


def _scan_folder(
    folder: Path, audio_root: str | Path | None, needs_text: bool
) -> Iterator[Row | Fault]:
    if hugging_face.is_saved(folder):
        yield from hugging_face.scan_hugging_face(f"{hugging_face.PREFIX}{folder}", needs_text)
        return
    files = sorted(path for path in folder.iterdir() if path.is_file())
    manifests = [path for path in files if path.suffix.lower() in manifest.SUFFIXES]
    preferred = [path for path in manifests if path.stem.lower() in _PREFERRED] or manifests
    archives = [path for path in files if path.name.lower().endswith(tar.SUFFIXES)]
    if len(preferred) == 1:
        yield from manifest.scan_manifest(preferred[0], audio_root, needs_text)
    elif preferred:
        raise DataError(
            f"{folder}: holds several manifests, {', '.join(path.name for path in preferred)} "
            "(name the one that is meant)."
        )
    elif archives:
        for archive in archives:
            yield from tar.scan_tar(archive, needs_text)
    else:
        raise DataError(
            f"{folder}: holds no manifest, which ends in {', '.join(manifest.SUFFIXES)}, and no "
            "tar archive (name what is meant)."
        )
