"""Disentangled attention (DeBERTa; He et al., 2021).

A score is the sum of what the contents of query and key say to each other, what the query says to
the position of the key and what the key says to the position of the query. Positions are relative:
rows of one table for all layers.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.layers.attention import Attention
from speech_ed_flax.layers.linear import Dense, Embed
from speech_ed_flax.layers.norm import LayerNorm
from speech_ed_flax.layers.relative import by_key
from speech_ed_flax.layers.sizes import count, tabulate
from speech_ed_flax.layers.transformer import EncoderLayer, LayerConfig, encode_by_layers
from speech_ed_flax.types import Array, Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class DisentangledConfig(LayerConfig):
    """Shape of a layer and of the table of positions.

    Attributes:
        span: rows of the table on each side: distances, or buckets of them.
        farthest: distance up to which there are buckets; None if each distance has its own row.
        to_key: whether a query reads the position of a key.
        to_query: whether a key reads the position of a query.
        shared: whether positions are projected by the weights of contents.
        table_norm: whether the table is normalised.
    """

    span: int
    farthest: int | None
    to_key: bool
    to_query: bool
    shared: bool
    table_norm: bool

    def scale(self, index: int) -> float:
        """Returns the factor of the attention scores, which have up to three parts."""
        parts = 1 + self.to_key + self.to_query
        return (self.width // self.heads * parts) ** -0.5


def rows_of(
    distances: Int[np.ndarray, " distances"], span: int, farthest: int | None
) -> Int[np.ndarray, " distances"]:
    """Returns the row of the table for each distance from key to query.

    Distances up to half the span have a row each, farther ones share rows for ever wider ranges,
    to the last at ``farthest``. It is computed in float32 because upstream does so: where a range
    begins depends on it.
    """
    if farthest is not None:
        half = span // 2
        far = np.maximum(np.abs(distances), 1)
        ratio = np.log(far.astype(np.float32) / np.float32(half))
        ratio = ratio / np.log(np.float32((farthest - 1) / half)) * np.float32(half - 1)
        bucket = np.sign(distances) * (np.ceil(ratio).astype(np.int64) + half)
        distances = np.where(far <= half, distances, bucket)
    return np.clip(distances + span, 0, 2 * span - 1)


class DisentangledAttention(Attention):
    """Attention whose scores depend on relative positions through queries and through keys."""

    def setup(self):
        """Creates the projections; those of positions have parameters only if they are called."""
        super().setup()
        self.relative_key = Dense(self.width)
        self.relative_query = Dense(self.width)

    def positions(
        self,
        query: Float[Array, "batch heads frames head_dim"],
        key: Float[Array, "batch heads frames head_dim"],
        table: Float[Array, "rows width"],
        config: DisentangledConfig,
    ) -> Float[Array, "#batch #heads #frames frames"]:
        """Returns what positions add to the scores.

        Args:
            query: scaled already.
            key: of the same frames.
            table: of positions.
            config: of the layer.
        """
        frames = query.shape[2]
        distances = count(2 * frames) - (frames - 1)  # from a row's frame to the other one
        total = jnp.zeros((1, 1, 1, frames))

        def scores(x, projection, distances):
            rows = tabulate(lambda d: rows_of(d, config.span, config.farthest), distances)
            positions = self._split(projection(table)[None])[0, :, rows]
            scores = jnp.einsum("bhfd,chd->bhfc", x, positions, preferred_element_type=jnp.float32)
            return by_key(scores)

        if config.to_key:
            projection = self.key if config.shared else self.relative_key
            total += scores(query, projection, -distances)
        if config.to_query:
            projection = self.query if config.shared else self.relative_query
            scaled = key * config.scale(0)
            total += scores(scaled, projection, distances).swapaxes(2, 3)
        return total


class DisentangledLayer(EncoderLayer):
    """Disentangled self-attention, then feed-forward."""

    attention_kind = DisentangledAttention

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        mask: Bool[Array, "#batch #heads #frames frames"] | None,
        table: Float[Array, "rows width"],
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``; ``table`` is of the relative positions."""
        attention = self.self_attention

        def attend(y):
            key_value = attention.project(y)
            positions = partial(
                attention.positions,
                key=key_value.key,
                table=self.drop(table),
                config=self.config,
            )
            return attention(y, key_value, mask, positions)

        x = self._residual(x, self.self_attention_norm, attend)
        return self._residual(x, self.feed_forward_norm, self.feed_forward)


class DisentangledEncoder(nn.Module):
    """A stack of layers, with no norm of its own but that of the table of positions.

    Attributes:
        config: of every layer.
        depth: number of layers.
    """

    config: DisentangledConfig
    depth: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"] | None = None
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``, of which ``mask`` says what is real."""
        config = self.config
        table = Embed(2 * config.span, config.width, name="relative").embedding
        if config.table_norm:
            table = LayerNorm(config.epsilon, name="relative_norm")(table)
        seen = None if mask is None else mask[:, None, None, :]
        return encode_by_layers(self, DisentangledLayer, x, seen, table)
