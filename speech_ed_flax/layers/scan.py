"""Layers that are compiled once and looped over, each with the parameters that it has alone.

A checkpoint knows nothing of it: parameters are stacked inside the step, and their gradients come
apart again. The loop takes the time and memory of the copies, and saves most of the compilation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.types import Array


def scan_layers(
    stack: nn.Module,
    layers: Sequence[nn.Module],
    call: Callable[[Callable[..., Any], Array, Any], Array],
    x: Array,
    each: Sequence[Any] = (),
) -> Array:
    """Returns ``x`` after all layers.

    With a ``"dropout"`` key layers are skipped at the stack's ``layer_drop``.

    Args:
        stack: the module that they belong to, with its ``config``.
        layers: alike but for their parameters.
        call: ``(apply, x, one) -> x``, where ``apply`` calls a layer, and ``one`` is its own of
            ``each``.
        x: what the first layer reads.
        each: one pytree a layer, all of the same shapes; empty if layers read nothing of their own.
    """
    count, rate = len(layers), stack.config.layer_drop
    layer = layers[0].clone(parent=None, name=None)
    params = _stacked([one.variables["params"] for one in layers])
    dropping = stack.has_rng("dropout")
    keys = jax.random.split(stack.make_rng("dropout"), count) if dropping else None
    skipped = None
    if dropping and rate:
        skipped = jax.random.bernoulli(stack.make_rng("dropout"), rate, (count,))
        if stack.config.first_stays:
            skipped = skipped.at[0].set(False)

    def body(x: Array, one: Any) -> tuple[Array, None]:
        params, key, skip, own = one
        rngs = {} if key is None else {"dropout": key}
        after = call(partial(layer.apply, {"params": params}, rngs=rngs), x, own)
        return (after if skip is None else jnp.where(skip, x, after)), None

    own = _stacked(each) if each else None
    return jax.lax.scan(body, x, (params, keys, skipped, own))[0]


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
