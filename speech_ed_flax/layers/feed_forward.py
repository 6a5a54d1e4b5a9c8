"""The position-wise feed-forward network and the activations by their published names."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.types import Array, Float


def exact_gelu(x: Array) -> Array:
    """Computes GELU through erf: on XLA:CPU this form is faster than ``jax.nn.gelu``'s erfc."""
    return x * 0.5 * (1.0 + jax.lax.erf(x * 0.7071067811865476))


def quick_gelu(x: Array) -> Array:
    """Computes the sigmoid approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


_tanh_gelu = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": exact_gelu,
    "gelu_python": exact_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def check_activation(field: str, name: str) -> str:
    """Returns ``name`` if it is a known activation.

    Raises:
        ConfigError: naming the config ``field`` and the known activations.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ConfigError(f"{field}={name!r} is not supported: use one of {known}.")
    return name


class FeedForward(nn.Module):
    """Two dense layers with an activation between them.

    Attributes:
        width: of input and output.
        up_width: between the layers.
        activation: a key of ``ACTIVATIONS``.
        dropout: rate after the activation.
        use_bias: whether the layers have biases.
    """

    width: int
    up_width: int
    activation: str
    dropout: float = 0.0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... width"]) -> Float[Array, "... width"]:
        """Transforms each position of ``x``."""
        x = ACTIVATIONS[self.activation](Dense(self.up_width, self.use_bias, name="up")(x))
        return Dense(self.width, self.use_bias, name="down")(Dropout(self.dropout)(x))
