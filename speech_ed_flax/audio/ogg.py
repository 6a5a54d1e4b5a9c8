"""Whether the pages of an Ogg file are whole: decoders pass over those that are not (RFC 3533)."""

import io
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from speech_ed_flax.audio.errors import AudioCorruptError, AudioFormatError

_MAGIC = b"OggS"
_SUM = slice(22, 26)
_FIRST, _LAST = 2, 4  # flags of the pages at both ends of a stream
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    """A page: its bytes, and how many there should be."""

    content: bytes
    length: int

    @property
    def granule(self) -> int:
        return int.from_bytes(self.content[6:14], "little", signed=True)

    @property
    def stream(self) -> bytes:
        return self.content[14:18]

    @property
    def number(self) -> int:
        return int.from_bytes(self.content[18:22], "little")

    @property
    def is_whole(self) -> bool:
        return len(self.content) == self.length

    @property
    def is_right(self) -> bool:
        return page_sum(self.content) == int.from_bytes(self.content[_SUM], "little")


def shortfall_of_ogg(stream: io.BufferedIOBase, name: str) -> str | None:
    """Returns how an Ogg file ends early, if it does.

    Args:
        stream: of the file.
        name: of the file.

    Raises:
        AudioCorruptError: a page is damaged or missing.
        AudioFormatError: another file follows, which libsndfile would not hear.
    """
    seconds, rate, is_over = 0.0, 0, False
    numbers: dict[bytes, int] = {}
    for page in _pages(stream):
        if not page.content.startswith(_MAGIC[: len(page.content)]):
            if is_over:
                return None  # what follows the last page is no sound
            break
        if not page.is_whole:
            return "the file ends inside an Ogg page"
        if is_over and page.is_right and page.content[5] & _FIRST:
            raise AudioFormatError(
                f"{name}: Ogg files joined end to end, of which only the first would be heard "
                "(convert it to WAV or FLAC, for example with ffmpeg)"
            )
        if not page.is_right or page.number != numbers.get(page.stream, page.number):
            break
        numbers[page.stream] = page.number + 1
        rate = rate or _granules_per_second(page.content)
        if rate and page.granule > 0:
            seconds = page.granule / rate
        is_over = bool(page.content[5] & _LAST)
    else:
        return None
    raise AudioCorruptError(
        f"{name}: damaged {seconds:.2f} s from its start, a page of its Ogg stream is wrong or "
        "missing (fetch the file again)"
    )


def _pages(stream: io.BufferedIOBase) -> Iterator[_Page]:
    stream.seek(0)
    while head := stream.read(27):
        count = head[26] if len(head) == 27 else 0
        lengths = stream.read(count)
        body = stream.read(sum(lengths))
        whole = 27 + count + sum(lengths) + (count - len(lengths))
        yield _Page(head + lengths + body, whole)


def _granules_per_second(page: bytes) -> int:
    """Returns the rate that positions are counted at; 0 where the page does not tell."""
    if found := re.search(rb"\x01vorbis.{5}(.{4})", page[:200], re.DOTALL):
        return int.from_bytes(found[1], "little")
    return 48_000 if b"OpusHead" in page[:200] else 0


def page_sum(page: bytes) -> int:
    """Returns the sum of a page: the CRC of zlib with the bits of everything the other way round.

    Args:
        page: with any sum in it, which counts as zeros.
    """
    zeroed = page[: _SUM.start] + bytes(4) + page[_SUM.stop :]
    reverse = zlib.crc32(zeroed.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reverse:032b}"[::-1], 2)
