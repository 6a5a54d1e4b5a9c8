"""The command ``prepare``: recordings with texts, checked and packed for training."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from speech_ed_flax.commands.outcome import Outcome, UsageError

if TYPE_CHECKING:
    from speech_ed_flax.data.prepare import Summary
    from speech_ed_flax.data.rows import Fault, Row

_REJECTED = "rejected.tsv"
_SHOWN = 5  # rejected rows that are said on stderr

Seconds = Annotated[float, Parameter(validator=Number(gte=0))]


def prepare(
    source: list[str],
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    min_seconds: Seconds = 0.1,
    max_seconds: Seconds = 30.0,
    rate: Annotated[int, Parameter(validator=Number(gte=4_000, lte=192_000))] = 16_000,
    text: Literal["as-is", "lower", "upper"] = "as-is",
    where: list[str] | None = None,
    without: list[str] | None = None,
    audio_root: Path | None = None,
    max_bad_fraction: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 1.0,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 1,
    quiet: Annotated[bool, Parameter(alias="-q")] = False,
) -> int:
    """Check and pack recordings with their texts, for training.

    Decodes every row, and writes a folder of FLAC that trainings read at random.
    Rows that cannot be used are listed in its rejected.tsv, with the reason. Ends
    with 3 if there are such rows. Ends with 4 if no row is left or too many are
    bad: then the list is written beside the output, and nothing else.

    Args:
        source: Manifests (.jsonl, .tsv, .csv, .parquet with columns audio and text), tar archives,
            folders of either, or hf:NAME:CONFIG:SPLIT of Hugging Face.
        output: Folder to write.
        min_seconds: Shorter rows are rejected.
        max_seconds: Longer rows are rejected.
        rate: Samples per second that all sound is resampled to.
        text: What to do with the case of texts.
        where: Keep the rows with COLUMN=VALUE, or COLUMN=FILE of values; may be repeated.
        without: Leave out such rows; may be repeated.
        audio_root: Folder that paths of manifests are relative to; their own if omitted.
        max_bad_fraction: Largest share of rejected rows with which the folder is written.
        workers: Processes that decode; with 0 this one does.
        quiet: Say nothing on stderr but errors.
    """
    from speech_ed_flax.data.prepare import Checks
    from speech_ed_flax.data.prepare import prepare as pack
    from speech_ed_flax.staging import staging

    output = _empty(output)
    selected = _Selected(source, audio_root, where or (), without or ())
    checks = Checks(rate, min_seconds, max_seconds, text)
    try:
        with staging(output) as folder, _progress(not quiet) as advance:
            summary = pack(selected, folder, checks, workers, advance)
            if not summary.rows or summary.bad_fraction > max_bad_fraction:
                raise _Refused(summary)
            _list_faults(summary.faults, folder / _REJECTED)
    except _Refused as refused:
        return _refuse(refused.summary, output)
    _say(summary.faults, output / _REJECTED)
    left_out = f", {selected.left_out} left out" if selected.left_out else ""
    hours = f"{summary.rows} rows, {summary.seconds / 3600:.2f} hours"
    print(f"{output}: {hours}, {len(summary.faults)} rejected{left_out}")
    return Outcome.SOME_FAILED if summary.faults else Outcome.DONE


class _Refused(Exception):  # noqa: N818 - a way out of the staging folder, not an error
    """Too many rows are bad for the folder to be written."""

    def __init__(self, summary: "Summary"):
        self.summary = summary


class _Selected:
    """The rows of all sources that the filters let through, and how many they do not."""

    def __init__(
        self,
        sources: Sequence[str],
        audio_root: Path | None,
        where: Sequence[str],
        without: Sequence[str],
    ):
        from speech_ed_flax.data.filters import Filter

        self._sources, self._audio_root = sources, audio_root
        self._filters = [Filter.parse(each, keep=True) for each in where]
        self._filters += [Filter.parse(each, keep=False) for each in without]
        self.left_out = 0

    def __iter__(self) -> "Iterator[Row | Fault]":
        from speech_ed_flax.data.rows import Fault
        from speech_ed_flax.data.sources import scan_source

        unseen = {each.column for each in self._filters}
        for source in self._sources:
            for entry in scan_source(source, self._audio_root):
                if not isinstance(entry, Fault):
                    unseen -= entry.columns.keys()
                    if not all(each.accepts(entry) for each in self._filters):
                        self.left_out += 1
                        continue
                yield entry
        if unseen:
            raise UsageError(f"no row has a column {min(unseen)!r} to filter by.")


def _empty(output: Path) -> Path:
    output = output.expanduser().resolve()
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: it is a file; name a folder.")
    if output.is_dir() and any(output.iterdir()):
        raise UsageError(f"{output}: it is not empty; name another folder.")
    return output


def _refuse(summary: "Summary", output: Path) -> Outcome:
    """Leaves nothing but the list of rejected rows, beside the folder that is not written."""
    path = output.with_name(f"{output.name}.{_REJECTED}")
    _list_faults(summary.faults, path)
    _say(summary.faults, path)
    found = f"{len(summary.faults)} of {summary.rows + len(summary.faults)} rows are rejected"
    print(
        f"error: {output}: not written, {found if summary.faults else 'no row is left'}.",
        file=sys.stderr,
    )
    return Outcome.ALL_FAILED


def _list_faults(faults: "Sequence[Fault]", path: Path) -> None:
    """Writes a table of the rejected rows, if there are any."""
    from speech_ed_flax.commands.output import to_line
    from speech_ed_flax.conversion.replacement import replacing

    if not faults:
        return
    lines = ["source\tline\tid\treason"]
    for fault in faults:
        fields = (fault.source, str(fault.line), fault.id, fault.reason)
        lines.append("\t".join(map(to_line, fields)))
    with replacing(path) as temporary:
        temporary.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))


def _say(faults: "Sequence[Fault]", path: Path) -> None:
    for fault in faults[:_SHOWN]:
        print(f"error: {fault}", file=sys.stderr)
    if len(faults) > _SHOWN:
        print(f"error: {len(faults) - _SHOWN} more are in {path}", file=sys.stderr)


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[], None]]:
    """Yields what is to be called after each row; it counts on stderr, if that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("preparing {task.completed:.0f} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        task = progress.add_task("", total=None)
        yield lambda: progress.advance(task)
