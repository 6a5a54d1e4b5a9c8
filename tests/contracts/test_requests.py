"""Contract: what ``generate`` takes besides speech reaches the search, and what it returns fits."""

import numpy as np
import pytest
from contracts.models import shallow_model
from families import VOCAB as VOCABULARY
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

SPEECH = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)
SETTINGS = {"max_length": 14, "eos_token_id": [9, 17], "pad_token_id": 1}
MODES = {
    "greedy": ({}, 1),
    "sampling": ({"do_sample": True}, 3),
    "beams": ({"num_beams": 4}, 3),
    "sampled beams": ({"num_beams": 4, "do_sample": True}, 3),
    "groups": ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, 3),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Spells token ``i`` as the letters of ``i`` between bars, such as ``|2d|``."""
    pieces = {f"|{chr(97 + i // 10)}{chr(97 + i % 10)}|": i for i in range(VOCABULARY - 6)}
    pieces |= {letter: VOCABULARY - 6 + i for i, letter in enumerate("abcdef")}
    model = Tokenizer(models.BPE(pieces, []))
    model.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=model)


@pytest.mark.parametrize("mode", MODES)
def test_as_many_sequences_as_wanted_are_returned_with_all_that_belongs_to_them(mode):
    settings, count = MODES[mode]
    found = shallow_model("bart").generate(
        SPEECH,
        num_return_sequences=count,
        output_scores=True,
        output_log_probs=True,
        **SETTINGS | settings,
    )
    rows, steps = 2 * count, found.sequences.shape[1] - 1
    searched = 2 * settings.get("num_beams", count)
    assert found.sequences.shape[0] == rows
    assert found.token_log_probs.shape == (rows, steps)
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert len(found.scores) >= steps
    assert {scores.shape for scores in found.scores} == {(searched, VOCABULARY)}
    if "beams" in mode or mode == "groups":
        assert found.sequences_scores.shape == (rows,)
        assert found.beam_indices.shape == (rows, steps)
        ranked = found.sequences_scores.reshape(2, count)
        assert (np.diff(ranked, axis=1) <= 0).all()
    assert found.logits is None
    assert found.cross_attentions is None


@pytest.mark.parametrize("mode", MODES)
def test_allowed_sequences_are_followed_as_a_table_and_as_a_function(mode):
    settings, count = MODES[mode]
    settings = SETTINGS | settings | {"num_return_sequences": count}
    sequences = [[7, 8], [7, 30, 4], [11], [12, 13, 14, 15], [20, 21]]

    def allows(utterance, tokens):
        given = list(tokens[1:])
        followers = {s[len(given)] for s in sequences if s[: len(given)] == given != s}
        return followers | ({9, 17} if given in sequences or not followers else set())

    found = shallow_model("bart").generate(SPEECH, prefix_allowed_tokens_fn=sequences, **settings)
    texts = [[t for t in row[1:].tolist() if t not in (1, 9, 17)] for row in found.sequences]
    assert all(text in sequences for text in texts)
    asked = shallow_model("bart").generate(SPEECH, prefix_allowed_tokens_fn=allows, **settings)
    np.testing.assert_array_equal(asked.sequences, found.sequences)


def test_what_the_encoder_read_is_not_repeated():
    model, read = shallow_model("bart"), np.array([[7, 8, 30], [4, 5, 6]])
    free = model.generate(SPEECH, **SETTINGS).sequences
    read[:, 0] = free[:, 3]
    bound = model.generate(
        SPEECH, encoder_input_ids=read, encoder_no_repeat_ngram_size=1, **SETTINGS
    ).sequences
    for row, words in zip(bound, read, strict=True):
        assert not set(row[1:].tolist()) & set(words.tolist())


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_a_text_stops_with_the_token_that_completes_a_stop_string(mode):
    model, spelling = shallow_model("bart"), tokenizer()
    settings = SETTINGS | MODES[mode][0] | {"eos_token_id": [47], "no_repeat_ngram_size": 1}
    free = model.generate(SPEECH, **settings).sequences
    stop = spelling.convert_ids_to_tokens([int(free[0, 4]), int(free[0, 5])])
    stop = stop[0][1:] + stop[1][:3]  # ends inside the second token
    found = model.generate(SPEECH, stop_strings=[stop], tokenizer=spelling, **settings).sequences
    text = "".join(spelling.convert_ids_to_tokens(found[0]))
    assert text.count(stop) == 1
    if mode == "greedy":
        np.testing.assert_array_equal(found[0, :6], free[0, :6])
        assert (found[0, 6:] == 1).all()
