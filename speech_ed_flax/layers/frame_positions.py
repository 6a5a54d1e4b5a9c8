"""Sinusoids of frames, which fairseq's encoders count as it counts tokens."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.positions import fairseq_rows
from speech_ed_flax.layers.sizes import count
from speech_ed_flax.types import Array, Bool, Float

_PADDING = 1


def frame_positions(
    x: Float[Array, "batch frames width"], real: Bool[Array, "batch frames"] | None
) -> Float[Array, "#batch frames width"]:
    """Returns what is added to frames ``x``: sinusoids from position 2 on; 0 for padding.

    Args:
        x: of which only the shape and the precision matter.
        real: which frames are real; None if all are.
    """
    numbers = _PADDING + 1 + count(x.shape[1], np.float32)
    positions = jnp.asarray(fairseq_rows(numbers, x.shape[2])[None], x.dtype)
    return positions if real is None else jnp.where(real[:, :, None], positions, 0)


def check_padding(hf: Any) -> None:
    """Raises ConfigError where upstream confuses real frames with padding.

    It compares a mask of ones and zeros with the id of the padding token.
    """
    if hf.pad_token_id != _PADDING:
        raise ConfigError(
            f"encoder.pad_token_id={hf.pad_token_id!r} is not supported, because upstream takes it "
            f"for a kind of frame: use {_PADDING}."
        )
