"""Positions that padding does not take are PyTorch's, where the start token is padding too.

Upstream's forward counts over the whole sequence and its generation over each step, so the two
disagree by one position from the second token on: here ``__call__`` and ``generate`` follow each.
"""

from functools import cache

import jax
import numpy as np
import pytest
from families import DECODERS, SHALLOW, speech, text, vary
from flax.traverse_util import flatten_dict
from pytorch import build, torch
from test_gradients import gradients_of_theirs

STARTED_BY_PADDING = ("trocr", "roberta")
LAYERS = ("decoder_layers", "num_hidden_layers")


@pytest.fixture(scope="module")
def started_by_padding(tmp_path_factory):
    """Builds a pair of ``SHALLOW`` and a decoder of one layer whose start token is padding."""

    @cache
    def build_shallow(name):
        config = DECODERS[name]
        depth = {layers: 1 for layers in LAYERS if layers in config.to_dict()}
        changed = vary(config, decoder_start_token_id=config.pad_token_id, **depth)
        return build(SHALLOW, changed, tmp_path_factory.mktemp(name))

    return build_shallow


@pytest.mark.parametrize("name", STARTED_BY_PADDING)
def test_padding_anywhere_takes_no_position(started_by_padding, name):
    pair = started_by_padding(name)
    inputs, mask = speech(SHALLOW)
    pad = pair.ours.config.decoder.pad_token_id
    tokens = np.array([[pad, 9, 30, 7, 8], [pad, pad, 5, 6, 7], [2, 11, pad, 12, pad]])
    with torch.no_grad():
        theirs = pair.call(inputs, mask, decoder_input_ids=tokens).logits.numpy()
    ours = pair.ours(inputs, mask, decoder_input_ids=tokens).logits
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", STARTED_BY_PADDING)
def test_generation_counts_in_steps_as_that_of_pytorch(started_by_padding, name, beams):
    pair = started_by_padding(name)
    inputs, mask = speech(SHALLOW)
    pad = pair.ours.config.decoder.pad_token_id
    settings = {"max_length": 12, "num_beams": beams, "do_sample": False, "eos_token_id": 7}
    settings |= {"decoder_start_token_id": pad, "pad_token_id": pad, "bos_token_id": None}
    settings["output_logits"] = True
    theirs = pair.generate(inputs, mask, **settings)
    ours = pair.ours.generate(inputs, mask, **settings)
    np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())
    expected = torch.stack(theirs.logits).numpy()
    np.testing.assert_allclose(np.stack(ours.logits), expected, rtol=0, atol=1e-4)
    at_once = pair.generate(inputs, mask, use_cache=False, **settings).logits[1].numpy()
    assert np.abs(at_once - expected[1]).max() > 1e-2, "both count alike: nothing is shown"


@pytest.mark.parametrize("name", STARTED_BY_PADDING)
def test_the_padding_that_starts_a_text_learns_nothing_as_an_input(started_by_padding, name):
    pair = started_by_padding(name)
    inputs, mask = speech(SHALLOW)
    ours = jax.grad(lambda p: pair.ours(inputs, mask, labels=text(), params=p).loss)(
        pair.ours.params
    )
    for path, expected in gradients_of_theirs(pair, inputs, mask).items():
        if path.startswith("decoder/"):
            atol = 1e-4 * max(0.1, np.abs(expected).max())
            found = flatten_dict(ours, sep="/")[path]
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=path)
