"""The Markdown tables that are made of measured times."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import permutations
from statistics import median
from typing import Any, NamedTuple

from contenders.workloads import BYTES, ENTRIES

LEGEND = (
    "base: wav2vec2-base + BART-base decoder (6 layers, width 768, vocabulary 50,265), random "
    "weights, 64 forced tokens. stable: the same with the layer-norm encoder, the only one that "
    "Flax 4.57 runs. whisper: whisper-tiny.en on real speech, from log-mel features to its own "
    "end. Generation includes the encoder. Cells: median seconds (minimum to maximum), then "
    "**our time over the peer's**, median of the rounds (minimum to maximum)."
)


class Spread(NamedTuple):
    """Median, minimum and maximum."""

    middle: float
    low: float
    high: float

    @property
    def range(self) -> str:
        """Writes the minimum and the maximum."""
        return f"{number(self.low)} to {number(self.high)}"

    def __str__(self) -> str:
        return f"{number(self.middle)} ({self.range})"


def spread(values: Sequence[float]) -> Spread:
    """Summarises at least one value."""
    return Spread(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Returns our time over theirs, round by round: what slows a round slows both."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def number(value: float) -> str:
    """Writes a number with three significant digits at least, and never an exponent."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render(documents: Sequence[dict[str, Any]]) -> str:
    """Returns everything that the documents hold as Markdown; see ``inference`` for the fields."""
    workloads = [workload for document in documents for workload in document.get("workloads", [])]
    parts = {precision: _times(workloads, precision) for precision in BYTES} | {
        "Rows whose tokens equal those of ours, tokens in all": _matrix(workloads, _equal),
        "First call over later ones (compilation), peak resident memory": _matrix(
            workloads, _footprint
        ),
        "Time per token over the limit of memory": _limits(documents),
        "Cold start: whisper-tiny.en, a clip of 10 s, a fresh process": _cold_start(documents),
    }
    titled = [f"### {title}\n\n{part}" for title, part in parts.items() if part]
    return "\n\n".join([heading(documents), LEGEND, *titled]) + "\n"


def heading(documents: Sequence[dict[str, Any]]) -> str:
    """Returns what the documents were measured on, and with which packages."""
    machine = documents[0]["machine"]
    rounds = sorted({document["rounds"] for document in documents})
    versions = {
        f"{package} {version}"
        for document in documents
        for packages in document["versions"].values()
        for package, version in packages.items()
    }
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory'] / 1e9:.0f} GB, "
        f"{' '.join(machine['flags'])}; {machine['date']}; {' or '.join(map(str, rounds))} rounds, "
        f"one contender at a time; threads: {machine['threads']}; {', '.join(sorted(versions))}."
    )


def _times(workloads: list[dict[str, Any]], precision: str) -> str:
    """Returns the table of one precision, empty if we did not compute in it."""
    ours, *peers = (name for name, entry in ENTRIES.items() if entry.precision == precision)
    rows = {w["name"]: w["contenders"] for w in workloads if ours in w["contenders"]}
    peers = [peer for peer in peers if any(peer in row for row in rows.values())]
    cells = (
        [name, str(spread(row[ours]["seconds"])), *(_against(row, ours, peer) for peer in peers)]
        for name, row in rows.items()
    )
    return markdown(["seconds", ours, *peers], cells) if rows else ""


def _against(contenders: dict[str, Any], ours: str, peer: str) -> str:
    if peer not in contenders:
        return ""
    mine, theirs = (contenders[name]["seconds"] for name in (ours, peer))
    ratio = spread(ratios(mine, theirs))
    return f"{spread(theirs)}: **{number(ratio.middle)}** ({ratio.range})"


def _matrix(workloads: list[dict[str, Any]], cell: Callable[[dict[str, Any]], str]) -> str:
    """Returns a row for a workload and a column for a contender, without empty ones."""
    cells = {w["name"]: {n: cell(c) for n, c in w["contenders"].items()} for w in workloads}
    names = [name for name in ENTRIES if any(row.get(name) for row in cells.values())]
    rows = [[w, *(row.get(n, "") for n in names)] for w, row in cells.items() if any(row.values())]
    return markdown(["workload", *names], rows) if rows else ""


def _equal(contender: dict[str, Any]) -> str:
    """Returns in how many rows the tokens are ours in float32, and how many tokens there are."""
    if not contender["equal"]:
        return ""
    return "{} of {}, {}".format(*contender["equal"], contender["generated"])


def _footprint(contender: dict[str, Any]) -> str:
    """Returns what the first call costs more than later ones, and the peak of memory."""
    extra = max(contender["first"] - median(contender["seconds"]), 0)
    return f"{extra:.1f} s, {contender['peak'] / 1e9:.2f} GB"


def _limits(documents: Sequence[dict[str, Any]]) -> str:
    """Returns what the machine can do, and how near each contender's time per token comes."""
    heads = ("time per token (ms)", "weights read (MB)", "limit", "reached", "reached / limit")
    parts = []
    for document in documents:
        if not document.get("limits"):
            continue
        read, multiply = (
            part["amount"] / min(part["seconds"]) for part in document["limits"].values()
        )
        parts.append(
            f"Memory is read at {read / 1e9:.1f} GB/s at best, float32 matrices are multiplied at "
            f"{multiply / 1e9:.0f} GFLOP/s."
        )
        rows = list(_steps(document, read))
        parts += [markdown(heads, rows)] if rows else []
    return "\n\n".join(parts)


def _steps(document: dict[str, Any], read: float) -> Iterator[list[str]]:
    """Yields a row for each contender that generated two numbers of tokens of one sound."""
    alike = ("model", "task", "seconds", "batch")
    pairs = [
        (long, short)
        for long, short in permutations(document["workloads"], 2)
        if all(long[field] == short[field] for field in alike)
        and (long["tokens"] or 0) > (short["tokens"] or 0) > 0
    ]
    for long, short in pairs:
        for name in ENTRIES:
            if name not in long["contenders"] or name not in short["contenders"]:
                continue
            more, fewer = (side["contenders"][name]["seconds"] for side in (long, short))
            token = time_per_token(more, fewer, long["tokens"] - short["tokens"])
            size = document["step_parameters"][long["model"]] * BYTES[ENTRIES[name].precision]
            cells = (size / 1e6, 1e3 * size / read, 1e3 * token, token / (size / read))
            yield [f"{name}: {long['name']}", *map(number, cells)]


def time_per_token(long: Sequence[float], short: Sequence[float], tokens: int) -> float:
    """Returns the seconds of one token: what ``tokens`` more of them cost, round by round."""
    return median(a - b for a, b in zip(long, short, strict=True)) / tokens


def _cold_start(documents: Sequence[dict[str, Any]]) -> str:
    """Returns the seconds from nothing to the first transcript, stage by stage."""
    stages = ("import", "load", "first transcript", "second transcript")
    rows = [
        [start["name"]]
        + [number(median(one[stage] for one in start["rounds"])) for stage in stages]
        + [str(spread([sum(one[stage] for stage in stages[:3]) for one in start["rounds"]]))]
        for document in documents
        for start in document.get("cold_start", [])
    ]
    heads = ("seconds", *stages, "up to the first transcript")
    return markdown(heads, rows) if rows else ""
