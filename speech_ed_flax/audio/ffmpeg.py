"""Sound of the containers that libsndfile does not read: MP4, M4A, WebM, Matroska, AAC, video.

FFmpeg decodes, through PyAV, which is an optional dependency.
"""

import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from speech_ed_flax.audio.arrays import as_float
from speech_ed_flax.audio.errors import AudioCorruptError, AudioFormatError
from speech_ed_flax.audio.mixer import Mixer

_LOGGER = logging.getLogger(__name__)

_SLACK = 0.5  # seconds: codecs begin and end a little beside what headers say
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
    is_cut: bool = False,
) -> Iterator[np.ndarray]:
    """Yields the first audio track of a container in blocks; see ``stream_audio``.

    Args:
        stream: of the file.
        what: the container is called.
        name: of the file.
        rate: at which the sound is wanted, Hz.
        max_seconds: most that is accepted.
        is_cut: whether its end is missing: what there is of it is yielded.

    Raises:
        AudioFormatError: PyAV is not installed, there is no sound in the file, or it changes its
            rate or channels on the way.
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
    mixer, first, announced = None, None, 0.0
    try:
        # Tags in another encoding than UTF-8 are common, and of no interest.
        with av.open(stream, "r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioFormatError(f"{name}: {what} without sound (check the path)")
            announced = _announced(container)
            for frame in container.decode(audio=0):
                samples = _samples(frame)
                form = (frame.sample_rate, samples.shape[1])
                if mixer is None:
                    mixer, first = Mixer(name, *form, rate, max_seconds), form
                if form != first:
                    raise AudioFormatError(
                        f"{name}: its rate or channels change {mixer.seconds:.2f} s from its "
                        "start (convert it to WAV or FLAC)"
                    )
                yield mixer.mix(samples)
    except FFmpegError as error:
        if mixer is None or not is_cut:
            raise AudioCorruptError(
                f"{name}: damaged {mixer.seconds if mixer else 0:.2f} s from its start, FFmpeg "
                f"says {error.strerror!r} (fetch the file again)"
            ) from error
    if mixer is not None:
        yield mixer.rest()
    heard = 0.0 if mixer is None else mixer.seconds
    if not is_cut and heard < announced - _SLACK:
        _LOGGER.warning("%s: %.2f s of sound found, its header says %.2f s", name, heard, announced)


def _announced(container: Any) -> float:
    """Returns the seconds of sound that a header tells; 0 where FFmpeg can only estimate them."""
    sound = container.streams.audio[0]
    if container.format.name == "aac":
        return 0.0
    if sound.duration is not None:
        return float(sound.duration * sound.time_base)
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _samples(frame: Any) -> np.ndarray:
    """Returns float32 ``[frames, channels]``."""
    planes = frame.to_ndarray()
    channels = frame.layout.nb_channels
    return as_float(planes.T if frame.format.is_planar else planes.reshape(-1, channels))
