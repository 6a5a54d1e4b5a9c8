"""The encoder of Whisper (Radford et al., 2022): log-mel frames in, states out.

Behaviour matched: transformers 5.23 ``WhisperEncoder``, which hears its padding as silence and
takes no mask.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.audio.features import LogMelFeatures
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers import seq2seq_encoder
from speech_ed_flax.layers.augment import SpecAugment, augment
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.feed_forward import exact_gelu
from speech_ed_flax.layers.linear import Embed
from speech_ed_flax.layers.seq2seq_encoder import layer_from_hf
from speech_ed_flax.layers.transformer import LayerConfig, TransformerEncoder
from speech_ed_flax.types import Array, Bool, Float


@dataclass(frozen=True)
class WhisperEncoderConfig:
    """Shape of a Whisper encoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        mels: bands of the log-mel spectrogram.
        positions: states of one clip, 1500 for 30 s; the input has twice as many frames.
        augment: what SpecAugment silences while training.
    """

    layer: LayerConfig
    layers: int
    mels: int
    positions: int
    augment: SpecAugment

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return self.layer.width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of every input, without the batch: mel bands and frames."""
        return (self.mels, 2 * self.positions)

    @property
    def features(self) -> LogMelFeatures:
        """What a new encoder hears, before it is fitted to ``input_shape``."""
        return LogMelFeatures()

    @classmethod
    def from_hf(cls, hf: Any) -> "WhisperEncoderConfig":
        """Reads a ``WhisperConfig`` of transformers."""
        return cls(
            layer=layer_from_hf(hf, key_bias=False),
            layers=hf.encoder_layers,
            mels=hf.num_mel_bins,
            positions=hf.max_source_positions,
            augment=SpecAugment.from_hf(hf),
        )


def sinusoids(key: Any, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """Returns the positions that a new encoder begins with: sines, then cosines, none random.

    Args:
        key: not used; initialisers have one.
        shape: positions and width.
        dtype: of the result.
    """
    del key
    rows, width = shape
    rates = 10_000.0 ** -jnp.linspace(0.0, 1.0, width // 2)
    angles = jnp.arange(rows)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1).astype(dtype)


class FrontEnd(nn.Module):
    """Two convolutions, the second of which halves the frames."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch frames mels"]) -> Float[Array, "batch half width"]:
        """Convolves log-mel frames."""
        x = exact_gelu(Convolution(self.width, 3, 1, 1, name="first")(x))
        return exact_gelu(Convolution(self.width, 3, 2, 1, name="second")(x))


class WhisperEncoder(nn.Module):
    """Log-mel frames in, states out."""

    config: WhisperEncoderConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch mels frames"],
        mask: Bool[Array, "batch any"] | None = None,
    ) -> tuple[Float[Array, "batch source width"], None]:
        """Encodes log-mel features, padded with silence to the length the model was trained on.

        Silence is part of what Whisper hears: ``mask`` tells SpecAugment alone where speech ends.

        Raises:
            ConfigError: if there are not ``2 * positions`` frames of ``mels`` bands.
        """
        config = self.config
        if features.shape[1:] != config.input_shape:
            raise ConfigError(
                f"input_features has shape {list(features.shape[1:])} but this encoder reads "
                f"{list(config.input_shape)} (mel bands, frames): extract features with the "
                "checkpoint's own settings."
            )
        x = features.swapaxes(1, 2)  # [batch, frames, mels]
        x = augment(self, x, None if mask is None else mask.sum(-1), config.augment)
        x = FrontEnd(config.width, name="feature_encoder")(x)
        positions = Embed(
            config.positions, config.width, embedding_init=sinusoids, name="positions"
        )
        x = x + positions(jnp.arange(config.positions))
        x = TransformerEncoder(config.layer, config.layers, name="transformer")(x)
        return x, None


ENCODER_FIELDS = (
    *("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layerdrop"),
    *("num_mel_bins", "max_source_positions", "apply_spec_augment"),
    *(f"mask_time_{field}" for field in ("prob", "length", "min_masks")),
    *(f"mask_feature_{field}" for field in ("prob", "length", "min_masks")),
)
"""Fields of a ``WhisperConfig`` that its encoder alone reads."""

NAMES = seq2seq_encoder.NAMES | {
    "feature_encoder/first": "conv1",
    "feature_encoder/second": "conv2",
    "positions": "embed_positions",
}

WHISPER = Family(
    config=WhisperEncoderConfig,
    module=WhisperEncoder,
    names=NAMES,
    aliases=seq2seq_encoder.ALIASES,
    unused=(r"^(model\.)?decoder\.", r"^proj_out\."),
)
