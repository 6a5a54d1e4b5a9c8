"""The texts of tokens that an exported program is given."""

import pytest

from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.exporting.vocabulary import spelling

TEXTS = ["one two three", "größer, später: 100 €"]
SIZES = {"bpe": 300, "unigram": 300, "char": None, "word": None}


@pytest.mark.parametrize("kind", SIZES)
def test_texts_of_tokens_in_a_row_are_what_the_tokenizer_writes(kind):
    tokenizer = train_tokenizer(TEXTS, kind, SIZES[kind])
    texts = spelling(tokenizer, len(tokenizer) + 2)
    assert texts is not None
    assert texts[-2:] == ["", ""]
    for text in TEXTS:
        tokens = tokenizer(text).input_ids
        said = "".join(texts[token] for token in tokens)
        assert said.encode("latin-1").decode().strip() == text


def test_no_order_of_the_vocabulary_matters():
    tokenizer = train_tokenizer(TEXTS, "char")
    vocabulary = tokenizer.get_vocab()
    expected = spelling(tokenizer, len(tokenizer))
    for first in vocabulary:
        order = {first: vocabulary[first], **vocabulary}
        tokenizer.get_vocab = lambda order=order: order
        assert spelling(tokenizer, len(tokenizer)) == expected
    assert expected is not None


def test_a_tokenizer_that_does_more_than_that_has_none():
    tokenizer = train_tokenizer(TEXTS, "word")
    decode = tokenizer.decode
    tokenizer.decode = lambda *given, **options: decode(*given, **options).upper()
    assert spelling(tokenizer, len(tokenizer)) is None
    assert spelling(None, 10) is None
