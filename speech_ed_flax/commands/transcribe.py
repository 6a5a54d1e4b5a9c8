"""The command ``transcribe``: many recordings in, text out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.commands.progress import Tally, progress_bar
from speech_ed_flax.commands.recordings import Recording, find_recordings, refuse_collisions

Format = Literal["txt", "json", "jsonl", "srt", "vtt", "tsv", "all"]
Count = Annotated[int, Parameter(validator=Number(gte=1))]


@Parameter(name="*", group="Recognition")
@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How speech becomes text.

    Attributes:
        batch_size: Clips recognised at once.
        beam_size: Beams of the search; what the model says if omitted.
        max_new_tokens: Most tokens of one clip of up to 30 seconds.
        language: Of the speech, for multilingual Whisper; detected if omitted.
        task: For multilingual Whisper.
        target_language: Of the text, for mBART: de, de_DE, or the id of its token.
        dtype: In which the model computes, where the processor can.
        weights: Keep the weights in int8, a quarter of the memory; the text may differ a little.
        allow_truncated: Transcribe a file that is cut short as far as it goes.
    """

    batch_size: Count = 8
    beam_size: Count | None = None
    max_new_tokens: Count | None = None
    language: str | None = None
    task: Literal["transcribe", "translate"] | None = None
    target_language: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Literal["int8"] | None = None
    allow_truncated: bool = False

    def settings(self) -> dict[str, Any]:
        """Returns the settings of ``generate`` that were given."""
        settings = {
            "num_beams": self.beam_size,
            "max_new_tokens": self.max_new_tokens,
            "language": self.language,
            "task": self.task,
            "target_language": self.target_language,
        }
        return {name: value for name, value in settings.items() if value is not None}


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

    def publish(self, recording: Recording, transcript: Any) -> None:
        """Prints or writes one transcript; of one that failed no file is written."""
        from speech_ed_flax.commands.output import print_transcript, write_transcript

        if self.folder is None:
            print_transcript(transcript, self.kinds[0], self.several)
        elif transcript.error is None:
            write_transcript(transcript, self.folder / recording.stem, self.kinds)


_DEFAULTS = Recognition()


def transcribe(
    audio: list[Path],
    /,
    *,
    model: Annotated[str, Parameter(alias="-m")],
    output_dir: Annotated[Path | None, Parameter(alias="-o")] = None,
    format: Annotated[Format, Parameter(alias="-f")] = "txt",
    recursive: bool = False,
    skip_existing: bool = False,
    on_error: Literal["skip", "stop"] = "skip",
    quiet: Annotated[bool, Parameter(alias="-q")] = False,
    local_files_only: bool = False,
    recognition: Recognition = _DEFAULTS,
) -> int:
    """Turn recordings into text.

    Text goes to stdout as soon as it is known: for a single file the text alone,
    else path, tab and text on one line; with -f json one JSON object on one line.
    Ends with 3 if some recordings failed, with 4 if all did or the model is
    unusable.

    Args:
        audio: Files of any rate, channels and length, or folders of them.
        model: Folder of a checkpoint, or its name on the Hub.
        output_dir: Write a file for each recording and format there, instead of to stdout.
        format: What to write; srt, vtt and tsv go to stdout for a single file only.
        recursive: Take the whole trees below folders, and keep them in the output folder.
        skip_existing: Keep results that are in the output folder already.
        on_error: What to do after a recording that cannot be read.
        quiet: Say nothing on stderr but errors.
        local_files_only: Stay off the network.
        recognition: How speech becomes text.
    """
    results = _results(audio, output_dir, format, skip_existing)
    recordings, empty = find_recordings(audio, recursive)
    if output_dir is not None:
        refuse_collisions(recordings)
        output_dir.mkdir(parents=True, exist_ok=True)
    left = [r for r in recordings if not (skip_existing and results.has(r))]
    recogniser = load_recogniser(model, recognition, local_files_only) if left else None
    tally = Tally(kept=len(recordings) - len(left))
    for folder in empty:
        tally.fail(f"{folder}: holds no recording (name another folder, or use --recursive)")
    if left and not (empty and on_error == "stop"):
        _transcribe(recogniser, left, recognition, results, tally, on_error == "stop", not quiet)
    if not quiet:
        print(tally.summary(), file=sys.stderr)
    return tally.outcome()


def _results(audio: Sequence[Path], folder: Path | None, kind: str, skip_existing: bool) -> Results:
    """Returns where results go, unless the arguments contradict each other."""
    from speech_ed_flax.commands.output import RENDERERS

    several = len(audio) > 1 or audio[0].is_dir()
    if folder is None and skip_existing:
        raise UsageError("--skip-existing needs --output-dir: results on stdout are not kept.")
    if folder is None and (kind == "all" or (several and kind in ("srt", "vtt", "tsv"))):
        raise UsageError(f"--format {kind} needs --output-dir: it does not fit on one stdout.")
    return Results(folder, tuple(RENDERERS) if kind == "all" else (kind,), several)


def load_recogniser(name: str, recognition: Recognition, local_files_only: bool) -> Any:
    """Loads the model of a command that turns recordings into text."""
    from speech_ed_flax.commands.process import settle
    from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

    settle()
    return FlaxSpeechEncoderDecoderModel.from_pretrained(
        name,
        dtype=recognition.dtype,
        weights=recognition.weights,
        local_files_only=local_files_only,
    )


def _transcribe(
    model: Any,
    recordings: Sequence[Recording],
    recognition: Recognition,
    results: Results,
    tally: Tally,
    stop: bool,
    shown: bool,
) -> None:
    """Transcribes recordings in order, publishing each as soon as its text is known."""
    transcripts = model.transcripts(
        (recording.path for recording in recordings),
        batch_size=recognition.batch_size,
        allow_truncated=recognition.allow_truncated,
        **recognition.settings(),
    )
    # On a terminal that shows the results as they come, they are the progress.
    shown = shown and (results.folder is not None or not sys.stdout.isatty())
    with progress_bar(len(recordings), shown) as advance:
        for recording, transcript in zip(recordings, transcripts, strict=True):
            results.publish(recording, transcript)
            if transcript.error is None:
                tally.succeed(transcript.duration)
            else:
                tally.fail(transcript.error)
                if stop:
                    return
            advance()
