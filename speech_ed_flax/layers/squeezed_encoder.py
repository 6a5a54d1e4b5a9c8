"""Encoders whose transformer reads squeezed frames: SEW's (Wu et al., 2022), of both kinds."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.layers import waveform_encoder
from speech_ed_flax.layers.feed_forward import ACTIVATIONS
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.positional import PositionalConfig, PositionalConvolution
from speech_ed_flax.layers.waveform_encoder import WaveformEncoder, WaveformEncoderConfig
from speech_ed_flax.types import Array, Bool, Float


@dataclass(frozen=True, kw_only=True)
class SqueezedEncoderConfig(WaveformEncoderConfig):
    """Shape of an encoder of squeezed frames.

    Attributes:
        squeeze: frames that the transformer reads as one.
        positional: the convolution whose output is added to the squeezed frames.
    """

    squeeze: int
    positional: PositionalConfig

    @staticmethod
    def shared(hf: Any, norm: str | None = None) -> dict[str, Any]:
        """Reads the names that the configs of both families share, as our fields.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return WaveformEncoderConfig.shared(hf, norm) | {
            "projection": hf.conv_dim[-1] != hf.hidden_size,
            "squeeze": hf.squeeze_factor,
            "positional": PositionalConfig.from_hf(hf, stride=hf.squeeze_factor),
        }


class SqueezedEncoder(WaveformEncoder):
    """Averages of some frames and their positions, a transformer, and as many frames as before.

    Frames that are left over at the end are read for the positions alone, and their states are 0.
    Behaviour matched: transformers 5.23. With ``padding="exact"`` a squeezed frame is seen if any
    of its frames is real. (Transformers 4.57 saw it if all of them were.) With ``"invariant"`` what
    is left over at the end of a clip is treated alike, whether padding comes after it or nothing.
    """

    config: Any

    def read(
        self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"] | None
    ) -> Float[Array, "batch frames width"]:
        """Transforms squeezed frames; a family's own, in a compact method."""
        raise TypeError(f"{type(self).__name__} must define read.")

    @nn.compact
    def transform(self, x, real):
        """Squeezes ``x``, transforms it and stretches the result."""
        config, frames = self.config, x.shape[1]
        exact = config.padding == "exact"
        x, real = _at_least(config.squeeze, x, real)
        positions = PositionalConvolution(config.positional, name="positions")(x)
        squeezed = _together(x, config.squeeze)
        x = squeezed.mean(2) + positions[:, : squeezed.shape[1]]
        mask = None
        if real is not None:
            parts = _together(real, config.squeeze)
            mask = parts.any(2) if exact else parts.all(2)
        x = self.read(x, mask)
        x = Dense(config.squeeze * config.layer.width, name="upsample")(x)
        x = ACTIVATIONS[config.front.activation](x)
        if mask is not None and not exact:
            x = jnp.where(mask[:, :, None], x, 0)
        x = x.reshape(x.shape[0], -1, config.layer.width)[:, :frames]
        return jnp.pad(x, ((0, 0), (0, frames - x.shape[1]), (0, 0)))


def _at_least(
    frames: int, x: Float[Array, "batch time width"], real: Bool[Array, "batch time"] | None
) -> tuple[Float[Array, "batch time2 width"], Bool[Array, "batch time2"] | None]:
    """Pads a batch of so few frames that they make no squeezed one, where upstream fails."""
    missing = frames - x.shape[1]
    if missing <= 0:
        return x, real
    real = jnp.ones(x.shape[:2], bool) if real is None else real
    return jnp.pad(x, ((0, 0), (0, missing), (0, 0))), jnp.pad(real, ((0, 0), (0, missing)))


def _together(x: Array, squeeze: int) -> Array:
    """Returns ``[batch, whole, squeeze, ...]``: frames that become one, without what is left."""
    whole = x.shape[1] // squeeze
    return x[:, : whole * squeeze].reshape(x.shape[0], whole, squeeze, *x.shape[2:])


NAMES = waveform_encoder.NAMES | {
    "feature_norm": "layer_norm",
    "feature_projection": "feature_projection",
    "positions": "encoder.pos_conv_embed.conv",
    "upsample": "encoder.upsample.projection",
}
"""Rows of a family's table."""
