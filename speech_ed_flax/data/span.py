"""Bytes inside a file, such as a member of a tar archive."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Where bytes are; nothing is read before they are asked for.

    Attributes:
        path: of the file.
        start: of the bytes in it.
        size: how many.
        name: what they are called in messages.
    """

    path: str
    start: int
    size: int
    name: str

    def read(self) -> bytes:
        """Returns the bytes.

        Raises:
            OSError: if the file cannot be read.
        """
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size)
