"""WavLM (Chen et al., 2021): attention with gated relative positions.

Behaviour matched: transformers 5.23 ``WavLMModel``.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.attention import Attention
from speech_ed_flax.layers.linear import Dense, Embed
from speech_ed_flax.layers.positional import PositionalConfig, PositionalConvolution
from speech_ed_flax.layers.relative import by_key
from speech_ed_flax.layers.sizes import count, tabulate
from speech_ed_flax.layers.transformer import EncoderLayer, TransformerEncoder
from speech_ed_flax.layers.waveform_encoder import (
    FRESH,
    LAYER,
    NAMES,
    UNUSED,
    WaveformEncoder,
    WaveformEncoderConfig,
    layer_from_hf,
    without_unread_mask,
)
from speech_ed_flax.types import Array, Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class WavLMConfig(WaveformEncoderConfig):
    """Shape of a WavLM encoder.

    Attributes:
        positional: the convolution whose output is added to the frames.
        buckets: of distances between frames, half of them for what comes before.
        farthest: distance in frames from which on all are in the last bucket.
    """

    positional: PositionalConfig
    buckets: int
    farthest: int

    @classmethod
    def from_hf(cls, hf: Any) -> "WavLMConfig":
        """Reads a ``WavLMConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        if hf.num_buckets < 4 or hf.max_bucket_distance <= hf.num_buckets // 4:
            raise ConfigError(
                f"encoder.num_buckets={hf.num_buckets} and encoder.max_bucket_distance="
                f"{hf.max_bucket_distance} are not supported: use at least 4 buckets, and a "
                "distance of more than a fourth of them."
            )
        return cls(
            **cls.shared(hf),
            layer=replace(
                layer_from_hf(hf, hf.do_stable_layer_norm),
                bottleneck=None,  # upstream's WavLM has none, whatever its config says
                first_stays=True,  # upstream's first layer makes the positions of all
            ),
            positional=PositionalConfig.from_hf(hf),
            buckets=hf.num_buckets,
            farthest=hf.max_bucket_distance,
        )


def buckets_of(
    distances: Int[np.ndarray, " distances"], buckets: int, farthest: int
) -> Int[np.ndarray, " distances"]:
    """Returns the bucket of each distance from query to key, as T5 has them (Raffel et al., 2020).

    The first quarter of the buckets are for one distance each, the second for ever wider ranges;
    so are the third and the fourth, for keys that come after the query. It is computed in float32
    because upstream does so: where a range begins depends on it.
    """
    half, exact = buckets // 2, buckets // 4
    far = np.abs(distances)
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(np.log(farthest / exact)) * np.float32(half - exact)
    wide = np.minimum((np.float32(exact) + ratio).astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(far < exact, far, wide)


class GatedAttention(Attention):
    """Attention whose relative positions count for more or less, as the query says."""

    def setup(self):
        """Creates the projections and the gate."""
        super().setup()
        self.gate = Dense(8)
        self.gate_scale = self.param("gate_scale", nn.initializers.ones, (1, self.heads, 1, 1))

    def gated(
        self,
        x: Float[Array, "batch frames width"],
        positions: Float[Array, "heads frames frames"],
    ) -> Float[Array, "batch heads frames frames"]:
        """Returns ``positions`` times the gate of each query: a bias of the scores."""
        gates = self.gate(self._split(x))  # [batch, heads, frames, 8]
        gates = gates.reshape(*gates.shape[:-1], 2, 4).sum(-1)
        update, reset = jnp.split(jax.nn.sigmoid(gates), 2, -1)  # [batch, heads, frames, 1]
        return (update * (reset * self.gate_scale - 1) + 2) * positions


class WavLMLayer(EncoderLayer):
    """Self-attention with gated relative positions, then feed-forward."""

    attention_kind = GatedAttention

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        mask: Bool[Array, "#batch #heads #frames frames"] | None,
        positions: Float[Array, "heads frames frames"],
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``; ``positions`` are added to the scores, as much as a query says."""
        attention = self.self_attention

        def attend(y):
            return attention(y, attention.project(y), mask, attention.gated(y, positions))

        x = self._residual(x, self.self_attention_norm, attend)
        return self._residual(x, self.feed_forward_norm, self.feed_forward)


class WavLM(WaveformEncoder):
    """Positions by a wide convolution, then a transformer with relative ones."""

    config: WavLMConfig

    @nn.compact
    def transform(self, x, real):
        """Adds the positions to ``x`` and transforms the sum."""
        config = self.config
        x = x + PositionalConvolution(config.positional, name="positions")(x)
        relative = Embed(config.buckets, config.layer.heads, name="relative")
        frames = x.shape[1]
        distances = count(2 * frames) - (frames - 1)
        rows = tabulate(
            partial(buckets_of, buckets=config.buckets, farthest=config.farthest), distances
        )
        table = relative(rows).T  # [heads, ...]
        table = jnp.broadcast_to(table[:, None], (len(table), frames, 2 * frames))
        stack = TransformerEncoder(config.layer, config.layers, WavLMLayer, name="transformer")
        return stack(x, real, by_key(table))


WAVLM = Family(
    config=WavLMConfig,
    module=WavLM,
    names=NAMES
    | {
        "positions": "encoder.pos_conv_embed.conv",
        "relative": "encoder.layers.0.attention.rel_attn_embed",
        "transformer/layers_{}/self_attention/gate": LAYER + "attention.gru_rel_pos_linear",
        "transformer/layers_{}/self_attention/gate_scale": LAYER + "attention.gru_rel_pos_const",
    },
    aliases=((r"^wavlm\.", ""),),
    unused=UNUSED,
    fresh=FRESH,
    regular=without_unread_mask,
)
