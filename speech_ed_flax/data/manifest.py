"""Manifests: a file that names recordings and what is said in them, a row each.

A row that cannot be used is a ``Fault`` with its line and reason, never an exception.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech_ed_flax.data import parquet
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.rows import Fault, Row, column, read_row

SUFFIXES = (".jsonl", ".json", ".tsv", ".csv", parquet.SUFFIX)
"""Of manifests; both kinds of JSON hold one object a line."""

_Line = tuple[int, Mapping[str, Any] | str]
"""Number of a line, and its columns or what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds, in its order."""

    rows: tuple[Row, ...]
    faults: tuple[Fault, ...]


def read_manifest(path: str | Path, audio_root: str | Path | None = None) -> Manifest:
    """Reads a manifest; see ``scan_manifest``."""
    entries = list(scan_manifest(path, audio_root))
    return Manifest(
        tuple(entry for entry in entries if isinstance(entry, Row)),
        tuple(entry for entry in entries if isinstance(entry, Fault)),
    )


def scan_manifest(
    path: str | Path, audio_root: str | Path | None = None, needs_text: bool = True
) -> Iterator[Row | Fault]:
    """Yields the rows and faults of a manifest, in order.

    JSON lines, Parquet, or a table with a line of names: tabs in ``.tsv``, where quotes mean
    nothing, and commas in ``.csv``. Columns: ``audio`` and ``text``, optionally ``duration``,
    ``offset``, ``language`` and ``id``; the module ``rows`` has the other names they may have.
    Further columns serve only to filter by.

    Args:
        path: the manifest.
        audio_root: folder that paths in it are relative to; its own folder if omitted.
        needs_text: whether rows without text are faults.

    Raises:
        DataError: it cannot be read at all, or is no manifest.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: manifests end in {', '.join(SUFFIXES)} (rename or convert it).")
    root = os.fspath(path.parent if audio_root is None else audio_root)
    try:
        for line, columns in _lines(path, needs_text):
            yield _entry(columns, str(path), line, root, needs_text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read, {error.strerror} (check the path).") from error


def _lines(path: Path, needs_text: bool) -> Iterator[_Line]:
    needed = ("audio", "text") if needs_text else ("audio",)
    if path.suffix.lower() == parquet.SUFFIX:
        names, rows = parquet.read_parquet(path)
        _check_names(names, path, needed)
        yield from enumerate(rows, 1)
        return
    # What is not UTF-8 is found where it matters: in a text it is a fault, in a path it is not.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if path.suffix.lower() in (".json", ".jsonl"):
            yield from _json_lines(file)
        else:
            yield from _table(file, path, needed)


def _json_lines(file: Iterator[str]) -> Iterator[_Line]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            columns = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON: {error}"
            continue
        yield number, columns if isinstance(columns, dict) else "not a JSON object"


def _table(file: Iterator[str], path: Path, needed: Sequence[str]) -> Iterator[_Line]:
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield line, f"no {path.suffix[1:].upper()}: {error}"
            continue
        if fields is None:
            return
        if names is None:
            names = _check_names(fields, path, needed)
        elif len(fields) > len(names):
            yield line, f"{len(fields)} fields under {len(names)} names"
        elif fields:
            yield line, dict(zip(names, fields, strict=False))


def _check_names(fields: list[str], path: Path, needed: Sequence[str]) -> list[str]:
    named = dict.fromkeys(fields, "?")
    if any(column(named, name) is None for name in needed):
        raise DataError(
            f"{path}: columns must be named, among them {' and '.join(needed)}; the names are "
            f"{', '.join(fields)[:200]!r}."
        )
    return fields


def _entry(
    columns: Mapping[str, Any] | str, source: str, line: int, root: str, needs_text: bool
) -> Row | Fault:
    if isinstance(columns, str):
        return Fault(source, line, columns)
    audio = column(columns, "audio")
    if not isinstance(audio, str) or "\0" in audio:
        return Fault(source, line, "no audio" if audio is None else "audio is not a path")
    return read_row(columns, os.path.join(root, audio), audio, source, line, needs_text)
