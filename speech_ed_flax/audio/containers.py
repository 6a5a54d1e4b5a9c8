"""What a file says of itself: whether it is sound, and whether all of it is there."""

import io
import os
import re
import struct

from speech_ed_flax.audio.errors import AudioCorruptError, AudioFormatError

_HEADER_MISTAKE = 64  # bytes: writers that count their own 44-byte header as sound are common

_NOT_SOUND = {
    b"version https://git-lfs": ("a Git LFS pointer", "run git lfs pull"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first"),
    b"\x89PNG": ("a PNG image", "check the path"),
    b"\xff\xd8\xff": ("a JPEG image", "check the path"),
    b"%PDF": ("a PDF document", "check the path"),
    b"\x93NUMPY": ("a numpy array", "load it and pass (array, rate)"),
}


def require_sound(head: bytes, name: str) -> None:
    """Refuses what does not begin like a format of sound, saying what it looks like instead."""
    if _is_sound(head):
        return
    what, remedy = "no format of sound that is known here", "convert it to WAV or FLAC"
    if not head:
        what, remedy = "an empty file", "fetch it again"
    elif known := [entry for magic, entry in _NOT_SOUND.items() if head.startswith(magic)]:
        what, remedy = known[0]
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
    return head.startswith(known) or is_mp3_frame(head)


def is_mp3_frame(head: bytes) -> bool:
    """Tells an MPEG audio frame of layer II or III by its eleven set bits and its layer bits."""
    return len(head) > 2 and head[0] == 0xFF and head[1] >> 5 == 7 and head[1] >> 1 & 3 in (1, 2)


def shortfall(stream: io.BufferedIOBase, head: bytes, name: str) -> str | None:
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


def mp3_tells_its_length(stream: io.BufferedIOBase, head: bytes, name: str) -> bool:
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
