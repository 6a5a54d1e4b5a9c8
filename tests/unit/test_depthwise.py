"""Every formulation of a depthwise convolution is the library's, forward and backward."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from formulations import (
    assert_bfloat16_stays_bfloat16,
    assert_values_and_gradients_are_the_same,
)
from jax import lax

from speech_ed_flax.layers.depthwise import depthwise
from speech_ed_flax.layers.plane import PlaneConvolution


def over_time(padding):
    """Returns ours and the library's convolution over time."""

    def library(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            [padding],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=x.shape[-1],
            precision="highest",
        )

    return partial(depthwise, padding=padding), library


def over_a_plane(size, stride):
    """Returns ours and the library's convolution over frames and mels."""

    def ours(x, kernel):
        params = {"kernel": kernel, "bias": jnp.zeros(kernel.shape[-1], kernel.dtype)}
        return PlaneConvolution(kernel.shape[-1], size, stride).apply({"params": params}, x)

    def library(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(size // 2, size // 2)] * 2,
            dimension_numbers=("NHWC", "WHIO", "NHWC"),
            feature_group_count=x.shape[-1],
            precision="highest",
        )

    return ours, library


CASES = {
    "same": (over_time((2, 2)), (3, 11, 4), (5, 1, 4)),
    "causal": (over_time((6, 0)), (2, 9, 3), (7, 1, 3)),
    "a kernel wider than the sequence": (over_time((4, 4)), (1, 3, 5), (9, 1, 5)),
    "one tap": (over_time((0, 0)), (2, 4, 3), (1, 1, 3)),
    "channels of a plane": (over_a_plane(3, 2), (2, 9, 6, 4), (3, 3, 1, 4)),
    "channels of a plane, stride 3": (over_a_plane(5, 3), (2, 10, 7, 4), (5, 5, 1, 4)),
    "a plane of one channel": (over_a_plane(3, 2), (2, 8, 5, 1), (3, 3, 1, 6)),
    "a plane of one frame": (over_a_plane(3, 2), (1, 1, 4, 1), (3, 3, 1, 2)),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """Returns our function, the library's, an input and a kernel."""
    (ours, library), *shapes = request.param
    numbers = np.random.default_rng(0)
    x, kernel = (jnp.asarray(numbers.standard_normal(shape, np.float32)) for shape in shapes)
    return ours, library, x, kernel


def test_values_and_gradients_are_the_librarys(case):
    assert_values_and_gradients_are_the_same(*case)


def test_bfloat16_stays_bfloat16(case):
    assert_bfloat16_stays_bfloat16(*case)
