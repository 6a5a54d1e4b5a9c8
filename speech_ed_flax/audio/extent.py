"""Whether all of a file is there, by what its header says, where decoders do not notice."""

import io
import math
import os
import re
import struct
from collections.abc import Callable

from speech_ed_flax.audio.errors import AudioCorruptError
from speech_ed_flax.audio.ogg import shortfall_of_ogg

_HEADER_MISTAKE = 64  # bytes: writers that count their own 44-byte header as sound are common
_UNKNOWN = 0x7F000000  # bytes: from here on, what writers to a pipe leave that cannot know better
_MOST_CHUNKS = 65_536  # more than any real file has


def shortfall(stream: io.BufferedIOBase, head: bytes, name: str) -> str | None:
    """Returns how a file falls short of its own header; None if it does not, or does not tell."""
    size = stream.seek(0, os.SEEK_END)
    if head.startswith(b"OggS"):
        return shortfall_of_ogg(stream, name)
    if head[8:12] == b"WAVE":
        return _shortfall_of_wav(stream, size, name)
    begins = (end for start, end in _ENDS.items() if re.match(start, head, re.DOTALL))
    end = max((find(stream, head) for find in begins), default=0)
    if end <= size + _HEADER_MISTAKE:
        return None
    return f"the header says {end} bytes, {size} found"


def _shortfall_of_wav(stream: io.BufferedIOBase, size: int, name: str) -> str | None:
    if not (found := _wav_data(stream)):
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
    for _ in range(_MOST_CHUNKS):
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


# --- where other files end, in bytes, as far as they tell -----------------------------------------


def _end_of_form(stream: io.BufferedIOBase, head: bytes) -> int:
    """AIFF and AVI: one chunk holds all others."""
    del stream
    length = int.from_bytes(head[4:8], "big" if head.startswith(b"FORM") else "little")
    return 8 + length if length < _UNKNOWN else 0


def _end_of_au(stream: io.BufferedIOBase, head: bytes) -> int:
    del stream
    start, length = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
    return start + length if length < _UNKNOWN else 0


def _end_of_wave64(stream: io.BufferedIOBase, head: bytes) -> int:
    del stream
    return int.from_bytes(head[16:24], "little", signed=True)


def _end_of_nist(stream: io.BufferedIOBase, head: bytes) -> int:
    stream.seek(0)
    text = stream.read(1024)
    header = re.match(rb"NIST_1A\s+(\d{1,6})\s", text)
    fields = dict(re.findall(rb"\n(\w+) -i (\d{1,15})\s", text))
    if not header or re.search(rb"\nsample_coding .*(shorten|wavpack|shortpack)", text):
        return 0
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    return int(header[1]) + math.prod(int(fields.get(name, 0)) for name in names)


def _end_of_matroska(stream: io.BufferedIOBase, head: bytes) -> int:
    """A header and one segment, whose length live recorders leave unknown: all bits are set."""
    del head
    position = 0
    for _ in range(2):
        field = _bytes_at(stream, position + 4, 8)  # behind an identifier of four bytes
        if len(field) < 8 or not field[0]:
            return 0
        width = 9 - field[0].bit_length()
        unknown = 2 ** (7 * width) - 1
        length = int.from_bytes(field[:width]) & unknown
        if length == unknown:
            return 0
        position += 4 + width + length
    return position


def _end_of_chunks(stream: io.BufferedIOBase, start: int, length: Callable[[bytes], int]) -> int:
    """Returns where the last of the chunks ends that follow each other.

    Args:
        stream: of the file.
        start: of the first chunk.
        length: of a chunk by its first 16 bytes; 0 if it is none, or its length is unknown.
    """
    position = start
    for _ in range(_MOST_CHUNKS):
        found = length(_bytes_at(stream, position, 16))
        if not found:
            return position
        position += found
    return 0


def _bytes_at(stream: io.BufferedIOBase, position: int, count: int) -> bytes:
    """Returns bytes of a file; none beyond its end, where few systems can seek far."""
    if position > stream.seek(0, os.SEEK_END):
        return b""
    stream.seek(position)
    return stream.read(count)


def _end_of_mp4(stream: io.BufferedIOBase, head: bytes) -> int:
    del head
    return _end_of_chunks(stream, 0, _mp4_box)


def _mp4_box(box: bytes) -> int:
    if box[4:8] not in _MP4_BOXES:
        return 0
    length = int.from_bytes(box[:4])
    return int.from_bytes(box[8:16]) if length == 1 else length


def _end_of_caf(stream: io.BufferedIOBase, head: bytes) -> int:
    del head
    return _end_of_chunks(stream, 8, _caf_chunk)


def _caf_chunk(chunk: bytes) -> int:
    length = int.from_bytes(chunk[4:12], signed=True)
    return 12 + length if length >= 0 and chunk[:4] in _CAF_CHUNKS else 0


def _end_of_voc(stream: io.BufferedIOBase, head: bytes) -> int:
    return _end_of_chunks(stream, int.from_bytes(head[20:22], "little"), _voc_block)


def _voc_block(block: bytes) -> int:
    """The last block is of type 0."""
    return 4 + int.from_bytes(block[1:4], "little") if 0 < sum(block[:1]) < 10 else 0


_MP4_BOXES = set(b"ftyp moov mdat free skip wide moof styp sidx mfra uuid meta udta emsg".split())
_CAF_CHUNKS = set(b"desc data pakt chan kuki info free mark regn uuid ovvw peak strg".split())
_ENDS: dict[bytes, Callable[[io.BufferedIOBase, bytes], int]] = {
    rb"FORM|RIFF....AVI ": _end_of_form,
    rb"\.snd": _end_of_au,
    rb"riff": _end_of_wave64,
    rb"NIST_1A": _end_of_nist,
    rb"\x1aE\xdf\xa3": _end_of_matroska,
    rb"....ftyp": _end_of_mp4,
    rb"caff": _end_of_caf,
    rb"Creative": _end_of_voc,
}
"""By what files begin with."""
