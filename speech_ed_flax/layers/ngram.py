"""N-gram attention (ProphetNet; Qi et al., 2020): a second state of each token, which predicts.

The main state of a token is what later tokens read, as in any decoder. The predicting state stands
one position further, where the next token will be. It reads the main states up to its token's and
itself, nobody else reads it, and it alone is scored. The two states lie behind each other in the
width of the stack ``[rows, target, 2 * width]``.

The published models have a predicting state for each of the next ``ngram`` tokens. Those for later
ones are read by nobody either: they matter to upstream's loss of n-grams, which a joint model does
not compute, and are left out here.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.layers.attend import mix
from speech_ed_flax.layers.attention import Attention, KeyValue
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.transformer import DecoderLayer, LayerConfig, TransformerDecoder
from speech_ed_flax.types import Array, Bool, Float, Int


@dataclass(frozen=True)
class NgramLayerConfig(LayerConfig):
    """Shape of a layer with n-gram attention.

    Attributes:
        buckets: of distances; a query has a bias for each.
        farthest: distance from which on all are in the last bucket.
    """

    buckets: int = 32
    farthest: int = 128


def bucket_of_each(count: int, buckets: int, farthest: int) -> Int[np.ndarray, " count"]:
    """Returns the buckets of the distances 0, 1, 2, ...: first one each, then ever wider ones."""
    exact = buckets // 2
    distances = np.arange(count, dtype=np.float32)
    steps = np.log(np.maximum(distances, exact) / exact) / np.float32(math.log(farthest / exact))
    wide = np.minimum(exact + steps * (buckets - exact), buckets - 1)
    return np.where(distances < exact, distances, wide).astype(np.int32)


class NgramAttention(Attention):
    """Self-attention of both states, with a bias for the distance that each query decides.

    Attributes:
        buckets: of distances.
    """

    buckets: int = 32

    def setup(self):
        """Creates the four projections, and that of a state to its biases."""
        super().setup()
        self.relative = Dense(self.buckets * self.heads)

    def __call__(
        self,
        x: Float[Array, "batch both width"],
        main: KeyValue,
        own: KeyValue,
        mask: Bool[Array, "#batch 1 queries keys"],
        bucket: Int[Array, "both sources"],
    ) -> Float[Array, "batch both width"]:
        """Reads the main states, and each predicting state itself.

        Args:
            x: main states of all queries, then predicting states of all.
            main: keys and values of the main states.
            own: keys and values of ``x``.
            mask: which main states each query sees.
            bucket: of the distance to each key of ``main``, and to the query itself.
        """
        query = self._split(self.query(x)) * (self.width // self.heads) ** -0.5
        wide = {"preferred_element_type": jnp.float32}
        others = jnp.einsum("bhqd,bhkd->bhqk", query, main.key, **wide)
        itself = jnp.einsum("bhqd,bhqd->bhq", query, own.key, **wide)[..., None]
        scores = jnp.concatenate([others, itself], -1) + self._bias(x, bucket)
        seen = _seen_by_both(mask)
        weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min))
        weights = self.drop(jnp.where(seen, weights, 0.0))
        mixed = mix(weights[..., :-1], main.value)
        mixed += weights[..., -1:].astype(mixed.dtype) * own.value
        return self.out(mixed.swapaxes(1, 2).reshape(x.shape))

    def _bias(
        self, x: Float[Array, "batch both width"], bucket: Int[Array, "both sources"]
    ) -> Float[Array, "batch heads both sources"]:
        """Returns what each query adds to its scores of the keys at each distance."""
        biases = self.relative(x).reshape(*x.shape[:2], self.buckets, self.heads)
        return jnp.take_along_axis(jnp.moveaxis(biases, 3, 1), bucket[None, None], axis=-1)


def _seen_by_both(
    mask: Bool[Array, "#batch 1 queries keys"],
) -> Bool[Array, "#batch 1 both sources"]:
    """Adds the column of the query itself: a main state is a key of ``mask`` already."""
    main = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, 1)))
    predicting = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=True)
    return jnp.concatenate([main, predicting], axis=2)


class NgramLayer(DecoderLayer):
    """A decoder layer of main and predicting states."""

    config: NgramLayerConfig

    def _self_attention(self) -> NgramAttention:
        return NgramAttention(
            self.config.width,
            self.config.heads,
            dropout=self.config.attention_dropout,
            buckets=self.config.buckets,
        )

    def __call__(
        self,
        x: Float[Array, "batch queries states"],
        context: KeyValue,
        context_mask: Bool[Array, "batch #heads #both source"] | None,
        cache: KeyValue | None,
        index: Int[Array, ""] | int,
        mask: Bool[Array, "#batch #heads queries keys"],
        bucket: Int[Array, "both sources"],
    ) -> tuple[Float[Array, "batch queries states"], KeyValue | None]:
        """Transforms both states; see ``DecoderLayer``, and ``NgramAttention`` for ``bucket``.

        The cache holds the main states.
        """
        batch, queries, _ = x.shape
        # [batch, queries, 2 * width] -> [batch, 2 * queries, width]
        x = x.reshape(batch, queries, 2, -1).swapaxes(1, 2).reshape(batch, 2 * queries, -1)

        def attend_self(y):
            nonlocal cache
            own = self.self_attention.project(y)
            main = KeyValue(own.key[:, :, :queries], own.value[:, :, :queries])
            if cache is not None:
                main = cache = cache.write(main, index)
            return self.self_attention(y, main, own, mask, bucket)

        def attend_cross(y):
            return self.cross_attention(y, context, context_mask)

        x = self._residual(x, self.self_attention_norm, attend_self)
        x = self._residual(x, self.cross_attention_norm, attend_cross)
        x = self._residual(x, self.feed_forward_norm, self.feed_forward)
        return x.reshape(batch, 2, queries, -1).swapaxes(1, 2).reshape(batch, queries, -1), cache


class NgramDecoder(TransformerDecoder):
    """A stack of such layers, which all read the same buckets."""

    config: NgramLayerConfig
    kind: type[DecoderLayer] = NgramLayer

    def pairwise(
        self, target: int, length: int, slots: int, position: Int[Array, ""] | int
    ) -> tuple[Int[Array, "both sources"]]:
        """Returns the bucket of each distance, from main and predicting states to main ones."""
        table = bucket_of_each(length + 1, self.config.buckets, self.config.farthest)
        distances = (position + jnp.arange(target))[:, None] - jnp.arange(length)
        distances = jnp.repeat(jnp.repeat(distances, slots, axis=0), slots, axis=1)
        distances = jnp.maximum(jnp.concatenate([distances, distances + 1]), 0)
        return (jnp.pad(jnp.asarray(table)[distances], ((0, 0), (0, 1))),)
