"""Rows kept or left out by what a column of theirs says."""

from dataclasses import dataclass
from pathlib import Path

from speech_ed_flax.data.rows import Row
from speech_ed_flax.errors import ConfigError


@dataclass(frozen=True)
class Filter:
    """Keeps the rows whose column has one of some values, or leaves exactly these out.

    Attributes:
        column: its name in the source.
        values: as texts.
        keep: whether these rows are kept, or left out.
    """

    column: str
    values: frozenset[str]
    keep: bool

    @classmethod
    def parse(cls, text: str, keep: bool) -> "Filter":
        """Reads ``COLUMN=VALUE``, or ``COLUMN=FILE`` with a value on each line.

        Raises:
            ConfigError: it is neither, or the file is empty.
        """
        column, equals, value = text.partition("=")
        if not (column and equals and value):
            raise ConfigError(f"{text!r} is no filter: write COLUMN=VALUE or COLUMN=FILE.")
        values = [value]
        if Path(value).is_file():
            lines = Path(value).read_text("utf-8-sig").splitlines()
            values = [line.strip() for line in lines if line.strip()]
            if not values:
                raise ConfigError(f"{value}: holds no value to filter by.")
        return cls(column, frozenset(values), keep)

    def accepts(self, row: Row) -> bool:
        """Tells whether a row stays; one without the column does if its like is not left out."""
        return (str(row.columns.get(self.column, "")) in self.values) == self.keep
