from types import SimpleNamespace

import pytest

from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.training.texts import encode_texts, silent_tokens

START, END = 1, 2
CONFIG = SimpleNamespace(decoder_start_token_id=START, eos_token_id=END)


class Tokenizer:
    """Says what it was told to."""

    def __init__(self, *encoded):
        self._encoded = list(encoded)

    def __call__(self, texts):
        return SimpleNamespace(input_ids=self._encoded)


@pytest.mark.parametrize(
    ("encoded", "labels"),
    [
        ([7, 8], [7, 8, END]),
        ([7, 8, END], [7, 8, END]),
        ([START, 7, END], [7, END]),
        ([5, 7, END], [5, 7, END]),
        ([], [END]),
    ],
)
def test_labels_end_with_the_end_and_leave_the_start_to_the_decoder(encoded, labels):
    assert encode_texts(["x"], Tokenizer(encoded), CONFIG) == [labels]


def test_a_token_that_starts_and_ends_is_left_out_in_front_only():
    same = SimpleNamespace(decoder_start_token_id=END, eos_token_id=[END])
    assert encode_texts(["x"], Tokenizer([END, 7, END]), same) == [[7, END]]
    assert encode_texts(["x"], Tokenizer([END]), same) == [[END]]


def test_our_own_tokenizers_need_no_repair():
    tokenizer = train_tokenizer(["yes no", "no"], "word")
    (labels,) = encode_texts(["no yes"], tokenizer, CONFIG)
    assert labels[-1] == END
    assert tokenizer.decode(labels, skip_special_tokens=True) == "no yes"
    assert silent_tokens(tokenizer, tokenizer.pad_token_id) == (START, END)


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(ConfigError, match=r"model\.tokenizer"):
        encode_texts(["x"], None, CONFIG)
