"""One step of training: a batch in, changed parameters out, in one compiled call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.labels import shift_tokens_right
from speech_ed_flax.model import SpeechEncoderDecoder, match_dtype
from speech_ed_flax.training.guide import guide_sum
from speech_ed_flax.training.loss import CTC_HEAD, Sums, ctc_sum, loss_sums
from speech_ed_flax.training.optimizer import optimizer, stop_frozen
from speech_ed_flax.training.schedule import schedule
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.training.sharding import (
    abstract_state,
    batch_sharding,
    check_rows,
    state_sharding,
)
from speech_ed_flax.training.state import TrainState
from speech_ed_flax.types import Array, Bool, Int, Params, PRNGKeyArray


@flax.struct.dataclass
class Batch:
    """Utterances and their texts.

    Attributes:
        inputs: waveforms ``[batch, samples]`` or features ``[batch, frames, mels]`` (Whisper's
            ``[batch, mels, frames]``).
        labels: tokens ``[batch, target]``; -100 does not count.
        mask: which samples or frames are real; None if all are.
        tokens: what the decoder reads ``[batch, target]``; None for the labels shifted right.
    """

    inputs: Any
    labels: Any
    mask: Any = None
    tokens: Any = None


@flax.struct.dataclass
class Metrics:
    """What a step tells; float32 scalars but for ``labels`` and ``skipped``.

    Attributes:
        loss: mean over the labels that count.
        cross_entropy: part of it, unweighted.
        ctc: part of it, unweighted; 0 where CTC is off.
        labels: how many counted.
        gradient_norm: global norm before clipping.
        learning_rate: before the factors of path rules.
        skipped: whether the batch changed nothing: its loss or a gradient was not finite, or it had
            no label that counts.
    """

    loss: Any
    cross_entropy: Any
    ctc: Any
    labels: Any
    gradient_norm: Any
    learning_rate: Any
    skipped: Any


def make_train_step(
    module: SpeechEncoderDecoder, settings: StepSettings, mesh: Mesh | None = None
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns ``train_step(state, batch) -> (state, metrics)``, compiled once per shape of batch.

    The memory of the state that it is given is reused for the one that it returns. On a mesh it
    takes what ``sharding.create_on`` and ``sharding.place_batch`` return.
    """
    if mesh is None:
        return jax.jit(partial(update, module, settings), donate_argnums=0)

    def checked(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        check_rows(mesh, len(batch.labels), settings.accumulate)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return update(module, settings, state, batch)

    state = state_sharding(mesh, abstract_state(module, settings))
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        checked,
        in_shardings=(state, batch_sharding(mesh)),
        out_shardings=(state, whole),
        donate_argnums=0,
    )


def update(
    module: SpeechEncoderDecoder, settings: StepSettings, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """Takes one step; traceable. See ``make_train_step``.

    Raises:
        ConfigError: if the batch does not divide into its micro-batches.
    """
    sums, totals = _accumulate(module, settings, state, batch)
    count = jnp.maximum(sums.labels, 1)
    norm = optax.tree.norm(totals) / count
    usable = jnp.isfinite(sums.loss) & jnp.isfinite(norm) & (sums.labels > 0)

    def change(params: Any, moments: Any) -> tuple[Any, Any]:
        transform = optimizer(settings.optimizer)
        changes, moments = transform.update(totals, moments, params, count=count, norm=norm)
        return optax.apply_updates(params, changes), moments

    # A choice between old and new tensors would need a copy of every old one.
    kept = (state.params, state.optimizer)
    params, moments = jax.lax.cond(usable, change, lambda *old: old, *kept)
    metrics = Metrics(
        loss=sums.loss / count,
        cross_entropy=sums.cross_entropy / count,
        ctc=sums.ctc / count,
        labels=sums.labels,
        gradient_norm=norm,
        learning_rate=jnp.asarray(schedule(settings.optimizer)(state.updates), jnp.float32),
        skipped=~usable,
    )
    skipped = state.skipped + ~usable
    average = _averaged(settings, state, params, usable)
    return TrainState(state.step + 1, skipped, state.key, params, moments, average), metrics


def _averaged(
    settings: StepSettings, state: TrainState, params: Params, usable: Bool[Array, ""]
) -> Params | None:
    """Returns the moving average after a step; it forgets its random beginning sooner."""
    if settings.average is None:
        return None
    begun = state.updates.astype(jnp.float32)
    kept = jnp.where(usable, jnp.minimum(settings.average, (1 + begun) / (10 + begun)), 1.0)
    return jax.tree.map(lambda old, new: new + kept * (old - new), state.average, params)


def _accumulate(
    module: SpeechEncoderDecoder, settings: StepSettings, state: TrainState, batch: Batch
) -> tuple[Sums, Params]:
    """Returns the sums, and the gradient of the sum of losses, over all micro-batches."""
    key = jax.random.fold_in(state.key, state.step)

    def loss(params, part, number):
        params = stop_frozen(params, settings.optimizer, state.updates)
        sums = forward(module, settings, params, part, jax.random.fold_in(key, number))
        return sums.loss, sums

    def add(totals, numbered):
        (_, sums), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, *numbered)
        return jax.tree.map(jnp.add, totals, (sums, gradients)), None

    zero = jnp.zeros(())
    nothing = Sums(zero, zero, zero, jnp.zeros((), jnp.int32))
    totals = (nothing, jax.tree.map(jnp.zeros_like, state.params))
    if settings.accumulate == 1:
        return add(totals, (batch, jnp.zeros((), jnp.int32)))[0]

    def loop(totals, numbered, unroll):
        return jax.lax.scan(add, totals, numbered, unroll=unroll)[0]

    numbered = (_split(batch, settings.accumulate), jnp.arange(settings.accumulate))
    # XLA:CPU convolves 20 to 60 times slower inside a loop: there it is unrolled.
    return jax.lax.platform_dependent(
        totals, numbered, cpu=partial(loop, unroll=True), default=partial(loop, unroll=False)
    )


def _split(batch: Batch, parts: int) -> Batch:
    """Returns the batch with an axis of micro-batches in front.

    Micro-batch ``i`` holds rows ``i, i + parts, ...``, so that rows that lie on several devices
    need not move between them.
    """

    def split(leaf):
        if leaf.shape[0] % parts:
            raise ConfigError(
                f"a batch of {leaf.shape[0]} utterances does not divide into accumulate={parts} "
                "micro-batches: choose a multiple."
            )
        return leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def forward(
    module: SpeechEncoderDecoder,
    settings: StepSettings,
    params: Params,
    batch: Batch,
    key: PRNGKeyArray,
) -> Sums:
    """Returns the loss of a batch as sums over its labels that count; traceable.

    Args:
        module: the model.
        settings: of the step.
        params: as in ``TrainState``.
        batch: all of it is computed at once.
        key: of dropout, layer drop and SpecAugment, where the settings have them on.
    """
    params = jax.tree.map(lambda leaf: leaf.astype(settings.precision), params)
    inputs = match_dtype(batch.inputs, params)
    tokens = batch.tokens
    if tokens is None:
        ids = (settings.pad_token_id, settings.decoder_start_token_id)
        tokens = shift_tokens_right(batch.labels, *ids)
    if settings.dropout and settings.loss.token_noise:
        vocab = module.decoder.config.vocab
        tokens = misread(tokens, jax.random.fold_in(key, 1), settings.loss.token_noise, vocab)
    outputs, kept = module.apply(
        {"params": {name: tree for name, tree in params.items() if name != CTC_HEAD}},
        inputs,
        tokens,
        None if batch.mask is None else batch.mask.astype(bool),
        method=_read,
        rngs=_keys(settings, key),
        mutable=["intermediates"] if settings.loss.guide else [],
    )
    logits, states, real = outputs
    ctc = guide = 0.0
    if settings.loss.ctc_weight:
        ctc = ctc_sum(params[CTC_HEAD], states, real, batch.labels, settings.loss)
    if settings.loss.guide:
        guide = guide_sum(kept["intermediates"], real, batch.labels)
    return loss_sums(logits, batch.labels, settings.loss, ctc, guide)


def _read(model: SpeechEncoderDecoder, inputs: Any, tokens: Any, mask: Any) -> Any:
    """Returns scores, encoder states and which of those are real."""
    states, mask = model.encode(inputs, mask)
    logits, _ = model.decode(tokens, model.context(states, mask))
    return logits, states, mask


def misread(
    tokens: Int[Array, "batch target"], key: PRNGKeyArray, share: float, vocab: int
) -> Int[Array, "batch target"]:
    """Returns ``tokens`` with a share of them, but never the first, replaced by any others."""
    chosen, other = jax.random.split(key)
    replaced = jax.random.bernoulli(chosen, share, tokens.shape).at[:, 0].set(False)
    return jnp.where(replaced, jax.random.randint(other, tokens.shape, 0, vocab), tokens)


def _keys(settings: StepSettings, key: PRNGKeyArray) -> dict[str, PRNGKeyArray]:
    dropout, augment = jax.random.split(key)
    keys = {"dropout": dropout} if settings.dropout else {}
    return keys | ({"augment": augment} if settings.augment else {})
