"""Transformers 4.57, the last with Flax, training; its step is compiled whole."""

# Its packages live in an environment of their own, unseen by type checkers.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from transformers import FlaxAutoModelForSpeechSeq2Seq
from transformers.models.bart.modeling_flax_bart import shift_tokens_right

PACKAGES = ("transformers", "jax", "jaxlib", "flax", "optax", "numpy")


def load(request: dict[str, Any]) -> Callable[[], float]:
    """Returns a function that takes a step and returns its loss."""
    model = FlaxAutoModelForSpeechSeq2Seq.from_pretrained(request["folder"], from_pt=True)
    model.config.encoder.layerdrop = 0.0
    labels = jnp.asarray(np.load(request["labels"]))
    start = (model.config.pad_token_id, model.config.decoder_start_token_id)
    batch = (jnp.asarray(np.load(request["inputs"])), shift_tokens_right(labels, *start), labels)
    state = TrainState.create(
        apply_fn=partial(model.__call__, train=request["dropout"]),
        params=model.params,
        tx=_optimizer(request["optimizer"]),
    )
    model._params = None  # only the state holds them, whose memory a step may reuse
    key = jax.random.key(0)

    def step() -> float:
        nonlocal state
        state, loss = _step(state, batch, key)
        return float(loss)

    return step


@partial(jax.jit, donate_argnums=0)
def _step(state: TrainState, batch: tuple[jax.Array, ...], key: jax.Array) -> Any:
    inputs, tokens, labels = batch
    dropout = jax.random.fold_in(key, state.step)

    def loss(params: Any) -> jax.Array:
        outputs = state.apply_fn(
            inputs, decoder_input_ids=tokens, params=params, dropout_rng=dropout
        )
        return optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels).mean()

    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradients), value


def _optimizer(settings: dict[str, Any]) -> optax.GradientTransformation:
    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(settings["clip"]),
        optax.adamw(
            settings["learning_rate"],
            eps=settings["epsilon"],
            weight_decay=settings["weight_decay"],
            mask=decayed,
        ),
    )
