"""Depthwise convolution over time: one kernel a channel, formulated for each backend."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.types import Array, Float, Size

Padding = tuple[int, int]
"""Zeros before and after the sequence."""


def depthwise(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size 1 width"],
    padding: Padding,
) -> Float[Array, "batch time2 width"]:
    """Convolves every channel with a kernel of its own.

    ``benchmarks/kernels.py depthwise`` compares the formulations: XLA:CPU takes 10 to 26 times as
    long for a convolution with as many groups as channels as for the same sum, tap by tap.

    Args:
        x: the sequence.
        kernel: one column a channel.
        padding: all of it before the sequence is causal.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _tap_by_tap(x, kernel, padding),
        default=partial(_library, padding=padding),
    )


def _library(x: Array, kernel: Array, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (1,),
        [padding],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )


def _shifted(x: Array, tap: Array, time: Size) -> Array:
    return lax.dynamic_slice_in_dim(x, tap, time, 1).astype(jnp.float32)


def _forward(x: Array, kernel: Array, padding: Padding) -> Array:
    """Adds the taps up in a loop: unrolled, they take longer to compile and no less to run."""
    padded = jnp.pad(x, ((0, 0), padding, (0, 0)))
    time = padded.shape[1] - len(kernel) + 1

    def add(tap, total):
        return total + _shifted(padded, tap, time) * kernel[tap]

    start = jnp.zeros((x.shape[0], time, x.shape[2]), jnp.float32)
    return lax.fori_loop(0, len(kernel), add, start).astype(x.dtype)


_tap_by_tap = jax.custom_vjp(_forward, nondiff_argnums=(2,))
"""``_forward`` with gradients that are loops over the taps as well."""


def _keep(x: Array, kernel: Array, padding: Padding):
    return _forward(x, kernel, padding), (x, kernel)


def _backward(padding: Padding, kept: tuple[Array, Array], change: Array):
    x, kernel = kept
    before, after = padding
    last = len(kernel) - 1
    back = _forward(change, kernel[::-1], (last - before, last - after))
    padded = jnp.pad(x, ((0, 0), padding, (0, 0)))

    def gradient(tap):
        return (_shifted(padded, tap, change.shape[1]) * change).sum((0, 1), keepdims=True)[0]

    return back, lax.map(gradient, jnp.arange(len(kernel))).astype(kernel.dtype)


_tap_by_tap.defvjp(_keep, _backward)
