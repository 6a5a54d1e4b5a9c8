"""wav2vec 2.0 with conformer layers (Baevski et al., 2020; Gulati et al., 2020).

Behaviour matched: transformers 5.23 ``Wav2Vec2ConformerModel``.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers import conformer_names, waveform_encoder
from speech_ed_flax.layers.batch_counters import with_counters, without_counters
from speech_ed_flax.layers.conformer import ConformerConfig, ConformerEncoder
from speech_ed_flax.layers.relative_positions import rotary_rates
from speech_ed_flax.layers.waveform_encoder import (
    FRESH,
    UNUSED,
    WaveformEncoder,
    WaveformEncoderConfig,
    without_unread_mask,
)
from speech_ed_flax.types import State


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2ConformerConfig(WaveformEncoderConfig):
    """Shape of a wav2vec 2.0 encoder of conformer layers.

    Attributes:
        unread_size: kernel of the convolution that nothing reads; ``unread_groups`` its groups.
    """

    layer: ConformerConfig
    unread_size: int
    unread_groups: int

    @classmethod
    def from_hf(cls, hf: Any) -> "Wav2Vec2ConformerConfig":
        """Reads a ``Wav2Vec2ConformerConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        groups = hf.num_conv_pos_embedding_groups
        if groups < 1 or hf.hidden_size % groups:
            raise ConfigError(
                f"hidden_size={hf.hidden_size} is not divisible by "
                f"num_conv_pos_embedding_groups={groups}."
            )
        kinds = ("relative", "rotary", None)
        return cls(
            **cls.shared(hf),
            layer=conformer_names.layer_from_hf(
                hf, kinds, causal=False, norm="batch", last_norm=True
            ),
            unread_size=hf.num_conv_pos_embeddings,
            unread_groups=groups,
        )


class UnreadConvolution(nn.Module):
    """The positional convolution of wav2vec 2.0: checkpoints hold it and nothing ever reads it."""

    config: Wav2Vec2ConformerConfig

    @nn.compact
    def __call__(self) -> None:
        """Creates its parameters, so that they are loaded and saved with the others."""
        size, width = self.config.unread_size, self.config.layer.width
        shape = (size, width // self.config.unread_groups, width)
        self.param("direction", nn.initializers.normal(), shape)
        self.param("magnitude", nn.initializers.ones, (size, 1, 1))
        self.param("bias", nn.initializers.zeros, (width,))


class Wav2Vec2Conformer(WaveformEncoder):
    """Conformer layers, whose attention knows where frames stand."""

    config: Wav2Vec2ConformerConfig

    @nn.compact
    def transform(self, x, real):
        """Transforms ``x``; upstream's convolutions hear padded frames."""
        config, layer = self.config, self.config.layer
        UnreadConvolution(config, name="unread_positions")()
        rates = None
        if layer.positions == "rotary":
            usual = rotary_rates(layer.width // layer.heads, layer.rotary_base)
            rates = jax.lax.stop_gradient(self.param("rates", lambda _: jnp.asarray(usual)))
        seen = None if real is None else real[:, None, None, :]
        silenced = None if config.padding == "exact" else real
        positions = layer.read_positions(x.shape[1], rates)
        encoder = ConformerEncoder(layer, config.layers, name="transformer")
        return encoder(x, seen, silenced, positions)


def regular(state: State, config: Wav2Vec2ConformerConfig) -> State:
    """Drops the counters of batch norms and a SpecAugment vector that the config does not use."""
    return without_counters(without_unread_mask(state, config))


def irregular(state: State, config: Wav2Vec2ConformerConfig) -> State:
    """Gives batch norms their counters back."""
    del config
    return with_counters(state)


NAMES = {
    "unread_positions": "encoder.pos_conv_embed.conv",
    "rates": "encoder.embed_positions.inv_freq",
    "transformer/layers_{}/convolution/norm": conformer_names.LAYER + "conv_module.batch_norm",
}

WAV2VEC2_CONFORMER = Family(
    config=Wav2Vec2ConformerConfig,
    module=Wav2Vec2Conformer,
    names=waveform_encoder.NAMES | conformer_names.NAMES | NAMES,
    aliases=((r"^wav2vec2_conformer\.", ""),),
    unused=UNUSED,
    fresh=FRESH,
    regular=regular,
    irregular=irregular,
)
