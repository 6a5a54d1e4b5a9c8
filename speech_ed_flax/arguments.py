"""Arrays that callers give: checked before jax would broadcast, clamp or split them in silence."""

from typing import Any

import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.types import Array


def one_of(name: str, value: Any | None, **aliases: Any | None) -> Any:
    """Returns the one argument that was given under its several names.

    Raises:
        ConfigError: if none or several were given.
    """
    given = [v for v in (value, *aliases.values()) if v is not None]
    if len(given) != 1:
        raise ConfigError(f"give exactly one of {', '.join((name, *aliases))}.")
    return given[0]


def speech(inputs: Any, mask: Any | None, input_shape: tuple[int, ...]) -> tuple[Array, Any]:
    """Returns a batch of speech and its boolean mask as arrays.

    Args:
        inputs: waveforms ``[batch, samples]`` or features ``[batch, mels, frames]``.
        mask: which samples are real ``[batch, samples]``; None if all are.
        input_shape: of the encoder's shortest input, without the batch.

    Raises:
        ConfigError: naming the argument, its shape and the shape it must have.
    """
    inputs = jnp.asarray(inputs)
    layout = "[batch, samples]" if len(input_shape) == 1 else "[batch, mels, frames]"
    if inputs.ndim != 1 + len(input_shape) or inputs.shape[0] == 0:
        raise ConfigError(f"inputs has shape {list(inputs.shape)}: it must be {layout}.")
    if mask is None:
        return inputs, None
    mask = jnp.asarray(mask)
    expected = inputs.shape if inputs.ndim == 2 else (inputs.shape[0], mask.shape[-1])
    if mask.shape != expected:
        raise ConfigError(
            f"attention_mask has shape {list(mask.shape)}: it must be {list(expected)}."
        )
    return inputs, mask.astype(bool)


def tokens(name: str, given: Any, batch: int, positions: int) -> Array:
    """Returns tokens ``[batch, target]`` as an array.

    Args:
        name: of the argument.
        given: the tokens.
        batch: number of utterances.
        positions: longest sequence of the decoder.

    Raises:
        ConfigError: naming the argument, its shape and what it must be.
    """
    given = jnp.asarray(given)
    if given.ndim != 2 or given.shape[0] != batch:
        raise ConfigError(f"{name} has shape {list(given.shape)}: it must be [{batch}, target].")
    if given.shape[1] > positions:
        raise ConfigError(
            f"{name} has {given.shape[1]} tokens but the decoder has {positions} positions."
        )
    return given
