"""Tokenizers made of transcripts: what they write back, where they end, and that they repeat."""

import os
import random

import pytest
from transformers import AutoTokenizer

from speech_ed_flax.data.tokenizer import SPECIAL, train_tokenizer
from speech_ed_flax.errors import ConfigError

KINDS = ["bpe", "unigram", "char", "word"]
SYLLABLES = ["lo", "ne", "mar", "tî", "vé", "ska", "dun", "o", "a", "zhé", "'n", "-"]


def make_texts(count=200, seed=0):
    """Returns texts of made-up words, with accents, apostrophes and spaces to spare."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(60)]
    return ["  ".join(draw.choices(words, k=draw.randint(1, 7))) for _ in range(count)] + ["", " "]


TEXTS = make_texts()


def made(kind, texts=TEXTS, size=None, **settings):
    size = 60 if size is None and kind in ("bpe", "unigram") else size
    return train_tokenizer(texts, kind, size, **settings)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return made(request.param)


def test_a_text_is_written_back_with_single_spaces(tokenizer):
    for text in TEXTS:
        written = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
        assert written == " ".join(text.split())


def test_labels_end_with_the_end_and_have_no_start(tokenizer):
    rows = tokenizer(TEXTS[:9]).input_ids
    bare = tokenizer(TEXTS[:9], add_special_tokens=False).input_ids
    assert rows == [[*row, tokenizer.eos_token_id] for row in bare]
    assert not {0, 1, 2, 3} & {token for row in bare for token in row}


def test_special_tokens_have_the_first_ids_and_padding_is_the_blank(tokenizer):
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == list(SPECIAL)
    ids = "pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"
    assert [getattr(tokenizer, name) for name in ids] == [0, 1, 2, 3]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_what_was_never_seen_is_unknown_and_has_no_text(tokenizer):
    ids = tokenizer("\N{SNOWMAN}").input_ids
    assert tokenizer.unk_token_id in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == ""


def test_transformers_loads_the_folder_as_it_was(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(TEXTS).input_ids == tokenizer(TEXTS).input_ids
    rows = again(TEXTS[:5], padding=True).input_ids
    assert again.batch_decode(rows, skip_special_tokens=True) == [
        " ".join(text.split()) for text in TEXTS[:5]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_make_the_same_tokenizer(kind, monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    files = [made(kind).backend_tokenizer.to_str() for _ in range(3)]
    assert files[0] == files[1] == files[2]
    assert "TOKENIZERS_PARALLELISM" not in os.environ


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_the_most_there_are(kind):
    assert len(made(kind, size=30)) <= 30
    everything = made("word")
    assert len(everything) == len(SPECIAL) + len({word for text in TEXTS for word in text.split()})


def test_the_most_frequent_words_are_kept_and_the_first_by_name_of_equals():
    words = made("word", ["b a c", "c d", "c"], size=6)
    assert words.convert_ids_to_tokens([4, 5]) == ["c", "a"]


@pytest.mark.parametrize("kind", KINDS)
def test_lower_case_is_for_reading_and_writing(kind):
    tokenizer = made(kind, [text.upper() for text in TEXTS], lower=True)
    for text in ("LONE Marvé", "lone marvé"):
        ids = tokenizer(text).input_ids
        assert ids == tokenizer("lone marvé").input_ids
    text = TEXTS[0]
    written = tokenizer.decode(tokenizer(text.upper()).input_ids, skip_special_tokens=True)
    assert written == " ".join(text.lower().split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TEXTS, "wordpiece", 60), "kind='wordpiece' is not known: use one of bpe, unigram"),
        ((TEXTS, "bpe"), "size: a tokenizer of kind 'bpe' needs one"),
        (
            (TEXTS, "unigram", 12),
            "size=12 is too small: 4 special tokens and 20 characters need 24",
        ),
        ((TEXTS, "char", 4), "size=4 is too small"),
        ((["", "  "], "char"), "there is no text"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(arguments, message):
    with pytest.raises(ConfigError, match=message):
        train_tokenizer(*arguments)
