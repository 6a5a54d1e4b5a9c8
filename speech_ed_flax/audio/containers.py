"""What a file begins with: whether it is sound, and what is special in MP3 files."""

import io
import re

from speech_ed_flax.audio.errors import AudioFormatError

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


def mp3_length(stream: io.BufferedIOBase, head: bytes, name: str) -> int:
    """Returns the samples that an MP3 file counts in a Xing tag in its first frame; 0 if none."""
    start = 0
    if head.startswith(b"ID3") and len(head) >= 10:
        start = 10 + sum((byte & 0x7F) << 7 * (9 - at) for at, byte in enumerate(head[6:10], 6))
    stream.seek(start)
    frame = stream.read(200)
    tag = re.search(rb"(?:Xing|Info)\0\0\0([\x01-\x0f])(.{8})", frame, re.DOTALL)
    if tag is None or not tag[1][0] & 1:
        return 0
    if tag[1][0] & 2:
        stream.seek(start + int.from_bytes(tag[2][4:]))
        if (follows := stream.read(3)) == b"ID3" or follows[:2] == frame[:2]:
            raise AudioFormatError(
                f"{name}: MP3 files joined end to end, of which only the first would be heard "
                "(convert it to WAV or FLAC, for example with ffmpeg)"
            )
    samples = 1_152 if frame[1] & 8 else 576  # of a frame: MPEG 1, or 2
    return samples * int.from_bytes(tag[2][:4])
