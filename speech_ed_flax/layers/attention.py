"""Attention that knows neither self nor cross nor cached."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.layers.attend import attend, attention_weights, mix
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.types import Array, Bool, Float, Int, Size


class KeyValue(NamedTuple):
    """Keys and values of one layer, heads before time.

    With the heads in front, a step of decoding updates and reads the cache in place; with time in
    front XLA:CPU transposes all of it at every step.
    """

    key: Float[Array, "batch heads source head_dim"]
    value: Float[Array, "batch heads source head_dim"]

    def write(self, new: "KeyValue", position: Int[Array, ""] | int) -> "KeyValue":
        """Returns these with ``new`` written at ``position`` on."""
        at = (0, 0, position, 0)
        return KeyValue(
            *(
                jax.lax.dynamic_update_slice(old, part, at)
                for old, part in zip(self, new, strict=True)
            )
        )


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., 2017).

    Attributes:
        width: of queries and output.
        heads: divides ``width``.
        key_bias: whether keys have a bias (Whisper's do not).
        scale: of the scores; ``None`` is ``head_dim ** -0.5``.
        dropout: rate on the attention weights.
        kernel: that computes it; see ``attend``.
        use_bias: whether any of the four projections has a bias (BigBird-Pegasus's do not).
        kv_heads: heads of keys and values, each for ``heads / kv_heads`` heads of queries in a row
            (Ainslie et al., 2023); ``None`` is one for each.
    """

    width: int
    heads: int
    key_bias: bool = True
    scale: float | None = None
    dropout: float = 0.0
    kernel: str = "xla"
    use_bias: bool = True
    kv_heads: int | None = None

    def setup(self):
        """Creates the four projections."""
        narrow = (self.kv_heads or self.heads) * (self.width // self.heads)
        self.query = Dense(self.width, self.use_bias)
        self.key = Dense(narrow, self.use_bias and self.key_bias)
        self.value = Dense(narrow, self.use_bias)
        self.out = Dense(self.width, self.use_bias)
        self.drop = Dropout(self.dropout)

    def _split(
        self, x: Float[Array, "batch time width"]
    ) -> Float[Array, "batch heads time head_dim"]:
        batch, time, _ = x.shape
        return x.reshape(batch, time, -1, self.width // self.heads).swapaxes(1, 2)

    def _fold(self, x: Array, target: Size) -> Array:
        """Lays the heads that read one head of keys behind each other: more queries, fewer heads.

        So keys are read once and none is copied, whatever computes the attention.
        """
        if self.kv_heads in (None, self.heads) or x.shape[1:3] == (1, 1):
            return x
        x = jnp.broadcast_to(x, (x.shape[0], self.heads, target, x.shape[3]))
        return x.reshape(x.shape[0], self.kv_heads, -1, x.shape[3])

    def project(
        self,
        source: Float[Array, "batch source other"],
        values: Float[Array, "batch source other"] | None = None,
    ) -> KeyValue:
        """Projects ``source`` to keys and, unless other ``values`` are given, to values."""
        values = source if values is None else values
        return KeyValue(self._split(self.key(source)), self._split(self.value(values)))

    def __call__(
        self,
        x: Float[Array, "batch target width"],
        key_value: KeyValue,
        mask: Bool[Array, "#batch #heads #target source"] | None = None,
        bias: Float[Array, "#batch #heads #target source"] | Callable[[Array], Array] | None = None,
        turn: Callable[[Array], Array] | None = None,
    ) -> Float[Array, "batch target width"]:
        """Reads ``key_value`` for each position of ``x``.

        What is added to the scores may depend on the queries: ``bias`` is then called with them,
        ``[batch, heads, target, head_dim]`` and scaled. Before that, ``turn`` may turn them by
        their positions. A query that sees no key reads zero (not the mean of what it must not see).
        The weights are kept only for who captures them (``mutable=["intermediates"]``).
        """
        scale = self.scale if self.scale is not None else (self.width // self.heads) ** -0.5
        query = self._split(self.query(x)) * scale
        if turn is not None:
            query = turn(query)
        added = bias(query) if callable(bias) else bias
        whole = (*query.shape[:3], key_value.key.shape[2])
        query = self._fold(query, x.shape[1])
        mask, added = (None if p is None else self._fold(p, x.shape[1]) for p in (mask, added))
        wanted = self.is_mutable_collection("intermediates")
        if wanted or (self.dropout and self.has_rng("dropout")):
            weights = attention_weights(query, key_value.key, mask, added)
            self.sow("intermediates", "weights", weights.reshape(whole))
            mixed = mix(self.drop(weights), key_value.value)
        else:
            mixed = attend(query, *key_value, mask, added, self.kernel)
        mixed = mixed.reshape(*whole[:3], -1)
        return self.out(mixed.swapaxes(1, 2).reshape(x.shape))
