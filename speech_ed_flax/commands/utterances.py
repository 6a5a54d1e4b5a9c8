"""What a manifest or a prepared folder holds, a row each, read one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

RATE = 16_000
"""Samples per second of every encoder, and of prepared folders unless they say otherwise."""


@dataclass(frozen=True)
class Utterance:
    """A stretch of sound and what is said in it.

    Attributes:
        id: its name.
        text: what is said.
        language: a tag such as ``en``; None if it is not known.
        read: returns its sound, float32 ``[samples]``; raises a SpeechError if it cannot.
    """

    id: str
    text: str
    language: str | None
    read: Callable[[], Any]  # numpy itself is imported when there is work, not for --help


@dataclass(frozen=True)
class Found:
    """The utterances of one manifest, and why other rows are none."""

    utterances: list[Utterance]
    faults: list[str]


def find_utterances(path: Path, rate: int = RATE) -> Found:
    """Finds the utterances of a manifest, or of a folder that ``prepare`` wrote.

    Args:
        path: of the manifest or folder.
        rate: at which sound is wanted, Hz.

    Raises:
        DataError: it is neither.
    """
    from speech_ed_flax.data.clips import ClipReader
    from speech_ed_flax.data.manifest import read_manifest
    from speech_ed_flax.data.store import Store

    if path.is_dir():
        store = Store.open(path, rate)
        named = zip(store.ids, store.texts, store.languages, strict=True)
        return Found(
            [Utterance(*row, partial(store.samples, number)) for number, row in enumerate(named)],
            [],
        )
    manifest, clips = read_manifest(path), ClipReader(rate)
    return Found(
        [
            Utterance(row.id, row.text, row.language, partial(clips.read, row))
            for row in manifest.rows
        ],
        list(map(str, manifest.faults)),
    )
