"""Blocks of frames to blocks of mono samples at one rate."""

import numpy as np
import soxr

from speech_ed_flax.audio.errors import AudioLimitError, NonFiniteAudioError

SLOWEST_RATE, FASTEST_RATE = 4_000, 768_000  # Hz
MOST_CHANNELS = 64
LOUDEST_SAMPLE = 2.0**32  # float PCM is within +-1; beyond this, squares and sums overflow float32


class Mixer:
    """Checks blocks of frames, mixes their channels down and resamples them, one after another."""

    def __init__(
        self, name: str, source_rate: int, channels: int, rate: int, max_seconds: float | int | None
    ):
        if not SLOWEST_RATE <= source_rate <= FASTEST_RATE:
            raise AudioLimitError(
                f"{name}: a sampling rate of {source_rate} Hz (give one of {SLOWEST_RATE} to "
                f"{FASTEST_RATE} Hz)"
            )
        if not 1 <= channels <= MOST_CHANNELS:
            raise AudioLimitError(f"{name}: {channels} channels (give 1 to {MOST_CHANNELS})")
        self.frames, self.source_rate = 0, source_rate
        self._name, self._max_seconds = name, max_seconds
        self._weights = np.full(channels, 1 / channels, np.float32)
        self._resampler = None
        if source_rate != rate:
            self._resampler = soxr.ResampleStream(source_rate, rate, 1, "float32", quality="HQ")

    @property
    def seconds(self) -> float:
        """Seconds of sound so far."""
        return self.frames / self.source_rate

    def check_duration(self, frames: int) -> None:
        """Refuses what is longer than ``max_seconds``."""
        seconds = frames / self.source_rate
        if self._max_seconds is not None and seconds > self._max_seconds:
            raise AudioLimitError(
                f"{self._name}: {seconds:.1f} s of sound, {self._max_seconds:g} s are accepted "
                "(split the recording or raise the limit)"
            )

    def mix(self, block: np.ndarray) -> np.ndarray:
        """Returns float32 ``[samples]`` of a block float32 ``[frames, channels]``."""
        self.check_duration(self.frames + len(block))
        if block.size and not np.abs(block).max() <= LOUDEST_SAMPLE:  # NaN compares false
            bad = np.argwhere(~(np.abs(block) <= LOUDEST_SAMPLE))[0]
            raise NonFiniteAudioError(
                f"{self._name}: a sample of {block[tuple(bad)]:g} at "
                f"{(self.frames + bad[0]) / self.source_rate:.2f} s (float samples are within +-1)"
            )
        self.frames += len(block)
        mono = block @ self._weights  # the mean, several times faster than block.mean(axis=1)
        return self._resampler.resample_chunk(mono) if self._resampler else mono

    def rest(self) -> np.ndarray:
        """Returns float32 ``[samples]`` that the last block left; the mixer takes none after it."""
        nothing = np.empty(0, np.float32)
        if self._resampler and self.frames:
            return self._resampler.resample_chunk(nothing, last=True)
        return nothing
