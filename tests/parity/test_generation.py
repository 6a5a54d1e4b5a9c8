"""Generated tokens are PyTorch's, all of them: greedy, by beam search, sampled, and by default."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from families import DECODERS, ENCODERS, PAIRS, SHALLOW, VOCAB, speech, vary
from pytorch import Pair, build, tensor, torch
from transformers import (
    LogitsProcessorList,
    SpeechEncoderDecoderModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

LENGTH_PENALTIES = (0.0, 1.0, -1.0)
EARLY_STOPPING = (True, False, "never")
END_TOKENS = ("one", "several")

SEVERAL_SETTINGS = (
    (0.0, True, "several"),
    (1.0, False, "one"),
    (-1.0, "never", "several"),
)
"""Every value of every axis of the grid at least once."""

GRID = ("bert", "gpt2", "bart", "whisper")
"""Decoders that are searched with the full grid: the search does not see which one it is."""

MAX_LENGTH = 14


@pytest.fixture(scope="session")
def shallow_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Builds the pair of ``SHALLOW`` and a decoder of one layer, each once."""

    @functools.cache
    def build_shallow(name: str) -> Pair:
        depth = "decoder_layers" if hasattr(DECODERS[name], "decoder_layers") else "n_layer"
        depth = "num_hidden_layers" if name == "bert" else depth
        return build(SHALLOW, vary(DECODERS[name], **{depth: 1}), tmp_path_factory.mktemp(name))

    return build_shallow


def settings_of(pair: Pair, **changes: Any) -> dict[str, Any]:
    """Returns every setting that a configuration might bring in as well, and ``changes``."""
    config = pair.ours.config.decoder
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    ids = {name: getattr(config, name) for name in names}
    return ids | {"max_length": MAX_LENGTH, "do_sample": False, "num_beams": 1} | changes


def mask_of(pair: Pair, mask: np.ndarray) -> np.ndarray | None:
    """Returns ``mask`` if PyTorch's decoder heeds it; see ``test_outputs.MASKED``."""
    return mask if pair.hears_masks else None


def ends_of(pair: Pair, inputs: np.ndarray, mask: np.ndarray | None, count: str) -> list[int]:
    """Returns "one" or "several" tokens that sequences do reach, to end them there.

    A random model hardly ever writes the token that its configuration calls the end.
    """
    endless = settings_of(pair, min_length=MAX_LENGTH)
    tokens = pair.generate(inputs, mask, **endless).sequences.numpy()
    likely = [int(tokens[0, 5]), int(tokens[1, 8]), int(tokens[2, 11])]
    return likely[:1] if count == "one" else sorted(set(likely))


def assert_same_tokens(
    pair: Pair, inputs: np.ndarray, mask: np.ndarray | None, **settings: Any
) -> np.ndarray:
    """Asserts that tokens and shapes are equal, and scores of beams close; returns the tokens."""
    theirs = pair.generate(inputs, mask, **settings)
    ours = pair.ours.generate(inputs, mask, **settings)
    assert ours.sequences.shape == theirs.sequences.shape
    np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())
    if settings["num_beams"] > 1:
        scores = theirs.sequences_scores.numpy()
        np.testing.assert_allclose(ours.sequences_scores, scores, rtol=0, atol=1e-4)
    return ours.sequences


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_greedy_tokens_are_those_of_pytorch_with_a_mask_and_without(pair, encoder, decoder):
    """No mask is all ones here, which is compiled once; the beams below have both."""
    pair = pair(encoder, decoder)
    inputs, mask = speech(ENCODERS[encoder])
    settings = settings_of(pair, eos_token_id=ends_of(pair, inputs, None, "several"))
    ended = False
    for real in (np.ones_like(mask), mask) if pair.hears_masks else (np.ones_like(mask),):
        tokens = assert_same_tokens(pair, inputs, real, **settings)
        ended |= np.isin(tokens[:, 1:], settings["eos_token_id"]).any()
    assert ended, "nothing ended before the longest length"


@pytest.mark.parametrize("count", END_TOKENS)
@pytest.mark.parametrize("early_stopping", EARLY_STOPPING)
@pytest.mark.parametrize("length_penalty", LENGTH_PENALTIES)
@pytest.mark.parametrize("decoder", GRID)
def test_beams_are_those_of_pytorch_on_the_full_grid(
    shallow_pair, decoder, length_penalty, early_stopping, count
):
    """With a ragged mask; two of three beams are returned."""
    pair = shallow_pair(decoder)
    inputs, mask = speech(SHALLOW)
    mask = mask_of(pair, mask)
    settings = settings_of(
        pair,
        num_beams=3,
        num_return_sequences=2,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        eos_token_id=ends_of(pair, inputs, mask, count),
    )
    assert_same_tokens(pair, inputs, mask, **settings)


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_beams_of_every_pair_are_those_of_pytorch(pair, encoder, decoder):
    """By turns with one of three settings, which hold every value of every axis of the full grid.

    One of the three runs without a mask.
    """
    turn = PAIRS.index((encoder, decoder)) % len(SEVERAL_SETTINGS)
    length_penalty, early_stopping, count = SEVERAL_SETTINGS[turn]
    pair = pair(encoder, decoder)
    inputs, mask = speech(ENCODERS[encoder])
    mask = None if count == "one" else mask_of(pair, mask)
    settings = settings_of(
        pair,
        num_beams=3,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        eos_token_id=ends_of(pair, inputs, mask, count),
    )
    assert_same_tokens(pair, inputs, mask, **settings)


@pytest.mark.parametrize(
    ("encoder", "decoder", "published"),
    [
        pytest.param(
            "wav2vec2-adapter",
            "mbart",
            {"forced_bos_token_id": 7, "forced_eos_token_id": 2, "decoder_start_token_id": 2},
            id="wav2vec2-xls-r-300m-en-to-15",
        ),
        pytest.param(
            "wav2vec2",
            "bart",
            {"no_repeat_ngram_size": 3, "forced_eos_token_id": 2},
            id="wav2vec2-2-bart-base",
        ),
    ],
)
def test_published_settings_of_beams_give_the_tokens_of_pytorch(pair, encoder, decoder, published):
    pair = pair(encoder, decoder)
    inputs, mask = speech(ENCODERS[encoder])
    settings = settings_of(pair, num_beams=5, early_stopping=True, **published)
    tokens = assert_same_tokens(pair, inputs, mask, **settings)
    assert (tokens == 2)[:, 1:].any()


@pytest.mark.parametrize("decoder", GRID)
def test_a_given_beginning_is_continued_as_by_pytorch(shallow_pair, decoder):
    pair = shallow_pair(decoder)
    inputs, _ = speech(SHALLOW)
    settings = settings_of(pair, num_beams=2)
    beginning = np.array([[7, 11, 6], [40, 9, 9], [5, 30, 8]])
    theirs = pair.generate(inputs, None, decoder_input_ids=tensor(beginning), **settings)
    ours = pair.ours.generate(inputs, decoder_input_ids=beginning, **settings)
    np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS[::4])
def test_every_sampled_token_is_one_that_pytorch_could_have_drawn(pair, encoder, decoder):
    pair = pair(encoder, decoder)
    inputs, mask = speech(ENCODERS[encoder])
    assert_within_support(pair, inputs, mask_of(pair, mask), 8, 0.8, 1.3)


@pytest.mark.parametrize(
    ("top_k", "top_p", "temperature"),
    [
        pytest.param(4, 1.0, 1.0, id="top-k"),
        pytest.param(0, 0.6, 1.0, id="top-p"),
        pytest.param(0, 0.6, 0.7, id="temperature-and-top-p"),
    ],
)
def test_every_restriction_of_sampling_is_that_of_pytorch(shallow_pair, top_k, top_p, temperature):
    inputs, mask = speech(SHALLOW)
    assert_within_support(shallow_pair("bert"), inputs, mask, top_k, top_p, temperature)


def assert_within_support(
    pair: Pair,
    inputs: np.ndarray,
    mask: np.ndarray | None,
    top_k: int,
    top_p: float,
    temperature: float,
) -> None:
    """Asserts that every token was in the set that PyTorch computes from the tokens before it."""
    copies = 16
    ends = ends_of(pair, inputs, mask, "one")
    restrictions = {"top_k": top_k, "top_p": top_p, "temperature": temperature}
    settings = settings_of(pair, eos_token_id=ends, do_sample=True, num_return_sequences=copies)
    settings |= restrictions | {"prng_key": jax.random.key(1, impl="rbg")}  # compiles sooner
    tokens = pair.ours.generate(inputs, mask, **settings).sequences

    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    rows = [None if a is None else np.repeat(a, copies, 0) for a in (inputs, mask)]
    with torch.no_grad():
        logits = pair.call(*rows, decoder_input_ids=tokens).logits[:, :-1]
        scores = warpers(None, logits.reshape(-1, VOCAB)).reshape(logits.shape)
    possible = torch.isfinite(scores).numpy()
    drawn = tokens[:, 1:]
    ended = np.isin(drawn, ends)
    before = np.cumsum(ended, axis=1) - ended == 0
    # After padding in the midst upstream's one pass and its steps disagree about positions.
    padded = drawn == settings["pad_token_id"]
    comparable = before & (np.cumsum(padded, axis=1) - padded == 0)
    assert np.take_along_axis(possible, drawn[..., None], -1)[..., 0][comparable].all()
    assert (drawn[~before] == settings["pad_token_id"]).all()
    assert len(np.unique(drawn[:copies], axis=0)) > 1, "nothing was drawn: all samples are the same"


IDS = {"pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}
CHECKPOINTS = {
    # facebook/wav2vec2-xls-r-300m-en-to-15: settings on both levels, the language forced.
    "xls-r": (
        "wav2vec2-adapter",
        "mbart",
        IDS | {"decoder_start_token_id": 2, "forced_bos_token_id": 7, "forced_eos_token_id": 2,
               "max_length": 20, "num_beams": 5, "early_stopping": True},
        IDS | {"decoder_start_token_id": 2, "forced_eos_token_id": 2, "max_length": 18,
               "num_beams": 4, "early_stopping": True, "is_encoder_decoder": True},
    ),
    # patrickvonplaten/wav2vec2-2-bart-base: what the decoder says holds where the top is silent.
    "bart-base": (
        "wav2vec2",
        "bart",
        IDS | {"decoder_start_token_id": 0, "max_length": 20, "num_beams": 3},
        IDS | {"decoder_start_token_id": 2, "forced_eos_token_id": 2, "no_repeat_ngram_size": 3,
               "num_beams": 4, "early_stopping": True, "length_penalty": 0.5},
    ),
    # Greedy, and the end from the decoder alone.
    "plain": (
        "hubert",
        "bert",
        {"decoder_start_token_id": 1, "pad_token_id": 0},
        {"eos_token_id": [2, 9], "repetition_penalty": 1.3, "max_length": 12},
    ),
}  # fmt: skip


def write_checkpoint(pair: Pair, top: dict, decoder: dict, folder) -> None:
    """Writes a checkpoint of old: settings of generation in ``config.json``, nowhere else."""
    pair.theirs.save_pretrained(folder)
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    for level in (raw, raw["decoder"]):
        for name in (*IDS, "decoder_start_token_id", "forced_eos_token_id"):
            level.pop(name, None)
    raw |= top
    raw["decoder"] |= decoder
    path.write_text(json.dumps(raw))
    (folder / "generation_config.json").unlink()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_without_generation_config_generates_as_in_pytorch(name, pair, tmp_path):
    """The settings found and, with no setting given, the tokens."""
    encoder, decoder, top, nested = CHECKPOINTS[name]
    write_checkpoint(pair(encoder, decoder), top, nested, tmp_path)
    theirs = SpeechEncoderDecoderModel.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    ours = type(pair(encoder, decoder).ours).from_pretrained(tmp_path)
    expected = theirs.generation_config.to_dict()
    missing = {key for key, value in expected.items() if value is None}
    found = ours.generation_config.to_dict()
    assert {k: v for k, v in found.items() if k not in missing} == {
        k: v for k, v in expected.items() if k not in missing
    }
    filled = {key for key in missing if found.get(key) is not None}
    assert filled <= {"pad_token_id", "eos_token_id", "decoder_start_token_id"}
    if hasattr(theirs, "enc_to_dec_proj"):
        projection = pair(encoder, decoder).theirs.enc_to_dec_proj
        theirs.enc_to_dec_proj = projection
    inputs, _ = speech(ENCODERS[encoder])
    tokens = theirs.eval().generate(tensor(inputs)).numpy()
    np.testing.assert_array_equal(ours.generate(inputs).sequences, tokens)
