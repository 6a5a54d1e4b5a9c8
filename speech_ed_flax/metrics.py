"""How far what was written is from what was said: word and character errors, BLEU and chrF.

Every metric is made of counts, a row of them for each utterance: a corpus is scored by their sum,
and a bootstrap sums them over utterances drawn with replacement.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from speech_ed_flax.errors import SpeechError

Metric = Literal["wer", "cer", "bleu", "chrf"]
Normalizer = Literal["none", "basic", "english"]

LOWER_IS_BETTER = frozenset({"wer", "cer"})
"""The others grow with quality."""

_BLOCK = 1 << 22
"""Draws of the bootstrap that are held in memory at a time."""


@dataclass(frozen=True)
class Score:
    """One metric over a set of utterances.

    Attributes:
        value: a share of 0 or more for error rates, 0 to 100 for BLEU and chrF.
        low: the lower end of the 95 % confidence interval; None without a bootstrap.
        high: its upper end.
        counts: of an error rate: substitutions, insertions, deletions, and units of the reference.
        signature: sacrebleu's, which says how BLEU or chrF was computed.
    """

    value: float
    low: float | None = None
    high: float | None = None
    counts: dict[str, int] | None = None
    signature: str | None = None


@dataclass(frozen=True)
class Scores:
    """All metrics over a set of utterances.

    Attributes:
        utterances: how many there are.
        normalizer: what was done to both texts before they were compared.
        metrics: each score by its name.
    """

    utterances: int
    normalizer: str
    metrics: dict[str, Score]

    def to_json(self) -> dict[str, Any]:
        """Returns what JSON says of the scores, without what does not apply."""
        metrics = {
            name: {field: value for field, value in asdict(score).items() if value is not None}
            for name, score in self.metrics.items()
        }
        return {"utterances": self.utterances, "normalizer": self.normalizer, "metrics": metrics}


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    metrics: Sequence[str] = ("wer", "cer"),
    *,
    normalizer: str = "none",
    bootstrap: int = 0,
    seed: int = 0,
) -> Scores:
    """Scores what was recognised.

    Args:
        references: what was said, a text an utterance.
        hypotheses: what was recognised, in the same order.
        metrics: of "wer", "cer", "bleu" and "chrf".
        normalizer: see ``normalize``.
        bootstrap: resamples behind the confidence intervals; 0 for none.
        seed: of the bootstrap.

    Raises:
        SpeechError: naming a metric or normalizer that is not known, or a library that is missing;
            or there is no utterance.
        ValueError: there are not as many hypotheses as references.
    """
    clean = normalize(normalizer)
    pairs = [(clean(r), clean(h)) for r, h in zip(references, hypotheses, strict=True)]
    scored = {name: _score(name, pairs, bootstrap, seed) for name in metrics}
    return Scores(len(pairs), normalizer, scored)


def score_by_language(
    references: Sequence[str],
    hypotheses: Sequence[str],
    languages: Sequence[str | None],
    metrics: Sequence[str] = ("wer", "cer"),
    **settings: Any,
) -> dict[str, Scores]:
    """Scores the utterances of each language apart, in the order of their names.

    Args:
        references: what was said.
        hypotheses: what was recognised.
        languages: of each utterance; None where it is not known, which counts to none.
        metrics: as in ``score``.
        **settings: as in ``score``.
    """
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for reference, hypothesis, language in zip(references, hypotheses, languages, strict=True):
        if language is not None:
            said, heard = groups.setdefault(language, ([], []))
            said.append(reference)
            heard.append(hypothesis)
    return {name: score(*groups[name], metrics, **settings) for name in sorted(groups)}


def align(reference: str, hypothesis: str) -> list[str]:
    """Returns three lines: reference and hypothesis, words above words, and S, I or D below.

    Raises:
        SpeechError: jiwer is missing.
    """
    jiwer = _library("jiwer", "word errors")
    words = [_one_spaced(text) for text in (reference, hypothesis)]
    if not words[0]:  # which jiwer draws as nothing at all
        blanks = ["*" * len(word) for word in words[1].split()]
        marks = [f"{'I':>{len(word)}}" for word in words[1].split()]
        rows = (" ".join(blanks), words[1], " ".join(marks))
    else:
        drawn = jiwer.visualize_alignment(
            jiwer.process_words(*words), show_measures=False, skip_correct=False
        ).split("\n")
        rows = tuple(line[len("REF: ") :] for line in drawn[2:5])
    titles = ("REF: ", "HYP: ", "     ")
    return [(title + row).rstrip() for title, row in zip(titles, rows, strict=True)]


# --- text -----------------------------------------------------------------------------------------


def normalize(name: str) -> Callable[[str], str]:
    """Returns what is done to both texts before they are compared.

    "none" leaves them as they are but for spaces; "basic" lowers the case and drops punctuation
    and symbols, but apostrophes inside words; "english" is Whisper's normalizer of English, which
    also writes out contractions and turns number words into figures.

    Raises:
        SpeechError: there is no such normalizer.
    """
    if name not in _NORMALIZERS:
        known = ", ".join(_NORMALIZERS)
        raise SpeechError(f"normalizer={name!r} is not known: use one of {known}.")
    return _NORMALIZERS[name]()


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


def _basic(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower()
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = re.sub(r"(?<=\w)'(?=\w)", "\0", text)
    kept = (" " if unicodedata.category(mark)[0] in "PS" else mark for mark in text)
    return _one_spaced("".join(kept).replace("\0", "'"))


def _english() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    clean = EnglishTextNormalizer({})  # the map of British spellings is a file of each checkpoint
    return lambda text: _one_spaced(clean(text))


_NORMALIZERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "none": lambda: _one_spaced,
    "basic": lambda: _basic,
    "english": _english,
}


# --- counts and their scores ----------------------------------------------------------------------

Pairs = list[tuple[str, str]]
"""Reference and hypothesis of each utterance."""


def _score(name: str, pairs: Pairs, bootstrap: int, seed: int) -> Score:
    if name not in _COUNTERS:
        raise SpeechError(f"metric {name!r} is not known: use some of {', '.join(_COUNTERS)}.")
    if not pairs:
        raise SpeechError("there is nothing to score: no utterance was recognised.")
    counts, evaluate, signature = _COUNTERS[name](pairs)
    total = counts.sum(0)
    named: dict[str, int] | None = None
    if name in LOWER_IS_BETTER:
        named = dict(zip(_ERRORS, map(int, total), strict=True))
    low, high = _interval(counts, evaluate, bootstrap, seed)
    return Score(float(evaluate(total[None])[0]), low, high, named, signature)


def _interval(
    counts: np.ndarray, evaluate: Callable, bootstrap: int, seed: int
) -> tuple[float | None, float | None]:
    """Returns the middle 95 % of the scores of resampled utterances."""
    if not bootstrap:
        return None, None
    random, size = np.random.default_rng(seed), len(counts)
    rows = max(1, _BLOCK // size)
    values = []
    for done in range(0, bootstrap, rows):
        # How often each utterance is drawn: [resamples, utterances].
        drawn = random.multinomial(size, [1 / size] * size, min(rows, bootstrap - done))
        values.append(evaluate(drawn @ counts))
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return float(low), float(high)


_ERRORS = ("substitutions", "insertions", "deletions", "reference")


def _errors(pairs: Pairs, process: str) -> tuple[np.ndarray, Callable, None]:
    """Counts the errors of each utterance ``[utterances, 4]``, as ``_ERRORS`` names them."""
    jiwer = _library("jiwer", "error rates")
    kinds = {"substitute": 0, "insert": 1, "delete": 2}
    counts = np.zeros((len(pairs), 4), np.int64)
    for row, (reference, hypothesis) in zip(counts, pairs, strict=True):
        if not reference:  # of which jiwer would make a word
            row[1] = len(hypothesis.split() if process == "process_words" else hypothesis)
            continue
        found = getattr(jiwer, process)(reference, hypothesis)
        row[3] = len(found.references[0])
        for chunk in found.alignments[0]:
            if chunk.type in kinds:
                width = chunk.hyp_end_idx - chunk.hyp_start_idx
                width = width or chunk.ref_end_idx - chunk.ref_start_idx
                row[kinds[chunk.type]] += width
    return counts, _error_rates, None


def _error_rates(totals: np.ndarray) -> np.ndarray:
    """Returns the rate of each row; where there is no reference, 1 if anything was heard."""
    errors, units = totals[:, :3].sum(1), totals[:, 3]
    return np.where(units > 0, errors / np.maximum(units, 1), np.minimum(errors, 1.0))


def _overlaps(pairs: Pairs, kind: str) -> tuple[np.ndarray, Callable, str]:
    """Counts what sacrebleu's BLEU or chrF counts of each utterance.

    sacrebleu has these counts for its own bootstrap; there is no public name for them.
    """
    sacrebleu = _library("sacrebleu", "BLEU and chrF")
    metric = getattr(sacrebleu.metrics, kind)()
    references, hypotheses = zip(*pairs, strict=True)
    counts = metric._extract_corpus_statistics(list(hypotheses), [list(references)])

    def evaluate(totals: np.ndarray) -> np.ndarray:
        return np.array([metric._compute_score_from_stats(row.tolist()).score for row in totals])

    return np.array(counts), evaluate, f"{kind}|{metric.get_signature()}"


_COUNTERS: dict[str, Callable[[Pairs], tuple[np.ndarray, Callable, str | None]]] = {
    "wer": lambda pairs: _errors(pairs, "process_words"),
    "cer": lambda pairs: _errors(pairs, "process_characters"),
    "bleu": lambda pairs: _overlaps(pairs, "BLEU"),
    "chrf": lambda pairs: _overlaps(pairs, "CHRF"),
}


def _library(name: str, purpose: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise SpeechError(f"{purpose} need {name}: pip install 'speech_ed_flax[train]'.") from error
