"""Sound from a file, bytes, a stream or an array, as mono float32 samples at one rate.

libsndfile decodes, block by block, so that a recording of any length costs little more memory than
its result. What libsndfile lets pass in silence is refused here: sound cut short, NaN, one-hertz
rates, pipes, formats guessed from a file's name, MP3 files of unknown length.
Decode workers start from this module: it imports numpy, soundfile and soxr and nothing heavier.
"""

import io
import logging
import numbers
import os
import re
import stat
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
import soxr

from speech_ed_flax.errors import AudioError

_LOGGER = logging.getLogger(__name__)

SLOWEST_RATE, FASTEST_RATE = 4_000, 768_000  # Hz
MOST_CHANNELS = 64
LOUDEST_SAMPLE = 2.0**32  # float PCM is within +-1; beyond this, squares and sums overflow float32

_BLOCK = 8_192  # frames decoded at a time, and the precision at which MP3 damage is placed
_HEADER_MISTAKE = 64  # bytes: writers that count their own 44-byte header as sound are common
_MP3_SLACK = 1_152  # frames: encoders differ in how they count their delay and padding
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's SF_COUNT_MAX


class AudioFormatError(AudioError):
    """An input that is not sound, or is sound in a form that is not read."""


class AudioTruncatedError(AudioError):
    """A file that ends before the sound its header announces."""


class AudioCorruptError(AudioError):
    """A file of a known format that the decoder cannot follow."""


class AudioLimitError(AudioError):
    """Sound whose rate, channels or duration is outside what is accepted."""


class NonFiniteAudioError(AudioError):
    """Samples that are NaN, infinite, or so large that arithmetic on them overflows."""


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
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        with _open_regular(name) as stream:
            return _read_stream(stream, name, rate, allow_truncated, max_seconds)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_stream(io.BytesIO(source), "<bytes>", rate, allow_truncated, max_seconds)
    if hasattr(source, "read"):
        name, content = str(getattr(source, "name", "<stream>")), source.read()
        if not isinstance(content, bytes):
            raise AudioFormatError(f"{name}: the stream gives text (open it in mode 'rb')")
        return _read_stream(io.BytesIO(content), name, rate, allow_truncated, max_seconds)
    return _read_array(*_array_and_rate(source), rate, max_seconds)


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


# --- what a file says of itself -------------------------------------------------------------------

_NOT_SOUND = {
    b"version https://git-lfs": ("a Git LFS pointer", "run git lfs pull"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first"),
    b"\x89PNG": ("a PNG image", "check the path"),
    b"\xff\xd8\xff": ("a JPEG image", "check the path"),
    b"%PDF": ("a PDF document", "check the path"),
    b"\x93NUMPY": ("a numpy array", "load it and pass (array, rate)"),
    b"\x1aE\xdf\xa3": ("Matroska or WebM", "convert it to WAV or FLAC, for example with ffmpeg"),
    b"\x30\x26\xb2\x75": ("Windows Media", "convert it to WAV or FLAC, for example with ffmpeg"),
    b"\xff\xf1": ("AAC", "convert it to WAV or FLAC, for example with ffmpeg"),
    b"\xff\xf9": ("AAC", "convert it to WAV or FLAC, for example with ffmpeg"),
}


def _require_sound(head: bytes, name: str) -> None:
    """Refuses what does not begin like a format of sound, saying what it looks like instead."""
    if _is_sound(head):
        return
    what, remedy = "no format of sound that is known here", "convert it to WAV or FLAC"
    if not head:
        what, remedy = "an empty file", "fetch it again"
    elif known := [entry for magic, entry in _NOT_SOUND.items() if head.startswith(magic)]:
        what, remedy = known[0]
    elif head[4:8] == b"ftyp":
        what, remedy = "MP4 or M4A", "convert it to WAV or FLAC, for example with ffmpeg"
    elif re.match(rb"\s*<(!doctype\s+html|html)", head, re.IGNORECASE):
        what, remedy = "an HTML page", "the download failed: fetch it again"
    elif not head.strip(b"\0"):
        what, remedy = "nothing but zero bytes", "fetch it again"
    elif not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", head):
        what, remedy = "text", "check the path"
    raise AudioFormatError(f"{name}: not a sound file but {what} ({remedy})")


def _is_sound(head: bytes) -> bool:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    known = (b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff", b"riff", b"NIST_1A", b"Creative")
    return head.startswith(known) or _is_mp3_frame(head)


def _is_mp3_frame(head: bytes) -> bool:
    """Tells an MPEG audio frame of layer II or III by its eleven set bits and its layer bits."""
    return len(head) > 2 and head[0] == 0xFF and head[1] >> 5 == 7 and head[1] >> 1 & 3 in (1, 2)


def _shortfall(stream: io.BufferedIOBase, head: bytes, name: str) -> str | None:
    """Returns how a container falls short of its own header, where libsndfile would not notice."""
    size = stream.seek(0, os.SEEK_END)
    if head.startswith(b"OggS"):
        return "the file ends inside an Ogg page" if _ends_inside_ogg_page(stream, size) else None
    if head[8:12] != b"WAVE" or not (found := _wav_data(stream)):
        return None
    start, length, frames_per_byte = found
    if length == 0:
        stream.seek(start)
        follows = stream.read(4)
        if follows and not re.fullmatch(rb"[ -~]{4}", follows):
            raise AudioCorruptError(
                f"{name}: the header was never finished, {size - start} bytes follow a data chunk "
                "of size 0 (repair it, for example with ffmpeg)"
            )
    # Writers to a pipe do not know the size: they leave 2**31 or nearly 2**31 or 2**32.
    if length == 0x80000000 or length | 0xFFF in (0x7FFFFFFF, 0xFFFFFFFF):
        return None
    if length <= size - start + _HEADER_MISTAKE:
        return None
    announced, present = (int(count * frames_per_byte) for count in (length, size - start))
    return f"the header says {announced} frames, {present} found"


def _wav_data(stream: io.BufferedIOBase) -> tuple[int, int, float] | None:
    """Finds where the sound of a WAV file starts, its bytes by the header, and frames per byte."""
    stream.seek(0)
    order = ">" if stream.read(4) == b"RIFX" else "<"
    position, long_length, frames_per_byte = 12, 0, 0.0
    for _ in range(256):  # more chunks than any real file has before its sound
        stream.seek(position)
        chunk = stream.read(24)
        if len(chunk) < 8:
            return None
        kind, length = struct.unpack_from(order + "4sI", chunk)
        if kind == b"data":
            return position + 8, long_length or length, frames_per_byte
        if kind == b"ds64" and len(chunk) == 24:
            (long_length,) = struct.unpack_from("<Q", chunk, 16)
        if kind == b"fmt " and len(chunk) == 24:
            frames, bytes_ = struct.unpack_from(order + "II", chunk, 12)  # both per second
            frames_per_byte = frames / max(bytes_, 1)
        position += 8 + length + length % 2
    return None


def _ends_inside_ogg_page(stream: io.BufferedIOBase, size: int) -> bool:
    stream.seek(max(0, size - 65_536))  # the largest page has 65,307 bytes
    tail = stream.read()
    start = tail.rfind(b"OggS")
    if start < 0:
        return False
    page = tail[start:]
    lacing = 27 + page[26] if len(page) > 26 else len(page) + 1
    end = lacing + sum(page[27:lacing])
    return end > len(page) or page[end:] in (b"O", b"Og", b"Ogg")


def _mp3_tells_its_length(stream: io.BufferedIOBase, head: bytes, name: str) -> bool:
    """Tells whether an MP3 file counts its frames, in a Xing tag inside the first one."""
    start = 0
    if head.startswith(b"ID3") and len(head) >= 10:
        start = 10 + sum((byte & 0x7F) << 7 * (9 - at) for at, byte in enumerate(head[6:10], 6))
    stream.seek(start)
    frame = stream.read(200)
    tag = re.search(rb"(?:Xing|Info)\0\0\0([\x01-\x0f])(.{8})", frame, re.DOTALL)
    if tag is None or not tag[1][0] & 1:
        return False
    if tag[1][0] & 2:
        stream.seek(start + int.from_bytes(tag[2][4:]))
        if (follows := stream.read(3)) == b"ID3" or follows[:2] == frame[:2]:
            raise AudioFormatError(
                f"{name}: MP3 files joined end to end, of which only the first would be heard "
                "(convert it to WAV or FLAC, for example with ffmpeg)"
            )
    return True


# --- decoding -------------------------------------------------------------------------------------


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

    def seekable(self) -> bool:
        return False


def _open_decoder(stream: io.BufferedIOBase, head: bytes, name: str) -> soundfile.SoundFile:
    is_mp3 = head.startswith(b"ID3") or _is_mp3_frame(head)
    hide_end = is_mp3 and not _mp3_tells_its_length(stream, head, name)
    stream.seek(0)
    try:
        return _Decoder(_UnseenEnd(stream) if hide_end else stream)
    except soundfile.LibsndfileError as error:
        raise AudioCorruptError(
            f"{name}: the header cannot be read, {_reason(error)} (fetch the file again)"
        ) from error


def _reason(error: soundfile.LibsndfileError) -> str:
    return f"libsndfile says {error.error_string.rstrip('.')!r}"


def _read_stream(
    stream: io.BufferedIOBase,
    name: str,
    rate: int,
    allow_truncated: bool,
    max_seconds: float | int | None,
) -> np.ndarray:
    head = stream.read(512)
    _require_sound(head, name)
    shortfall = _shortfall(stream, head, name)
    if shortfall and not allow_truncated:
        raise AudioTruncatedError(f"{name}: {shortfall} (use --allow-truncated)")
    with _open_decoder(stream, head, name) as sound:
        announced = sound.frames if sound.frames < _UNKNOWN_LENGTH else None
        mixer = _Mixer(name, sound.samplerate, sound.channels, rate, max_seconds)
        mixer.check_duration(announced or 0)
        failure = _decode(sound, mixer)
        enough = (announced or 0) - (_MP3_SLACK if sound.format == "MP3" else 0)
    complete = failure is None if announced is None else mixer.frames >= enough
    if not complete:
        if announced is None or not _end_is_missing(stream, head, name, enough, failure):
            raise AudioCorruptError(
                f"{name}: damaged {mixer.frames / mixer.source_rate:.2f} s from its start, "
                f"{_reason(failure) if failure else 'sound is missing'} (fetch the file again)"
            )
        shortfall = f"the header says {announced} frames, {mixer.frames} found"
        if not allow_truncated:
            raise AudioTruncatedError(f"{name}: {shortfall} (use --allow-truncated)")
    if shortfall:
        _LOGGER.warning("%s: %s", name, shortfall)
    return mixer.result()


def _decode(sound: soundfile.SoundFile, mixer: "_Mixer") -> soundfile.LibsndfileError | None:
    """Gives every frame that can be decoded to the mixer; returns the error that ended it early."""
    block = np.empty((_BLOCK, sound.channels), np.float32)
    while True:
        try:
            frames = len(sound.read(_BLOCK, out=block))
        except soundfile.LibsndfileError as error:
            # The frames before the damage are in the block already; only their number is lost.
            mixer.add(block[: max(0, _position(sound) - mixer.frames)])
            return error
        if frames == 0:
            return None
        mixer.add(block[:frames])


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
        # MP3 simply stops at the end of the file; in other formats _shortfall sees a missing end.
        return failure is None and not head.startswith(b"OggS")
    try:
        with _open_decoder(stream, head, name) as sound:
            sound.seek(enough - 1)
            return len(sound.read(1)) == 0
    except soundfile.LibsndfileError:
        return True


class _Mixer:
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
        self._samples = bytearray()  # grows in place: joining blocks at the end would double it
        self._resampler = None
        if source_rate != rate:
            self._resampler = soxr.ResampleStream(source_rate, rate, 1, "float32", quality="HQ")

    def check_duration(self, frames: int) -> None:
        seconds = frames / self.source_rate
        if self._max_seconds is not None and seconds > self._max_seconds:
            raise AudioLimitError(
                f"{self._name}: {seconds:.1f} s of sound, {self._max_seconds:g} s are accepted "
                "(split the recording or raise the limit)"
            )

    def add(self, block: np.ndarray) -> None:
        """Takes float32 ``[frames, channels]``."""
        self.check_duration(self.frames + len(block))
        if block.size and not np.abs(block).max() <= LOUDEST_SAMPLE:  # NaN compares false
            bad = np.argwhere(~(np.abs(block) <= LOUDEST_SAMPLE))[0]
            raise NonFiniteAudioError(
                f"{self._name}: a sample of {block[tuple(bad)]:g} at "
                f"{(self.frames + bad[0]) / self.source_rate:.2f} s (float samples are within +-1)"
            )
        self.frames += len(block)
        mono = block @ self._weights  # the mean, several times faster than block.mean(axis=1)
        self._samples += (self._resampler.resample_chunk(mono) if self._resampler else mono).data

    def result(self) -> np.ndarray:
        """Returns float32 ``[samples]`` of all blocks; the mixer takes none after this."""
        if self._resampler and self.frames:
            rest = self._resampler.resample_chunk(np.empty(0, np.float32), last=True)
            self._samples += rest.data
        return np.frombuffer(self._samples, np.float32)


# --- arrays ---------------------------------------------------------------------------------------


def _array_and_rate(source: Any) -> tuple[Any, Any]:
    if isinstance(source, Mapping) and {"array", "sampling_rate"} <= source.keys():
        return source["array"], source["sampling_rate"]
    if isinstance(source, tuple) and len(source) == 2:
        return source
    raise AudioFormatError(
        f"<{type(source).__name__}>: neither a path, bytes, a stream nor an array with its rate "
        "(pass (array, rate) or {'array': array, 'sampling_rate': rate})"
    )


def _read_array(
    array: Any, source_rate: Any, rate: int, max_seconds: float | int | None
) -> np.ndarray:
    if not isinstance(source_rate, numbers.Real) or source_rate != source_rate // 1:  # or NaN
        raise AudioFormatError("<array>: the rate is no whole number (pass (array, rate in Hz))")
    frames = _frames_by_channels(array)
    mixer = _Mixer("<array>", int(float(source_rate)), frames.shape[1], rate, max_seconds)
    mixer.check_duration(len(frames))
    for start in range(0, len(frames), _BLOCK):
        mixer.add(_as_float(frames[start : start + _BLOCK]))
    return mixer.result()


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


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Returns float32; integers are scaled by their range, and uint8 is centred on 128."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, and is reported as such
            return samples.astype(np.float32)
    offset = 128.0 if samples.dtype == np.uint8 else 0.0
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples - offset) / scale).astype(np.float32)
