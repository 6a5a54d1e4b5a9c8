"""The gradient of every parameter is PyTorch's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import ENCODERS, PAIRS, speech, text
from flax.traverse_util import flatten_dict
from pytorch import Pair

from speech_ed_flax.conversion.assemble import assemble
from speech_ed_flax.conversion.load import parts_of
from speech_ed_flax.conversion.names import select


def gradients_of_theirs(pair: Pair, inputs: np.ndarray, mask: np.ndarray | None) -> dict[str, Any]:
    """Returns PyTorch's gradients by our paths; zeros where nothing depends on the parameter.

    The conversion of weights turns, splits and drops without changing a number, so it converts
    gradients as well. A tied output layer is one tensor with one gradient, as it is here.
    """
    pair.theirs.zero_grad()
    pair.call(inputs, mask, labels=text()).loss.backward()
    gradients = {
        name: np.zeros(values.shape, np.float32) if values.grad is None else values.grad.numpy()
        for name, values in pair.theirs.state_dict(keep_vars=True).items()
    }
    gradients = pair.joint_names(gradients)
    states = {part: select(gradients, f"{part}.") for part in ("encoder", "decoder")}
    states["projection"] = {n: g for n, g in gradients.items() if n.startswith("enc_to_dec_proj.")}
    module, config = pair.ours.module, pair.ours.config
    tree, _ = assemble(module, parts_of(module, config, states), "the gradients", jnp.float32)
    return flatten_dict(tree, sep="/")


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_every_gradient_is_that_of_pytorch_with_a_mask_and_without(pair, encoder, decoder):
    """No mask is all ones here, which is compiled once; ``test_outputs`` compiles both."""
    pair = pair(encoder, decoder)
    inputs, mask = speech(ENCODERS[encoder])

    @jax.jit
    def differentiate(params, mask):
        return jax.grad(lambda p: pair.ours(inputs, mask, labels=text(), params=p).loss)(params)

    for their_mask in (None, mask) if pair.hears_masks else (None,):
        our_mask = np.ones_like(mask) if their_mask is None else mask
        ours = flatten_dict(differentiate(pair.ours.params, our_mask), sep="/")
        theirs = gradients_of_theirs(pair, inputs, their_mask)
        assert ours.keys() == theirs.keys()
        for path, expected in theirs.items():
            largest = np.abs(expected).max()
            np.testing.assert_allclose(
                ours[path], expected, rtol=0, atol=1e-4 * max(0.1, largest), err_msg=path
            )
            if path.endswith(("/kernel", "/weight")):
                assert largest > 0, f"{path} was not tested: nothing depends on it"
