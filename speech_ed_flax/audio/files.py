"""Sound from a file, bytes, a stream or an array, as mono float32 samples at one rate.

libsndfile decodes, block by block: a recording of any length can be heard in little memory. What
libsndfile lets pass in silence is refused here: sound cut short, NaN, one-hertz rates, pipes,
formats guessed from a file's name, MP3 files of unknown length.
Decode workers start from this module: it imports numpy, soundfile and soxr and nothing heavier.
"""

import io
import logging
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, cast

import numpy as np
import soundfile

from speech_ed_flax.audio.arrays import stream_array
from speech_ed_flax.audio.containers import (
    is_mp3_frame,
    mp3_length,
    require_sound,
)
from speech_ed_flax.audio.errors import (
    AudioCorruptError,
    AudioFormatError,
    AudioTruncatedError,
)
from speech_ed_flax.audio.extent import shortfall
from speech_ed_flax.audio.ffmpeg import container_of, stream_container
from speech_ed_flax.audio.mixer import Mixer
from speech_ed_flax.errors import AudioError

_LOGGER = logging.getLogger(__name__)

_BLOCK = 8_192  # frames decoded at a time, and the precision at which MP3 damage is placed
_MP3_SLACK = 1_152  # frames: encoders differ in how they count their delay and padding
_MP3_PADDING = 8_190  # frames: most that the tag of an encoder has to be left out
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's SF_COUNT_MAX


def read_audio(
    source: Any,
    rate: int = 16_000,
    *,
    allow_truncated: bool = False,
    max_seconds: float | int | None = None,
) -> np.ndarray:
    """Returns the sound of ``source``, mixed down to one channel and resampled.

    Args:
        source: A path to a regular file; the bytes of one; an object with ``read()`` giving bytes;
            ``(array, rate)``; or ``{"array": array, "sampling_rate": rate}``. Arrays are float or
            PCM integers, ``[samples]``, ``[samples, channels]`` or ``[channels, samples]``.
        rate: Sampling rate of the result, in Hz.
        allow_truncated: Keeps what there is of a file cut short, and logs a warning.
        max_seconds: Longest duration accepted; where a file tells its duration, it is refused
            before anything is decoded.

    Returns:
        float32 ``[samples]``; of length zero where the input holds no sound.

    Raises:
        AudioError: One of this module's errors, or ``AudioError`` itself where a file cannot be
            opened. The message names the input.
    """
    samples = bytearray()  # grows in place: joining blocks at the end would double it
    blocks = stream_audio(source, rate, allow_truncated=allow_truncated, max_seconds=max_seconds)
    for block in blocks:
        samples += block.data
    return np.frombuffer(samples, np.float32)


def stream_audio(
    source: Any,
    rate: int = 16_000,
    *,
    allow_truncated: bool = False,
    max_seconds: float | int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the sound of ``source`` in blocks float32 ``[samples]``, holding one at a time.

    Arguments and errors are those of ``read_audio``. Damage inside a file is found when the sound
    before it has been yielded already.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        with _open_regular(name) as stream:
            try:
                yield from _stream(stream, name, rate, allow_truncated, max_seconds)
            except OSError as error:
                raise AudioError(
                    f"{name}: cannot be read, {error.strerror} (check the disk)"
                ) from error
    elif isinstance(source, (bytes, bytearray, memoryview)):
        content = io.BytesIO(source)
        yield from _stream(content, "<bytes>", rate, allow_truncated, max_seconds)
    elif hasattr(source, "read"):
        name, content = str(getattr(source, "name", "<stream>")), source.read()
        if not isinstance(content, bytes):
            raise AudioFormatError(f"{name}: the stream gives text (open it in mode 'rb')")
        yield from _stream(io.BytesIO(content), name, rate, allow_truncated, max_seconds)
    else:
        yield from stream_array(source, rate, max_seconds)


def _open_regular(path: str) -> io.BufferedIOBase:
    """Opens a regular file; anything else could block for ever or never end."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise AudioFormatError(f"{path}: is a directory (name the files in it)")
        if not stat.S_ISREG(mode):
            raise AudioFormatError(f"{path}: is not a regular file (save it to a file first)")
        # Opened by number, because soundfile takes a format from the name of a stream: a WAV file
        # called x.raw would be read as headerless samples.
        return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")
    except FileNotFoundError as error:
        raise AudioError(f"{path}: no such file (check the path)") from error
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened, {error.strerror} (check the file)") from error


class _UnseenEnd:
    """Hides the length of a stream.

    For an MP3 file without a Xing tag libsndfile estimates the number of frames from the size of
    the file, and stops there, however much sound is left. If it cannot know the size, it counts.
    """

    def __init__(self, stream: io.BufferedIOBase):
        self._stream, self._at_end = stream, False
        self.readinto = stream.readinto

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at_end = whence == os.SEEK_END
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError):  # before the start, in files of a few bytes
            return self._stream.seek(0)

    def tell(self) -> int:
        return _UNKNOWN_LENGTH if self._at_end else self._stream.tell()


class _Decoder(soundfile.SoundFile):
    """Reads forward only: soundfile would otherwise seek after every block, and fail at the end."""

    def __init__(self, stream: io.BufferedIOBase | _UnseenEnd):
        super().__init__(cast(Any, stream))

    def seekable(self) -> bool:
        return False


def _open_decoder(stream: io.BufferedIOBase, head: bytes, name: str) -> soundfile.SoundFile:
    is_mp3 = head.startswith(b"ID3") or is_mp3_frame(head)
    length = mp3_length(stream, head, name) if is_mp3 else 0
    stream.seek(0)
    try:
        return _open_mp3(stream, length) if is_mp3 else _Decoder(stream)
    except soundfile.LibsndfileError as error:
        raise AudioCorruptError(
            f"{name}: the header cannot be read, {_reason(error)} (fetch the file again)"
        ) from error


def _open_mp3(stream: io.BufferedIOBase, length: int) -> soundfile.SoundFile:
    """Opens an MP3 file of so many samples by its tag, or of an unknown number if that is 0."""
    if length:
        with suppress(soundfile.LibsndfileError):
            sound = _Decoder(stream)
            if abs(sound.frames - length) <= _MP3_PADDING:
                return sound
        stream.seek(0)  # the decoder has not understood the tag, and estimates
    return _Decoder(_UnseenEnd(stream))


def _reason(error: soundfile.LibsndfileError) -> str:
    if error.error_string.startswith("File does not exist"):
        return "its frames cannot be found"  # of MP3 files
    return f"libsndfile says {error.error_string.rstrip('.')!r}"


def _stream(
    stream: io.BufferedIOBase,
    name: str,
    rate: int,
    allow_truncated: bool,
    max_seconds: float | int | None,
) -> Iterator[np.ndarray]:
    head = stream.read(512)
    container = container_of(head)
    if container is None:
        require_sound(head, name)
    missing = shortfall(stream, head, name)
    if missing and not allow_truncated:
        raise AudioTruncatedError(f"{name}: {missing} (use --allow-truncated)")
    if container is not None:
        yield from stream_container(stream, container, name, rate, max_seconds, bool(missing))
        if missing:
            _LOGGER.warning("%s: %s", name, missing)
        return
    with _open_decoder(stream, head, name) as sound:
        announced = sound.frames if sound.frames < _UNKNOWN_LENGTH else None
        mixer = Mixer(name, sound.samplerate, sound.channels, rate, max_seconds)
        mixer.check_duration(announced or 0)
        failure = yield from _decode(sound, mixer)
        yield mixer.rest()
        enough = (announced or 0) - (_MP3_SLACK if sound.format == "MP3" else 0)
    complete = failure is None if announced is None else mixer.frames >= enough
    if not complete:
        if announced is None or not _end_is_missing(stream, head, name, enough, failure):
            raise AudioCorruptError(
                f"{name}: damaged {mixer.seconds:.2f} s from its start, "
                f"{_reason(failure) if failure else 'sound is missing'} (fetch the file again)"
            )
        missing = f"the header says {announced} frames, {mixer.frames} found"
        if not allow_truncated:
            raise AudioTruncatedError(f"{name}: {missing} (use --allow-truncated)")
    if missing:
        _LOGGER.warning("%s: %s", name, missing)


def _decode(
    sound: soundfile.SoundFile, mixer: Mixer
) -> Generator[np.ndarray, None, soundfile.LibsndfileError | None]:
    """Yields every frame that can be decoded, mixed; returns the error that ended it early."""
    block = np.empty((_BLOCK, sound.channels), np.float32)
    while True:
        try:
            frames = len(sound.read(_BLOCK, out=block))
        except soundfile.LibsndfileError as error:
            # The frames before the damage are in the block already; only their number is lost.
            yield mixer.mix(block[: max(0, _position(sound) - mixer.frames)])
            return error
        if frames == 0:
            return None
        yield mixer.mix(block[:frames])


def _position(sound: soundfile.SoundFile) -> int:
    try:
        return sound.tell()
    except soundfile.LibsndfileError:
        return 0


def _end_is_missing(
    stream: io.BufferedIOBase, head: bytes, name: str, enough: int, failure: Exception | None
) -> bool:
    """Tells a missing end from damage before it, where fewer frames came than were announced."""
    if not head.startswith(b"fLaC"):
        # MP3 simply stops at the end of the file; in other formats shortfall sees a missing end.
        return failure is None and not head.startswith(b"OggS")
    try:
        with _open_decoder(stream, head, name) as sound:
            sound.seek(enough - 1)
            return len(sound.read(1)) == 0
    except soundfile.LibsndfileError:
        return True
