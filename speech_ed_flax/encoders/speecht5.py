"""The speech encoder of SpeechT5 (Ao et al., 2021).

Behaviour matched: transformers 5.23 ``SpeechT5EncoderWithSpeechPrenet``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.audio.features import SpeechT5Features
from speech_ed_flax.family import Family
from speech_ed_flax.layers import waveform_encoder
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.frame_positions import check_padding, frame_positions
from speech_ed_flax.layers.linear import Embed
from speech_ed_flax.layers.positional import PositionalConfig, PositionalConvolution
from speech_ed_flax.layers.transformer import EncoderLayer, LayerConfig, TransformerEncoder
from speech_ed_flax.layers.waveform_encoder import WaveformEncoder, WaveformEncoderConfig
from speech_ed_flax.types import Array, Bool, Float


@dataclass(frozen=True, kw_only=True)
class SpeechT5Config(WaveformEncoderConfig):
    """Shape of a SpeechT5 encoder.

    Attributes:
        positional: the convolution whose output is added to the frames.
        furthest: frames from which on distances between frames are not told apart.
    """

    positional: PositionalConfig
    furthest: int

    @property
    def features(self) -> SpeechT5Features:
        """What a new encoder hears."""
        return SpeechT5Features()

    @classmethod
    def from_hf(cls, hf: Any) -> "SpeechT5Config":
        """Reads a ``SpeechT5Config`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        check_padding(hf)
        layer = LayerConfig(
            width=hf.hidden_size,
            heads=hf.encoder_attention_heads,
            up_width=hf.encoder_ffn_dim,
            activation=check_activation("encoder.hidden_act", hf.hidden_act),
            pre_norm=False,
            epsilon=hf.layer_norm_eps,
            dropout=hf.hidden_dropout,
            attention_dropout=hf.attention_dropout,
            activation_dropout=hf.activation_dropout,
            layer_drop=hf.encoder_layerdrop,
        )
        return cls(
            **cls.shared(hf),
            layer=layer,
            positional=PositionalConfig.from_hf(hf),
            furthest=hf.encoder_max_relative_position,
        )


def match_distances(
    query: Float[Array, "batch heads frames head_dim"],
    distances: Float[Array, "distances head_dim"],
) -> Float[Array, "batch heads frames frames"]:
    """Returns how well each query matches the distance to each key (Shaw et al., 2018).

    Args:
        query: scaled already.
        distances: what stands for each, from the furthest key ahead to the furthest one behind.
    """
    matches = jnp.einsum("bhqd,nd->bhqn", query, distances, preferred_element_type=jnp.float32)
    times, furthest = jnp.arange(query.shape[2]), len(distances) // 2
    index = jnp.clip(times[:, None] - times, -furthest, furthest - 1) + furthest
    return jnp.take_along_axis(matches, index[None, None], axis=-1)


class RelativeLayer(EncoderLayer):
    """An encoder layer whose attention looks at distances."""

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        mask: Bool[Array, "batch #heads #frames frames"] | None,
        distances: Float[Array, "distances head_dim"],
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``; frames that ``mask`` hides are seen by nobody."""
        attention = self.self_attention

        def bias(query):
            return match_distances(query, distances)

        x = self._residual(
            x, self.self_attention_norm, lambda y: attention(y, attention.project(y), mask, bias)
        )
        return self._residual(x, self.feed_forward_norm, self.feed_forward)


class SpeechT5(WaveformEncoder):
    """Positions three times: by a convolution, by sinusoids and by distances."""

    silences_padding: ClassVar[bool] = False

    config: SpeechT5Config

    @nn.compact
    def transform(self, x, real):
        """Adds the positions to ``x`` and transforms the sum."""
        config = self.config
        x = x + PositionalConvolution(config.positional, name="positions")(x)
        x = x + frame_positions(x, real)
        count = 2 * config.furthest
        distances = Embed(count, config.layer.width // config.layer.heads, name="distances")
        stack = TransformerEncoder(config.layer, config.layers, RelativeLayer, name="transformer")
        return stack(x, real, distances(jnp.arange(count)))


def _name(wav2vec2: str) -> str:
    """Returns SpeechT5's name of a module that wav2vec 2.0 has as well."""
    if wav2vec2.startswith("encoder."):
        return f"wrapped_{wav2vec2}"
    return f"prenet.{wav2vec2.replace('feature_extractor', 'feature_encoder')}"


SPEECHT5 = Family(
    config=SpeechT5Config,
    module=SpeechT5,
    names={path: _name(name) for path, name in waveform_encoder.NAMES.items()}
    | {
        "positions": "prenet.pos_conv_embed.conv",
        "distances": "wrapped_encoder.embed_positions.pe_k",
    },
    aliases=((r"^(speecht5\.)?encoder\.", ""),),
    unused=(
        r"^(speecht5\.)?decoder\.",
        r"^(text_decoder|speech_decoder)_postnet\.",
        r"\.pos_sinusoidal_embed\.weights$",
    ),
    fresh=(r"^mask_embedding$",),
    regular=waveform_encoder.without_unread_mask,
)
