"""Error rates against brute force, BLEU and chrF against sacrebleu, intervals against a loop."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_ed_flax import metrics
from speech_ed_flax.errors import SpeechError
from speech_ed_flax.metrics import align, normalize, score, score_by_language

jiwer = pytest.importorskip("jiwer")
sacrebleu = pytest.importorskip("sacrebleu")

REFERENCES = ["the cat sat on the mat", "it was quiet", "go", "fifty one trains left"]
HYPOTHESES = ["the cat sat on a mat", "it was so quiet", "", "fifty one trains left"]

words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6).map(" ".join)


def distance(reference, hypothesis):
    """Returns the edit distance of two sequences, from its definition."""
    row = list(range(len(hypothesis) + 1))
    for at, unit in enumerate(reference, 1):
        last, row[0] = row[0], at
        for column, other in enumerate(hypothesis, 1):
            cheapest = min(row[column] + 1, row[column - 1] + 1, last + (unit != other))
            last, row[column] = row[column], cheapest
    return row[-1]


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_error_rates_are_edit_distances_over_the_length_of_the_references(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    found = score(references, hypotheses).metrics
    for name, units in (("wer", str.split), ("cer", list)):
        errors = sum(distance(units(r), units(h)) for r, h in pairs)
        length = sum(len(units(r)) for r in references)
        counts = found[name].counts
        assert counts["reference"] == length
        assert counts["substitutions"] + counts["insertions"] + counts["deletions"] == errors
        assert found[name].value == pytest.approx(errors / length if length else min(errors, 1))


def test_the_kinds_of_errors_are_told_apart():
    assert score(["a b c d"], ["a x c d e f"]).metrics["wer"].counts == {
        "substitutions": 1,
        "insertions": 2,
        "deletions": 0,
        "reference": 4,
    }
    assert score(["ab cd"], ["ab"]).metrics["cer"].counts["deletions"] == 3


@pytest.mark.parametrize(("heard", "rate"), [("", 0.0), ("a", 1.0), ("a b c", 1.0)])
def test_where_nothing_is_said_the_rate_is_one_if_anything_was_heard(heard, rate):
    assert score([""], [heard]).metrics["wer"].value == rate
    assert score([" "], [heard]).metrics["cer"].value == rate


def test_what_was_heard_where_nothing_is_said_counts_in_a_corpus():
    assert score(["a b", ""], ["a b", "c"]).metrics["wer"].value == 0.5


def test_bleu_and_chrf_are_sacrebleus_and_carry_its_signature():
    found = score(REFERENCES, HYPOTHESES, ("bleu", "chrf")).metrics
    for name, theirs in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        expected = theirs.corpus_score(HYPOTHESES, [REFERENCES]).score
        assert found[name].value == pytest.approx(expected, abs=1e-9)
        assert str(theirs.get_signature()) in found[name].signature


@pytest.mark.parametrize("name", ["wer", "cer", "bleu", "chrf"])
def test_the_interval_is_that_of_scores_of_resampled_utterances(name, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 4 * 7)  # seven resamples at a time
    found = score(REFERENCES, HYPOTHESES, [name], bootstrap=300, seed=5).metrics[name]
    random, scores = np.random.default_rng(6), []
    for _ in range(300):
        chosen = random.integers(len(REFERENCES), size=len(REFERENCES))
        pairs = [[texts[at] for at in chosen] for texts in (REFERENCES, HYPOTHESES)]
        scores.append(score(*pairs, [name]).metrics[name].value)
    low, high = np.percentile(scores, [2.5, 97.5])
    spread = np.std(scores)
    assert found.low == pytest.approx(low, abs=spread)
    assert found.high == pytest.approx(high, abs=spread)
    assert found.low <= found.value <= found.high


def test_intervals_depend_on_the_seed_alone_and_close_where_utterances_agree():
    first, again, other = (
        score(REFERENCES, HYPOTHESES, bootstrap=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    same = score(["a b"] * 9, ["a c"] * 9, bootstrap=50).metrics["wer"]
    assert (same.low, same.value, same.high) == (0.5, 0.5, 0.5)
    assert score(["a"], ["a"]).metrics["wer"].low is None


def test_each_language_is_scored_apart_and_rows_without_one_count_to_none():
    found = score_by_language(["a", "b", "c", "d"], ["a", "x", "c", "x"], ["fr", "en", "fr", None])
    assert list(found) == ["en", "fr"]
    assert found["en"].metrics["wer"].value == 1
    assert found["fr"].metrics["wer"].value == 0
    assert found["fr"].utterances == 2


def test_an_alignment_shows_what_differs_under_each_other():
    assert align("a bc d e", "a x d") == ["REF: a bc d e", "HYP: a  x d *", "        S   D"]
    assert align("", "ab c") == ["REF: ** *", "HYP: ab c", "      I I"]
    assert align("ab", "") == ["REF: ab", "HYP: **", "      D"]
    assert align("", "") == ["REF:", "HYP:", ""]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", "Mr. Smith\N{RIGHT SINGLE QUOTATION MARK}s twenty-one 'cats' won't - Été!"),
        ("basic", "mr smith's twenty one cats won't été"),
        ("english", "mister smith s 21 cats will not ete"),
    ],
)
def test_texts_are_compared_as_the_normalizer_leaves_them(name, expected):
    text = "Mr. Smith\N{RIGHT SINGLE QUOTATION MARK}s  twenty-one 'cats'\n won't - Été!"
    assert normalize(name)(text) == expected
    assert score([text], [expected], normalizer=name).metrics["wer"].value == 0


def test_scores_are_json():
    found = score(REFERENCES, HYPOTHESES, ("wer", "bleu"), bootstrap=10).to_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["utterances"], found["normalizer"]) == (4, "none")
    assert set(found["metrics"]["wer"]) == {"value", "low", "high", "counts"}
    assert set(found["metrics"]["bleu"]) == {"value", "low", "high", "signature"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": ["mer"]}, "metric 'mer' is not known: use some of wer, cer, bleu, chrf"),
        ({"normalizer": "german"}, "normalizer='german' is not known: use one of none, basic"),
    ],
)
def test_what_is_not_known_is_named(given, message):
    with pytest.raises(SpeechError, match=message):
        score(["a"], ["a"], **given)


def test_nothing_has_no_score():
    with pytest.raises(SpeechError, match="nothing to score"):
        score([], [])


@pytest.mark.parametrize(("library", "name"), [("jiwer", "wer"), ("sacrebleu", "chrf")])
def test_a_library_that_is_missing_is_named_with_what_installs_it(library, name, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SpeechError, match=rf"{library}: pip install 'speech_ed_flax\[train\]'"):
        score(["a"], ["a"], [name])


def test_metrics_start_without_jax_and_transformers():
    program = (
        "import sys; import speech_ed_flax.metrics\n"
        "print([m for m in ('jax', 'transformers', 'jiwer', 'sacrebleu') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr
