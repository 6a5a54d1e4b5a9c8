"""The command ``evaluate``: how well a model recognises recordings whose text is known."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.commands.progress import Tally, progress_bar, reporter
from speech_ed_flax.commands.recognition import Recognition, begin, load_recogniser
from speech_ed_flax.commands.utterances import Utterance, find_utterances
from speech_ed_flax.errors import SpeechError

Metrics = Annotated[
    tuple[Literal["wer", "cer", "bleu", "chrf"], ...], Parameter(consume_multiple=True)
]

_DEFAULTS = Recognition()


def evaluate(
    manifests: list[Path],
    /,
    *,
    model: Annotated[str, Parameter(alias="-m")],
    metrics: Metrics = ("wer", "cer"),
    normalizer: Literal["none", "basic", "english"] = "none",
    bootstrap: Annotated[int, Parameter(validator=Number(gte=0))] = 1000,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    quiet: Annotated[bool, Parameter(alias="-q")] = False,
    local_files_only: bool = False,
    recognition: Recognition = _DEFAULTS,
) -> int:
    """Measure how well a model recognises recordings whose text is known.

    Prints the scores of all recordings and of each language, with 95 % confidence
    intervals over recordings. Ends with 3 if some rows failed, which then count for
    nothing, with 4 if all did or the model is unusable.

    Args:
        manifests: Manifests (.jsonl, .tsv, .csv, .parquet), or folders that prepare wrote.
        model: Folder of a checkpoint, or its name on the Hub.
        metrics: What is computed: wer, cer, bleu, chrf.
        normalizer: Of both texts: basic drops case and punctuation, english is Whisper's.
        bootstrap: Resamples behind the confidence intervals; 0 for none.
        output: File of JSON lines for each recording's text and its alignment.
        as_json: Print one JSON object.
        quiet: Say nothing on stderr but errors.
        local_files_only: Stay off the network.
        recognition: How speech becomes text.
    """
    if recognition.allow_truncated:
        raise UsageError(
            "--allow-truncated: a text is not that of half its recording; leave it out."
        )
    tally = Tally()
    recogniser = load_recogniser(model, recognition, local_files_only)
    utterances = list(_utterances(manifests, recogniser, tally))
    predictions = _recognise(recogniser, utterances, recognition, tally, not quiet)
    if not predictions:
        return tally.outcome()
    settings = {"normalizer": normalizer, "bootstrap": bootstrap}
    report = {"model": model, "data": list(map(str, manifests)), "failed": tally.failed}
    report |= {"seconds": round(tally.seconds, 3), "rtfx": round(tally.speed(), 3)}
    report |= _scores(predictions, metrics, settings)
    if output is not None:
        _write(output, predictions, normalizer)
    print(json.dumps(report, ensure_ascii=False) if as_json else "\n".join(_table(report)))
    if not quiet:
        print(tally.summary(), file=sys.stderr)
    return tally.outcome()


def _utterances(manifests: Sequence[Path], model: Any, tally: Tally) -> Iterator[Utterance]:
    """Yields the rows of manifests; those that cannot be used are counted as failed."""
    features = model.processor.features
    for manifest in manifests:
        rate = {} if features is None else {"rate": features.sampling_rate}
        found = find_utterances(manifest, **rate)
        for fault in found.faults:
            tally.fail(fault)
        yield from found.utterances


def _recognise(
    model: Any,
    utterances: Sequence[Utterance],
    recognition: Recognition,
    tally: Tally,
    shown: bool,
) -> list[tuple[Utterance, str]]:
    """Returns the utterances that could be read, in order, with what was recognised."""
    from speech_ed_flax.transcription import Thresholds

    heard: list[Utterance] = []

    def sources() -> Iterator[tuple[Any, int]]:
        for utterance in utterances:
            try:
                samples = utterance.read()
            except SpeechError as error:
                tally.fail(str(error))
                continue
            heard.append(utterance)
            yield samples, model.processor.features.sampling_rate

    settings = recognition.settings() | {"thresholds": Thresholds(None, None)}
    transcriber = begin(model, recognition, settings, many=False, report=reporter(not shown))
    transcripts = transcriber.stream(sources())
    predictions: list[tuple[Utterance, str]] = []
    with progress_bar(len(utterances), shown) as advance:
        for number, transcript in enumerate(transcripts):
            predictions.append((heard[number], transcript.text))
            tally.succeed(transcript.duration)
            advance()
    return predictions


def _scores(
    predictions: Sequence[tuple[Utterance, str]],
    metrics: Sequence[str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    from speech_ed_flax.metrics import score, score_by_language

    references = [utterance.text for utterance, _ in predictions]
    hypotheses = [text for _, text in predictions]
    languages = [utterance.language for utterance, _ in predictions]
    whole = score(references, hypotheses, metrics, **settings)
    groups = score_by_language(references, hypotheses, languages, metrics, **settings)
    return {"all": whole.to_json(), "languages": {k: v.to_json() for k, v in groups.items()}}


def _write(path: Path, predictions: Sequence[tuple[Utterance, str]], normalizer: str) -> None:
    """Writes a line of JSON for each utterance; what is aligned are the normalised texts."""
    from speech_ed_flax.conversion.replacement import replacing
    from speech_ed_flax.metrics import align, normalize

    clean = normalize(normalizer)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for utterance, text in predictions:
            line = {
                "id": utterance.id,
                "language": utterance.language,
                "reference": utterance.text,
                "hypothesis": text,
                "alignment": align(clean(utterance.text), clean(text)),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _table(report: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each set of recordings and metric, then sacrebleu's signatures."""
    signatures: dict[str, None] = {}
    for name, scores in {"all": report["all"], **report["languages"]}.items():
        for metric, found in scores["metrics"].items():
            yield f"{name}\t{scores['utterances']}\t{metric}\t{_value(metric, found)}"
            if "signature" in found:
                signatures[found["signature"]] = None
    yield from signatures


def _value(metric: str, found: dict[str, Any]) -> str:
    from speech_ed_flax.metrics import LOWER_IS_BETTER

    factor, unit = (100, " %") if metric in LOWER_IS_BETTER else (1, "")
    text = f"{factor * found['value']:.2f}{unit}"
    if "low" in found:
        text += f"\t{factor * found['low']:.2f} to {factor * found['high']:.2f}{unit}"
    return text
