"""The sound of rows: decoded, and cut out of the file that it is in."""

import io

import numpy as np
import soundfile

from speech_ed_flax.audio.errors import AudioTruncatedError
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.rows import Audio, Row
from speech_ed_flax.data.span import Span

_SLACK = 0.1  # seconds by which a row may say less or more than there is
_EXACT = ("WAV", "WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64", "CAF", "NIST")
"""Formats whose header tells the number of frames."""


class ClipReader:
    """Reads the sound of rows; keeps the last file, because rows of one recording come together."""

    def __init__(self, rate: int):
        self.rate = rate
        self._audio: Audio | None = None
        self._sound = np.empty(0, np.float32)

    def read(self, row: Row, max_seconds: float | int | None = None) -> np.ndarray:
        """Returns float32 ``[samples]`` at ``rate``.

        Args:
            row: where the sound is.
            max_seconds: longer files are refused, of which the row is all.

        Raises:
            AudioError: the file cannot be decoded, is too long, or ends before the row does.
            DataError: the row says another duration than the file has.
        """
        whole = self._read_file(row, max_seconds)
        seconds = len(whole) / self.rate
        if row.offset is None:
            if row.duration is not None and abs(row.duration - seconds) > _slack(seconds):
                raise DataError(
                    f"{row.id}: the row says {row.duration:.2f} s, the recording has {seconds:.2f} "
                    "(correct the row, or give an offset)"
                )
            return whole
        end = row.offset + (row.duration or 0.0)
        if end > seconds + _slack(seconds):
            raise AudioTruncatedError(
                f"{row.id}: the row ends at {end:.2f} s, its recording at {seconds:.2f} s "
                "(correct the row)"
            )
        return whole[round(row.offset * self.rate) : round(end * self.rate)]

    def _read_file(self, row: Row, max_seconds: float | int | None) -> np.ndarray:
        if row.offset is None:
            return read_audio(_source(row.audio), self.rate, max_seconds=max_seconds)
        if row.audio != self._audio:
            self._sound = read_audio(_source(row.audio), self.rate)
            self._audio = row.audio
        return self._sound


def measure(row: Row, rate: int) -> int:
    """Returns how many samples a row has at ``rate``, from its own duration or its file's header.

    Only where neither tells is the file decoded.

    Raises:
        AudioError: the file cannot be opened or decoded.
    """
    if row.duration is not None:
        return round(row.duration * rate)
    source = _source(row.audio)
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as it:
            if it.format in _EXACT:
                return -(-it.frames * rate // it.samplerate)
    except (OSError, soundfile.LibsndfileError):
        pass  # what is wrong with it is said by the decoder
    return len(read_audio(source, rate))


def name_of(audio: Audio) -> str:
    """Returns what sound is called in messages and tables."""
    if isinstance(audio, Span):
        return audio.name
    return "<bytes>" if isinstance(audio, bytes) else audio


def _source(audio: Audio) -> str | bytes:
    return audio.read() if isinstance(audio, Span) else audio


def _slack(seconds: float) -> float:
    return max(_SLACK, 0.01 * seconds)


def check_length(clip: np.ndarray, expected: int, rate: int, name: str) -> None:
    """Raises DataError if a clip is not as long as it was when batches were planned."""
    if abs(len(clip) - expected) > _slack(expected / rate) * rate:
        raise DataError(
            f"{name}: {len(clip) / rate:.2f} s of sound, {expected / rate:.2f} s were planned "
            "(the recording has changed since: plan again)"
        )
