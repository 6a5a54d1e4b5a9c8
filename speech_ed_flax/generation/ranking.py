"""Ranking of scores without a sort, which over a vocabulary is slow on every backend."""

from functools import partial

import jax.numpy as jnp
from jax import lax

from speech_ed_flax.generation.processor import Real
from speech_ed_flax.types import Array, Bool, Float, Int


def largest(
    scores: Float[Array, "*batch choices"], count: int
) -> tuple[Float[Array, "*batch count"], Int[Array, "*batch count"]]:
    """Returns the ``count`` largest scores, in descending order, and their indices.

    The formulation is chosen here, for each backend, and nowhere else.
    """
    if count == 1:  # of equal scores, the approximate top-k of XLA:CPU keeps another one
        return _exact(scores, 1)
    return lax.platform_dependent(
        scores, cpu=partial(_batched, count=count), default=partial(_exact, count=count)
    )


def _exact(scores: Array, count: int) -> tuple[Array, Array]:
    values, indices = lax.top_k(scores, count)
    return values, indices


def _batched(scores: Array, count: int) -> tuple[Array, Array]:
    """Returns the same on XLA:CPU, whatever is sharded and whatever uses it.

    At full recall XLA:CPU calls the exact top-k for the approximate one too, but partitions it
    over the batch; ``top_k`` gathers the scores of all devices. The barrier keeps XLA:CPU from
    turning a sliced or fused top-k into a full sort, a hundred times slower over a vocabulary;
    XLA:GPU aborts at it inside ``shard_map``.
    """
    return tuple(lax.optimization_barrier(lax.approx_max_k(scores, count, recall_target=1.0)))


def last_of(
    scores: Float[Array, "rows choices"], count: int
) -> tuple[Float[Array, "rows 1"], Int[Array, "rows 1"]]:
    """Returns the last of the ``count`` best scores and its index; see :func:`not_after`."""
    values, indices = largest(scores[:, ::-1], count)
    return values[:, -1:], scores.shape[-1] - 1 - indices[:, -1:]


def last_to_reach(
    scores: Float[Array, "rows choices"], weights: Float[Array, "rows choices"], target: Real
) -> tuple[Float[Array, "rows 1"], Int[Array, "rows 1"]]:
    """Returns the score, and its index, at which the weights of the best sum to ``target`` > 0.

    That is the last of the shortest run of best scores that weighs enough. If nothing does, it
    lies below every score. See :func:`not_after` for what is better among equal scores.
    """
    ranks = _ordered_bits(scores)
    cut = _highest_cut(ranks, weights, target)

    def index_among_equal() -> Int[Array, "rows 1"]:
        indices = jnp.broadcast_to(jnp.arange(scores.shape[-1]), scores.shape)
        order = jnp.where(ranks > cut, scores.shape[-1], jnp.where(ranks == cut, indices, -1))
        return _highest_cut(order, weights, target, scores.shape[-1].bit_length() + 1)

    # Only where several equal the cut, which is rare in float32, does the index matter.
    tied = jnp.any(jnp.sum(ranks == cut, axis=-1) > 1)
    index = lax.cond(tied, index_among_equal, lambda: jnp.zeros_like(cut))
    return _from_ordered_bits(cut), index


def value_to_reach(
    scores: Float[Array, "rows choices"], weights: Float[Array, "rows choices"], target: Real
) -> Float[Array, "rows 1"]:
    """Returns the highest score such that it and all above it weigh at least ``target`` > 0.

    If not even all of them do, it is not above any score.
    """
    return _from_ordered_bits(_highest_cut(_ordered_bits(scores), weights, target))


def not_after(
    scores: Float[Array, "rows choices"], value: Float[Array, "rows 1"], index: Int[Array, "rows 1"]
) -> Bool[Array, "rows choices"]:
    """Returns where a score is ``value`` at ``index`` or better: larger, or equal and behind it.

    This is the order of an ascending stable sort read from its end, which upstream uses.
    """
    behind = jnp.arange(scores.shape[-1]) >= index
    return (scores > value) | ((scores == value) & behind)


def _highest_cut(
    ranks: Int[Array, "rows choices"],
    weights: Float[Array, "rows choices"],
    target: Real,
    bits: int = 32,
) -> Int[Array, "rows 1"]:
    """Returns the highest integer such that ranks at or above it weigh at least ``target``.

    Found by bisection, a bit of the answer at a time: one masked sum each, a twentieth of the
    cost of a sort. The answer lies in ``[-2 ** (bits - 1), 2 ** (bits - 1))``; if nothing weighs
    enough it is the lowest of these.
    """
    lowest = -(2 ** (bits - 1))

    def refine(step: Int[Array, ""], cut: Int[Array, "rows 1"]) -> Int[Array, "rows 1"]:
        # The first step adds half of the range: in int32 that wraps around to the same bits.
        raised = cut + jnp.left_shift(jnp.int32(1), bits - 1 - step)
        weight = jnp.sum(jnp.where(ranks >= raised, weights, 0), axis=-1, keepdims=True)
        return jnp.where(weight >= target, raised, cut)

    start = jnp.full((ranks.shape[0], 1), lowest, jnp.int32)
    return lax.fori_loop(0, bits, refine, start)


def _ordered_bits(values: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Returns int32 numbers in the same order as float32 ``values``, of which none is NaN."""
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)  # -0 is 0
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _from_ordered_bits(ordered: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Inverts :func:`_ordered_bits`; what is below every number becomes -inf."""
    ordered = jnp.maximum(ordered, _ordered_bits(jnp.float32(-jnp.inf)))
    bits = jnp.where(ordered < 0, ordered ^ jnp.int32(0x7FFFFFFF), ordered)
    return lax.bitcast_convert_type(bits, jnp.float32)
