"""Sound that is in memory already: arrays with their sampling rate."""

import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from speech_ed_flax.audio.errors import AudioFormatError
from speech_ed_flax.audio.mixer import MOST_CHANNELS, Mixer

_BLOCK = 8_192  # frames taken at a time


def _array_and_rate(source: Any) -> tuple[Any, Any]:
    if isinstance(source, Mapping) and {"array", "sampling_rate"} <= source.keys():
        return source["array"], source["sampling_rate"]
    if isinstance(source, tuple) and len(source) == 2:
        return source
    raise AudioFormatError(
        f"<{type(source).__name__}>: neither a path, bytes, a stream nor an array with its rate "
        "(pass (array, rate) or {'array': array, 'sampling_rate': rate})"
    )


def stream_array(source: Any, rate: int, max_seconds: float | int | None) -> Iterator[np.ndarray]:
    """Yields the samples of an array with its rate; see ``stream_audio``."""
    array, source_rate = _array_and_rate(source)
    if not isinstance(source_rate, numbers.Real) or source_rate != source_rate // 1:  # or NaN
        raise AudioFormatError("<array>: the rate is no whole number (pass (array, rate in Hz))")
    frames = _frames_by_channels(array)
    mixer = Mixer("<array>", int(float(source_rate)), frames.shape[1], rate, max_seconds)
    mixer.check_duration(len(frames))
    for start in range(0, len(frames), _BLOCK):
        yield mixer.mix(as_float(frames[start : start + _BLOCK]))
    yield mixer.rest()


def _frames_by_channels(array: Any) -> np.ndarray:
    """Returns ``[frames, channels]``; the channel axis is the shorter one, of at most 64."""
    try:
        array = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise AudioFormatError("<array>: not numbers (pass one number a sample)") from error
    if array.dtype.name not in ("uint8", "int8", "int16", "int32") and array.dtype.kind != "f":
        raise AudioFormatError(
            f"<array>: samples of type {array.dtype} (pass floats within +-1, or PCM as uint8, "
            "int8, int16 or int32)"
        )
    if array.ndim == 1 or (array.ndim == 2 and min(array.shape) <= 1):
        return array.reshape(-1, 1)
    if array.ndim == 2 and array.shape[0] != array.shape[1] and min(array.shape) <= MOST_CHANNELS:
        return array if array.shape[1] < array.shape[0] else array.T
    raise AudioFormatError(
        f"<array>: shape {array.shape} does not show which axis is channels (pass [samples] or "
        f"[samples, channels] with at most {MOST_CHANNELS} channels)"
    )


def as_float(samples: np.ndarray) -> np.ndarray:
    """Returns float32; integers are scaled by their range, and uint8 is centred on 128."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, and is reported as such
            return samples.astype(np.float32)
    offset = 128.0 if samples.dtype == np.uint8 else 0.0
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples - offset) / scale).astype(np.float32)
