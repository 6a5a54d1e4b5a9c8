"""Every formulation of a convolution is the library's, forward and backward."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from formulations import (
    assert_bfloat16_stays_bfloat16,
    assert_values_and_gradients_are_the_same,
)
from jax import lax

from speech_ed_flax.layers.convolve import convolve

SHAPES = {
    "samples of wav2vec 2.0": {"time": 83, "inputs": 1, "outputs": 6, "size": 10, "stride": 5},
    "samples, padded": {
        "time": 20,
        "inputs": 1,
        "outputs": 4,
        "size": 3,
        "stride": 2,
        "padding": 1,
    },
    "as few samples as taps": {"time": 10, "inputs": 1, "outputs": 4, "size": 10, "stride": 5},
    "frames of wav2vec 2.0": {"time": 21, "inputs": 6, "outputs": 4, "size": 3, "stride": 2},
    "wider stride than kernel": {"time": 17, "inputs": 1, "outputs": 5, "size": 2, "stride": 3},
    "Whisper": {"time": 12, "inputs": 5, "outputs": 4, "size": 3, "padding": 1},
    "even kernel of positions": {
        "time": 9,
        "inputs": 8,
        "outputs": 8,
        "size": 16,
        "padding": 8,
        "groups": 4,
    },
    "odd kernel of positions": {
        "time": 30,
        "inputs": 6,
        "outputs": 6,
        "size": 19,
        "padding": 9,
        "groups": 2,
    },
    "fewer taps than a block": {
        "time": 7,
        "inputs": 6,
        "outputs": 12,
        "size": 3,
        "padding": 1,
        "groups": 3,
    },
    "more padding than sound": {
        "time": 1,
        "inputs": 4,
        "outputs": 4,
        "size": 32,
        "padding": 16,
        "groups": 2,
    },
    "no padding": {"time": 25, "inputs": 4, "outputs": 4, "size": 11, "groups": 2},
    "positions of SEW": {
        "time": 13,
        "inputs": 8,
        "outputs": 8,
        "size": 16,
        "stride": 2,
        "padding": 8,
        "groups": 2,
    },
    "stride that divides nothing": {
        "time": 23,
        "inputs": 4,
        "outputs": 4,
        "size": 7,
        "stride": 3,
        "padding": 3,
        "groups": 2,
    },
    "groups with a stride": {
        "time": 25,
        "inputs": 4,
        "outputs": 8,
        "size": 3,
        "stride": 2,
        "groups": 2,
    },
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def case(request):
    """Returns our function, the library's, an input and a kernel."""
    shape = dict(request.param)
    numbers = np.random.default_rng(0)
    time, inputs, outputs, size = (shape.pop(k) for k in ("time", "inputs", "outputs", "size"))
    x = numbers.standard_normal((3, time, inputs), np.float32)
    kernel = numbers.standard_normal((size, inputs // shape.get("groups", 1), outputs), np.float32)
    padding = shape.get("padding", 0)

    def library(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (shape.get("stride", 1),),
            [(padding, padding)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=shape.get("groups", 1),
            precision="highest",
        )

    return partial(convolve, **shape), library, jnp.asarray(x), jnp.asarray(kernel)


def test_values_and_gradients_are_the_librarys(case):
    assert_values_and_gradients_are_the_same(*case)


def test_bfloat16_stays_bfloat16(case):
    assert_bfloat16_stays_bfloat16(*case)
