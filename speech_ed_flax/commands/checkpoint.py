"""The commands ``checkpoint ...``: what a training has saved, and what can be made of it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from speech_ed_flax.commands.outcome import Outcome, UsageError
from speech_ed_flax.errors import CheckpointError

checkpoint = App(name="checkpoint", help="List, verify, export, compare and average checkpoints.")

Json = Annotated[bool, Parameter(name="--json")]
Count = Annotated[int, Parameter(validator=Number(gte=1))]


@checkpoint.command(name="ls")
def list_checkpoints(
    run: Path,
    /,
    *,
    verify: Annotated[bool, Parameter(negative="--no-verify")] = True,
    as_json: Json = False,
) -> int:
    """List the checkpoints of a training.

    Args:
        run: Folder of the training.
        verify: Read every file, and compare it with its digest.
        as_json: Print one JSON array.
    """
    folder = _checkpoints(run)
    rows = [_describe(folder, step, verify) for step in _steps(folder)]
    best, latest = _best(folder), rows[-1]["step"]
    for row in rows:
        row["best"], row["latest"] = row["step"] == best, row["step"] == latest
    print(json.dumps(rows, indent=2) if as_json else "\n".join(map(_line, rows)))
    return Outcome.DONE


@checkpoint.command
def verify(run: Path, step: str | None = None, /) -> int:
    """Read checkpoints, and compare every file with its digest.

    Ends with 5 if one is damaged, and names its first file that is.

    Args:
        run: Folder of the training.
        step: Number of the checkpoint, best or latest; all if omitted.
    """
    from speech_ed_flax.training.stored import check

    folder, outcome = _checkpoints(run), Outcome.DONE
    for path in [folder / str(n) for n in _steps(folder)] if step is None else [_find(run, step)]:
        try:
            check(path)
            print(f"{path}: whole")
        except CheckpointError as error:
            print(f"error: {error}", file=sys.stderr)
            outcome = Outcome.MISMATCH
    return outcome


@checkpoint.command
def export(
    run: Path,
    destination: Path,
    /,
    *,
    step: str | None = None,
    average: Annotated[bool | None, Parameter(negative="--no-average")] = None,
    force: bool = False,
) -> int:
    """Write the model in a checkpoint, for this package and for PyTorch transformers.

    The folder appears only when it is complete and reads back bit for bit the same.

    Args:
        run: Folder of the training.
        destination: Folder to write.
        step: Number of the checkpoint, best or latest; the best if there is one, or else the
            latest.
        average: The moving average of the parameters; what the training was judged by if omitted.
        force: Write into a folder that is not empty, in place of its weights and configs.
    """
    from speech_ed_flax.training.weights import read_params

    path = _find(run, step or ("latest" if _best(_checkpoints(run)) is None else "best"))
    _write(run, destination, read_params(path, average), force)
    print(f"{path} -> {destination}")
    return Outcome.DONE


@checkpoint.command
def average(
    run: Path,
    destination: Path,
    /,
    *,
    last: Count | None = None,
    steps: str | None = None,
    force: bool = False,
) -> int:
    """Write the model whose parameters are the mean of those in several checkpoints.

    Args:
        run: Folder of the training.
        destination: Folder to write.
        last: So many of the latest checkpoints; all that there are if omitted.
        steps: These checkpoints, such as 1000,2000,best.
        force: Write into a folder that is not empty, in place of its weights and configs.
    """
    from speech_ed_flax.training.weights import mean_params

    if last is not None and steps is not None:
        raise UsageError("--last and --steps exclude each other.")
    folder = _checkpoints(run)
    names = steps.split(",") if steps else [str(step) for step in _steps(folder)[-(last or 0) :]]
    if last is not None and len(names) < last:
        raise UsageError(f"{folder}: holds {len(names)} checkpoints, not the {last} of --last.")
    paths = [_find(run, name.strip()) for name in names]
    _write(run, destination, mean_params(paths), force)
    print(f"mean of {', '.join(path.name for path in paths)} -> {destination}")
    return Outcome.DONE


@checkpoint.command
def diff(
    run: Path,
    first: str,
    second: str,
    /,
    *,
    other: Path | None = None,
    top: Count = 20,
    as_json: Json = False,
) -> int:
    """Tell how the arrays in two checkpoints differ.

    Each line has an array's largest difference, the same in units of its largest number, and its
    name; the last one tells whether everything is equal bit for bit.

    Args:
        run: Folder of the training.
        first: Number of a checkpoint, best or latest.
        second: Number of another, best or latest.
        other: Folder of the training that the second one is of.
        top: How many arrays are shown.
        as_json: Print one JSON object.
    """
    from speech_ed_flax.commands.comparison import compare_arrays
    from speech_ed_flax.training.stored import check, read_arrays

    paths = _find(run, first), _find(other or run, second)
    for path in paths:
        check(path)
    left, right = map(read_arrays, paths)
    found, count = compare_arrays(left, right), len(left.keys() | right.keys())
    shown = found[:top]
    if as_json:
        report: dict[str, Any] = {"equal": not found, "arrays": count, "different": len(found)}
        report["differences"] = [difference.to_json() for difference in shown]
        print(json.dumps(report, indent=2))
        return Outcome.DONE
    for one in shown:
        print(f"{one.largest:9.3g}  {one.relative:9.3g}  {one.name}  {one.note}".rstrip())
    equal = f"{count} arrays, equal bit for bit"
    print(f"{len(found)} of {count} arrays differ" if found else equal)
    return Outcome.DONE


def _checkpoints(run: Path) -> Path:
    from speech_ed_flax.training.run import RunFolder

    return RunFolder(run.expanduser()).checkpoints


def _steps(folder: Path) -> list[int]:
    from speech_ed_flax.training.records import find_steps

    steps = find_steps(folder)
    if not steps:
        raise CheckpointError(f"{folder}: holds no checkpoint; name the folder of a training.")
    return steps


def _best(folder: Path) -> int | None:
    """Returns the step of the best checkpoint, as the newest one says how to choose it."""
    from speech_ed_flax.training.records import rank, read_costs, read_record

    steps = _steps(folder)
    for step in reversed(steps):
        try:
            criterion = read_record(folder / str(step)).criterion
        except CheckpointError:
            continue
        ranked = rank(read_costs(folder, steps, criterion)) if criterion else []
        return ranked[0] if ranked else None
    return None


def _find(run: Path, name: str) -> Path:
    """Returns the folder of the checkpoint with a number, or of the best or the latest one."""
    from speech_ed_flax.training.records import find_checkpoint

    folder = _checkpoints(run)
    step = {"best": _best, "latest": lambda folder: _steps(folder)[-1]}.get(name, lambda _: name)
    found = step(folder)
    if found is None:
        raise CheckpointError(f"{folder}: no checkpoint was evaluated, none is the best.")
    if not str(found).isdecimal():
        raise UsageError(f"{name!r} is no checkpoint: give a number, best or latest.")
    return find_checkpoint(folder, int(found))


def _describe(folder: Path, step: int, verified: bool) -> dict[str, Any]:
    from speech_ed_flax.training.records import read_record
    from speech_ed_flax.training.stored import check

    path = folder / str(step)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    row: dict[str, Any] = {"step": step, "metric": None, "value": None, "bytes": size}
    row |= {"whole": None, "problem": None}
    try:
        record = read_record(path)
        if record.criterion is not None:
            value = (record.metrics or {}).get(record.criterion.metric)
            row |= {"metric": record.criterion.metric, "value": value if value == value else None}
        if verified:
            check(path)
            row["whole"] = True
    except CheckpointError as error:
        row |= {"whole": False, "problem": str(error)}
    return row


def _line(row: dict[str, Any]) -> str:
    judged = "-" if row["value"] is None else f"{row['metric']} {row['value']:.4f}"
    whole = {True: "whole", False: "damaged", None: "not verified"}[row["whole"]]
    marks = [mark for mark in ("best", "latest") if row[mark]]
    columns = f"{row['step']:>9}  {judged:20}  {row['bytes']:>16,} bytes  {whole:12}"
    return f"{columns}  {' '.join(marks)}".rstrip()


def _write(run: Path, destination: Path, params: Any, force: bool) -> None:
    """Writes a model with the companions that its training keeps, and reads it back."""
    import jax

    from speech_ed_flax.commands.verification import compare
    from speech_ed_flax.staging import staging
    from speech_ed_flax.training.materials import reopen
    from speech_ed_flax.training.run import RunFolder

    destination = destination.expanduser().resolve()
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination}: it is a file; name a folder.")
    if not force and destination.is_dir() and any(destination.iterdir()):
        raise UsageError(f"{destination}: it is not empty; name another folder, or use --force.")
    model = reopen(RunFolder(run.expanduser()).model, "exact")
    params = jax.tree.map(jax.numpy.asarray, params)
    with staging(destination) as folder:
        model.save_pretrained(folder, params)
        compare(folder, params)
