"""Strings that stop a sequence stop it where PyTorch's ``StopStringCriteria`` does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table_model import (
    VOCAB,
    TableModel,
    crop,
    random_prompt,
    start_cache,
    table,
    table_step,
    torch,
)
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, PreTrainedTokenizerFast, StopStringCriteria

from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.search import search
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.generation.stopping import StopStrings, token_texts

SPECIAL = ["<s>", "<pad>", "</s>", "</end>"]
LETTERS = [*"abcdefgh", "Ġ", "Ã", "¼", "ab", "Ġa", "ba", "cab", "Ġab", "bag", "hh", "Ġb", "fed"]
LETTERS += ["dd", "Ġcc", "gg", "ac", "dab", "e", "aa", "bb", "Ġf", "ha", "ce", "Ġgh", "ff"]
BYTES = [*SPECIAL, *dict.fromkeys(LETTERS)][:VOCAB]
"""Tokens of a byte-level tokenizer: ``Ġ`` is a space, ``Ã`` and ``¼`` are the bytes of ü."""

PIECES = [piece.replace("Ġ", "▁") for piece in BYTES]


def tokenizer_of(tokens: list[str], decoder) -> PreTrainedTokenizerFast:
    model = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    model.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=model)


TOKENIZERS = {
    "bytes": tokenizer_of(BYTES, decoders.ByteLevel()),
    "pieces": tokenizer_of(PIECES, decoders.Metaspace()),
}


def table_of(tokenizer, strings) -> StopStrings:
    return StopStrings.of(strings, token_texts(tokenizer), VOCAB)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_automaton_stops_at_the_token_at_which_pytorch_stops(name):
    tokenizer, strings = TOKENIZERS[name], ("ab", "cabb", " gh", "aab a")
    stop, theirs = table_of(tokenizer, strings), StopStringCriteria(tokenizer, list(strings))
    tokens = np.random.default_rng(0).integers(0, len(tokenizer), (400, 12))
    states = stop.start(jnp.asarray(tokens[:, :1]))
    hits = 0
    for length in range(2, 13):
        states, stopped = stop.advance(states, jnp.asarray(tokens[:, length - 1]))
        expected = theirs(torch.tensor(tokens[:, :length]), None).numpy()
        np.testing.assert_array_equal(stopped, expected)
        hits += int(expected.sum())
    assert 100 < hits < 4000


def test_a_string_may_end_with_a_part_of_a_letter():
    tokenizer = TOKENIZERS["bytes"]
    stop = table_of(tokenizer, ("aü",))
    ids = tokenizer.convert_tokens_to_ids(["ba", "Ã", "¼"])
    states, found = stop.start(jnp.array([[4]])), []
    for token in ids:
        states, stopped = stop.advance(states, jnp.array([token]))
        found.append(bool(stopped[0]))
    assert found == [False, False, True]


def test_other_strings_of_similar_length_have_a_table_of_the_same_shape():
    tokenizer = TOKENIZERS["bytes"]
    shapes = {
        table_of(tokenizer, strings).transitions.shape for strings in (("a",), ("fed ba", "c"))
    }
    assert len(shapes) == 1


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("prompt_length", [1, 4])
def test_a_search_with_stop_strings_finds_what_pytorch_finds(beams, prompt_length):
    tokenizer, strings = TOKENIZERS["bytes"], ["ab", " g", "fe"]
    config = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        pad_token_id=1,
        eos_token_id=[2],
        max_new_tokens=14,
        stop_strings=strings,
    )
    settings = GenerationSettings.from_hf(config, prompt_length, VOCAB)
    plan = Plan.of(settings, prompt_length)
    limits = Limits.of(settings, prompt_length, plan, table_of(tokenizer, strings))

    @jax.jit
    def run(logits, prompt, limits):
        cache = start_cache(len(prompt) * plan.copies)
        return search(table_step(logits), cache, prompt, plan, Rules(limits))

    stopped = 0
    for seed in range(4):
        logits, prompt = table(seed), random_prompt(seed, prompt_length)
        expected = TableModel(logits).generate(
            torch.tensor(prompt, dtype=torch.long),
            generation_config=config,
            tokenizer=tokenizer,
            use_cache=False,
        )
        found = run(jnp.asarray(logits), jnp.asarray(prompt), limits)
        np.testing.assert_array_equal(crop(found), expected.numpy(), f"seed {seed}")
        last = found.tokens[jnp.arange(len(found.lengths)), found.lengths - 1]
        stopped += int(((last != 2) & (found.lengths < settings.max_length)).sum())
    assert stopped > 3


def test_a_tokenizer_that_knows_a_few_words_alone_says_what_each_adds():
    tokenizer = train_tokenizer(["one two three"], "word")
    texts = token_texts(tokenizer)
    for word in ("one", "two", "three"):
        assert texts[tokenizer.get_vocab()[word]] == f" {word}".encode()
