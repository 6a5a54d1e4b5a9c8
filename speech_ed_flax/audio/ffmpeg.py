"""Sound of the containers that libsndfile does not read: MP4, M4A, WebM, Matroska, AAC, video.

FFmpeg decodes, through PyAV, which is an optional dependency.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from speech_ed_flax.audio.arrays import as_float
from speech_ed_flax.audio.errors import AudioCorruptError, AudioFormatError
from speech_ed_flax.audio.mixer import Mixer

_MAGIC = {
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"\x30\x26\xb2\x75": "Windows Media",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"FLV\x01": "Flash video",
}


def container_of(head: bytes) -> str | None:
    """Returns what a file that only FFmpeg reads is called; None if it is something else."""
    if head[4:8] == b"ftyp":
        return "MP4 or M4A"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "AVI"
    return next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)


def stream_container(
    stream: io.BufferedIOBase,
    what: str,
    name: str,
    rate: int,
    max_seconds: float | int | None,
) -> Iterator[np.ndarray]:
    """Yields the first audio track of a container in blocks; see ``stream_audio``.

    Args:
        stream: of the file.
        what: the container is called.
        name: of the file.
        rate: at which the sound is wanted, Hz.
        max_seconds: most that is accepted.

    Raises:
        AudioFormatError: PyAV is not installed, or there is no sound in the file.
        AudioCorruptError: FFmpeg cannot follow it.
    """
    try:
        import av
        from av.error import FFmpegError
    except ModuleNotFoundError:
        raise AudioFormatError(
            f"{name}: {what}, which needs PyAV (run pip install 'speech_ed_flax[ffmpeg]', or "
            "convert it to WAV or FLAC)"
        ) from None
    stream.seek(0)
    mixer = None
    try:
        with av.open(stream, "r") as container:
            if not container.streams.audio:
                raise AudioFormatError(f"{name}: {what} without sound (check the path)")
            for frame in container.decode(audio=0):
                samples = _samples(frame)
                if mixer is None:
                    mixer = Mixer(name, frame.sample_rate, samples.shape[1], rate, max_seconds)
                yield mixer.mix(samples)
    except FFmpegError as error:
        seconds = 0.0 if mixer is None else mixer.frames / mixer.source_rate
        raise AudioCorruptError(
            f"{name}: damaged {seconds:.2f} s from its start, FFmpeg says {error.strerror!r} "
            "(fetch the file again)"
        ) from error
    if mixer is not None:
        yield mixer.rest()


def _samples(frame: Any) -> np.ndarray:
    """Returns float32 ``[frames, channels]``."""
    planes = frame.to_ndarray()
    channels = frame.layout.nb_channels
    return as_float(planes.T if frame.format.is_planar else planes.reshape(-1, channels))
