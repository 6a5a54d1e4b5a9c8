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


def speech(inputs: Any, mask: Any | None, encoder: Any) -> tuple[Array, Any]:
    """Returns a batch of speech and its boolean mask as arrays.

    Args:
        inputs: waveforms ``[batch, samples]`` or features ``[batch, frames, mels]`` (Whisper's
            ``[batch, mels, frames]``).
        mask: which samples or frames are real ``[batch, samples or frames]``; None if all are.
        encoder: its frozen config.

    Raises:
        ConfigError: naming the argument, its shape and the shape it must have.
    """
    inputs = jnp.asarray(inputs)
    axes = encoder.features.axes
    if inputs.ndim != 1 + len(axes) or inputs.shape[0] == 0:
        layout = ", ".join(("batch", *axes))
        raise ConfigError(f"inputs has shape {list(inputs.shape)}: it must be [{layout}].")
    time_first = axes[0] != "mels"
    if time_first and inputs.shape[2:] != encoder.input_shape[1:]:
        raise ConfigError(
            f"inputs has {inputs.shape[2]} mels and this encoder hears {encoder.input_shape[1]}: "
            "extract features with the checkpoint's own settings."
        )
    if mask is None:
        return inputs, None
    mask = jnp.asarray(mask)
    expected = inputs.shape[:2] if time_first else (inputs.shape[0], mask.shape[-1])
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
