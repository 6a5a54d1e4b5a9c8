"""The command ``transcribe``: many recordings in, text out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from speech_ed_flax.commands.engine import Engine
from speech_ed_flax.commands.interruption import first_interrupt
from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.commands.progress import Tally, progress_bar, reporter
from speech_ed_flax.commands.recognition import MANY, Recognition, Work, embedded
from speech_ed_flax.commands.recordings import (
    Recording,
    find_recordings,
    refuse_collisions,
    share,
)
from speech_ed_flax.commands.shards import own_shard

Format = Literal["txt", "json", "jsonl", "srt", "vtt", "tsv", "all"]
Number0 = Annotated[int, Parameter(validator=Number(gte=0))]


@Parameter(name="*", group="Details")
@dataclass(frozen=True, kw_only=True)
class Details:
    """What is said of a recording besides its text.

    Attributes:
        n_best: Further texts of each segment, in JSON; needs as many more beams.
        word_timestamps: When each word begins and ends, in JSON.
        log_prob_threshold: Suppress texts whose tokens are less likely on average.
        compression_ratio_threshold: Suppress texts that repeat themselves more, and run on.
        reference: Manifest with the true texts: say on stderr how many words were wrong.
    """

    n_best: Number0 = 0
    word_timestamps: bool = False
    log_prob_threshold: float = -2.0
    compression_ratio_threshold: float = 2.4
    reference: Path | None = None

    def settings(self) -> dict[str, Any]:
        """Returns the settings of ``FlaxSpeechEncoderDecoderModel.transcriber``."""
        from speech_ed_flax.transcription import Thresholds

        thresholds = Thresholds(self.log_prob_threshold, self.compression_ratio_threshold)
        return {
            "alternatives": self.n_best,
            "word_timestamps": self.word_timestamps,
            "thresholds": thresholds,
        }


@dataclass(frozen=True)
class Results:
    """Where results go: to files below ``folder``, or to stdout if there is none."""

    folder: Path | None
    kinds: tuple[str, ...]
    several: bool

    def has(self, recording: Recording) -> bool:
        """Tells whether every file of a recording's results is there already."""
        from speech_ed_flax.commands.output import result_files

        files = result_files(self.folder / recording.stem, self.kinds) if self.folder else []
        return bool(files) and all(path.exists() for path in files)

    def writer(self, recording: Recording) -> Any:
        """Returns what writes the transcript of a recording."""
        from speech_ed_flax.commands.output import Files, Printer

        if self.folder is None:
            return Printer(self.kinds[0], self.several)
        return Files(self.folder / recording.stem, self.kinds)


_RECOGNITION, _DETAILS, _ENGINE = Recognition(), Details(), Engine()


def transcribe(
    audio: list[Path],
    /,
    *,
    model: Annotated[str | None, Parameter(alias="-m")] = None,
    output_dir: Annotated[Path | None, Parameter(alias="-o")] = None,
    format: Annotated[Format, Parameter(alias="-f")] = "txt",
    recursive: bool = False,
    shard: str = "1/1",
    skip_existing: bool = False,
    on_error: Literal["skip", "stop"] = "skip",
    workers: Number0 | None = None,
    quiet: Annotated[bool, Parameter(alias="-q")] = False,
    local_files_only: bool = False,
    recognition: Recognition = _RECOGNITION,
    details: Details = _DETAILS,
    engine: Engine = _ENGINE,
) -> int:
    """Turn recordings into text.

    Text goes to stdout as soon as it is known: for a single file the text alone,
    else path, tab and text on one line; with -f json one JSON object on one line.
    Ends with 3 if some recordings failed, with 4 if all did or the model is
    unusable. Ctrl-C finishes the recordings that have begun, and ends with 130.

    Args:
        audio: Files of any rate, channels and length; folders of them; patterns; manifests
            (.jsonl, .tsv, .csv, .parquet); tar archives; - for stdin.
        model: Folder of a checkpoint, or its name on the Hub; if omitted, the small model that
            comes with the package and hears letters, numbers, dates and a few commands.
        output_dir: Write a file for each recording and format there, instead of to stdout.
        format: What to write; srt, vtt and tsv go to stdout for a single file only.
        recursive: Take the whole trees below folders, and keep them in the output folder.
        shard: K/N: only the Kth of N parts of the recordings, in each of N processes; auto: as
            Slurm, Open MPI or a TPU pod has numbered them.
        skip_existing: Keep results that are in the output folder already.
        on_error: What to do after a recording that cannot be read.
        workers: Processes that decode sound; one for many recordings if omitted, 0 for none.
        quiet: Say nothing on stderr but errors.
        local_files_only: Stay off the network.
        recognition: How speech becomes text.
        details: What is said besides it.
        engine: Where the work is done.
    """
    found = find_recordings(audio, recursive)
    several = len(found.recordings) != 1 or len(audio) > 1 or audio[0].is_dir()
    results = _results(several, output_dir, format, skip_existing)
    if output_dir is not None:
        refuse_collisions(found.recordings)
        output_dir.mkdir(parents=True, exist_ok=True)
    mine = share(found.recordings, own_shard() if shard == "auto" else shard)
    left = [r for r in mine if not (skip_existing and results.has(r))]
    tally = Tally(kept=len(mine) - len(left))
    for fault in found.faults:
        tally.fail(fault)
    if left and not (found.faults and on_error == "stop"):
        if workers is None:
            workers = int(len(left) > MANY or engine.engine == "ray")
        settings = recognition.settings([recording.seconds for recording in left])
        settings |= {"workers": workers} | details.settings()
        report = reporter(quiet)
        name = model or embedded(report)
        work = Work(name, recognition, settings, local_files_only, len(left) > MANY)
        transcriber = engine.begin(work, len(left), report)
        texts = _transcribe(transcriber, left, results, tally, on_error == "stop", not quiet)
        if details.reference is not None:
            _compare(details.reference, texts)
        tally.usage = transcriber.usage
    if not quiet:
        print(tally.summary(), file=sys.stderr)
    return tally.outcome()


def _results(several: bool, folder: Path | None, kind: str, skip_existing: bool) -> Results:
    """Returns where results go, unless the arguments contradict each other."""
    from speech_ed_flax.commands.output import FORMATS

    if folder is None and skip_existing:
        raise UsageError("--skip-existing needs --output-dir: results on stdout are not kept.")
    if folder is None and (kind == "all" or (several and kind in ("srt", "vtt", "tsv"))):
        raise UsageError(f"--format {kind} needs --output-dir: it does not fit on one stdout.")
    return Results(folder, tuple(FORMATS) if kind == "all" else (kind,), several)


def _transcribe(
    transcriber: Any,
    recordings: Sequence[Recording],
    results: Results,
    tally: Tally,
    stop: bool,
    shown: bool,
) -> dict[str, str]:
    """Transcribes recordings in order, writing what is known; returns their texts by name."""
    from speech_ed_flax.transcription import Job, Transcript

    waiting, writer, texts = iter(recordings), None, {}
    # On a terminal that shows the results as they come, they are the progress.
    shown = shown and (results.folder is not None or not sys.stdout.isatty())
    try:
        with (
            progress_bar(len(recordings), shown) as advance,
            first_interrupt(finish=len(recordings) > 1 and transcriber.lazy) as interrupted,
        ):
            wanted = takewhile(lambda _: not interrupted(), recordings)
            jobs = (Job(r.source, r.name, r.offset, r.duration) for r in wanted)
            for event in transcriber.follow(jobs):
                writer = writer or results.writer(next(waiting))
                if not isinstance(event, Transcript):
                    writer.add(event)
                    continue
                writer.end(event)
                writer = None
                if event.error is None:
                    tally.succeed(event.duration)
                    texts[event.source] = event.text
                else:
                    tally.fail(event.error)
                    if stop:
                        break
                advance()
        if interrupted() and next(waiting, None):
            tally.interrupted = True
    finally:
        if writer is not None and results.folder is not None:
            writer.drop()
    return texts


def _compare(manifest: Path, texts: dict[str, str]) -> None:
    """Says on stderr how far texts are from those of a manifest, case and punctuation aside."""
    from speech_ed_flax.data.manifest import read_manifest
    from speech_ed_flax.metrics import score

    rows = {key: row for row in read_manifest(manifest).rows for key in (row.id, str(row.audio))}
    pairs = [(rows[name].text, text) for name, text in texts.items() if name in rows]
    if not pairs:
        print(f"{manifest}: names none of the recordings", file=sys.stderr)
        return
    references, hypotheses = zip(*pairs, strict=True)
    scores = score(references, hypotheses, ("wer", "cer", "bleu"), normalizer="basic", bootstrap=0)
    values = {name: found.value for name, found in scores.metrics.items()}
    print(
        f"{len(pairs)} of {len(texts)} compared: WER {100 * values['wer']:.2f} %, "
        f"CER {100 * values['cer']:.2f} %, BLEU {values['bleu']:.1f}",
        file=sys.stderr,
    )
