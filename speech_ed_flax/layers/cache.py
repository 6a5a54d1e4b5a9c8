"""What a decoder keeps of the tokens before: keys and values, and who may read them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.layers.attention import KeyValue
from speech_ed_flax.types import Array, Bool, Float, Int, Size


class Cache(NamedTuple):
    """Keys and values of the self-attention of every layer.

    The hypotheses of an utterance (beams, or samples) write side by side: time ``t`` of slot ``k``
    is entry ``t * slots + k``. When a hypothesis continues another one, no key and no value moves:
    only ``ancestry`` changes, which says in whose slot the token at each time of each hypothesis
    was written, and everyone reads their ancestors alone.

    Attributes:
        layers: of shape ``[batch, kv heads, length * slots, head_dim]``.
        ancestry: slots; None if there is one hypothesis an utterance.
    """

    layers: tuple[KeyValue, ...]
    ancestry: Int[Array, "batch slots length"] | None

    @property
    def length(self) -> int:
        """Tokens that there is room for."""
        slots = 1 if self.ancestry is None else self.ancestry.shape[1]
        return self.layers[0].key.shape[2] // slots

    def continued(self, parents: Int[Array, "batch slots"]) -> "Cache":
        """Returns the cache in which hypothesis ``k`` continues hypothesis ``parents[:, k]``."""
        if self.ancestry is None:
            return self
        # Mapped over utterances, which needs no exchange when they are sharded.
        ancestry = jax.vmap(lambda of, parent: of[parent])(self.ancestry, parents)
        return self._replace(ancestry=ancestry)

    def extended(self, position: Int[Array, ""] | int, target: int) -> "Cache":
        """Returns the cache in which all write ``target`` tokens to their own slots."""
        if self.ancestry is None:
            return self
        batch, slots, _ = self.ancestry.shape
        own = own_slots(batch, slots, target)
        ancestry = lax.dynamic_update_slice_in_dim(self.ancestry, own, position, axis=2)
        return self._replace(ancestry=ancestry)


def own_slots(batch: Size, slots: int, length: int) -> Int[Array, "batch slots length"]:
    """Returns the ancestry of hypotheses that are all their own ancestors."""
    return jnp.broadcast_to(jnp.arange(slots)[None, :, None], (batch, slots, length))


def empty_cache(config: Any, rows: Size, length: int, dtype: Any, slots: int = 1) -> Cache:
    """Returns a cache that holds nothing yet.

    Args:
        config: of the decoder.
        rows: hypotheses of all utterances.
        length: tokens that there is room for.
        dtype: of keys and values.
        slots: hypotheses of one utterance.
    """
    layer, batch = config.layer, rows // slots
    heads = layer.kv_heads or layer.heads
    shape = (batch, heads, length * slots, layer.width // layer.heads)
    layers = tuple(
        KeyValue(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers)
    )
    return Cache(layers, jnp.zeros((batch, slots, length), jnp.int32) if slots > 1 else None)


def side_by_side(
    x: Float[Array, "rows target width"], batch: Size
) -> Float[Array, "batch queries width"]:
    """Lays the hypotheses of an utterance side by side at each time, as the cache does."""
    rows, target, width = x.shape
    return x.reshape(batch, rows // batch, target, width).swapaxes(1, 2).reshape(batch, -1, width)


def apart(x: Float[Array, "batch queries width"], slots: int) -> Float[Array, "rows target width"]:
    """Undoes ``side_by_side``."""
    batch, queries, width = x.shape
    x = x.reshape(batch, queries // slots, slots, width).swapaxes(1, 2)
    return x.reshape(batch * slots, queries // slots, width)


def visible(
    target: int,
    length: int,
    position: Int[Array, ""] | int,
    ancestry: Int[Array, "batch slots length"] | None,
    mask: Bool[Array, "rows length"] | None,
) -> Bool[Array, "#batch 1 queries keys"]:
    """Tells which keys each of ``target`` tokens from ``position`` on may see: its ancestors.

    With one hypothesis, ``position=1, target=2, length=4``::

        1 1 0 0
        1 1 1 0
    """
    times = position + jnp.arange(target)
    seen = (jnp.arange(length) <= times[:, None])[None, :, None, :, None]
    slots = 1
    if ancestry is not None:
        slots = ancestry.shape[1]
        seen = seen & (ancestry[:, None, :, :, None] == jnp.arange(slots))
    if mask is not None:
        seen = seen & mask.reshape(-1, 1, slots, length, 1)
    # [batch, target, slots, length, slots]
    return seen.reshape(seen.shape[0], 1, target * slots, length * slots)
