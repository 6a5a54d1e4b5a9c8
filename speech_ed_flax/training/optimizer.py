"""The optimizer: optax's, with rules over parameter paths."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from speech_ed_flax.paths import first_match, map_paths
from speech_ed_flax.training.schedule import schedule
from speech_ed_flax.training.settings import OptimizerSettings
from speech_ed_flax.types import Array, Int, Params

FIXED = (
    r"^encoder/(.+/)?norm/(mean|variance)$",
    r"^encoder/positions/embedding$",
    r"^encoder/(rates$|unread_)",
    r"^decoder/positions/sinusoids$",
)
"""What is never trained: the statistics of batch norms, sinusoids and the rates of rotary positions
that checkpoints hold, and what they hold that nothing reads."""

ENCODER = r"^encoder/"


def optimizer(settings: OptimizerSettings) -> optax.GradientTransformationExtraArgs:
    """Returns the transformation of gradients into changes of the parameters.

    Gradients are clipped by their global norm, scaled by the algorithm, and joined by the weight
    decay; then come the learning rate and its factors. Frozen parameters have no state. An update
    takes sums of gradients, and the keywords of ``_mean_and_clip``.
    """
    trained = optax.chain(_ALGORITHMS[settings.name](settings), _decay(settings))
    groups: dict[Any, Any] = {"trained": trained, "frozen": optax.set_to_zero()}
    if settings.encoder_frozen_steps:
        starts: Any = lambda step: step >= settings.encoder_frozen_steps  # noqa: E731
        groups["later"] = optax.conditionally_mask(trained, starts)
    return optax.chain(
        _mean_and_clip(settings),
        optax.partition(
            groups, lambda tree: map_paths(lambda path, _: group(path, settings), tree)
        ),
        _multiply(settings),
        optax.scale_by_learning_rate(schedule(settings)),
    )


def _mean_and_clip(settings: OptimizerSettings) -> optax.GradientTransformationExtraArgs:
    """Divides sums of gradients by ``count``, and clips these means, whose ``norm`` is known.

    Both are one factor. Whatever else is between a gradient and the moments (a division, a choice)
    XLA:CPU writes to memory and reads again, which triples the time of an update.
    """

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None, **known: Any) -> tuple[Any, Any]:
        del params
        factor = 1 / known["count"]
        if settings.clip is not None:
            factor *= jnp.minimum(1.0, settings.clip / known["norm"])
        return jax.tree.map(lambda total: total * factor, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def group(path: str, settings: OptimizerSettings) -> str:
    """Returns whether a parameter is "frozen", trained "later" or "trained" from the start."""
    rules = [(pattern, "frozen") for pattern in (*FIXED, *settings.frozen)]
    if settings.encoder_frozen_steps:
        rules.append((ENCODER, "later"))
    return first_match(path, rules, "trained")


def stop_frozen(
    params: Params, settings: OptimizerSettings, updates: Int[Array, ""]
) -> dict[str, Any]:
    """Returns ``params`` with no gradient reaching those that update number ``updates`` leaves.

    So they count in no norm, and what is frozen for good costs no backward pass.
    """

    def stopped(path: str, leaf: Array) -> Array:
        kind = group(path, settings)
        if kind == "trained":
            return leaf
        still = jax.lax.stop_gradient(leaf)
        if kind == "frozen":
            return still
        return jnp.where(updates < settings.encoder_frozen_steps, still, leaf)

    return map_paths(stopped, params)


def _decay(settings: OptimizerSettings) -> optax.GradientTransformation:
    def decayed(path: str, update: Array, parameter: Array) -> Array:
        factor = settings.weight_decay * first_match(path, settings.weight_decays, 1.0)
        return update + factor * parameter if factor else update

    return optax.stateless(lambda updates, params: map_paths(decayed, updates, params))


def _multiply(settings: OptimizerSettings) -> optax.GradientTransformation:
    def multiplied(path: str, update: Array) -> Array:
        return update * first_match(path, settings.learning_rates, 1.0)

    return optax.stateless(lambda updates, _: map_paths(multiplied, updates))


def _adam(settings: OptimizerSettings) -> optax.GradientTransformation:
    return optax.scale_by_adam(
        settings.beta1, settings.beta2, settings.epsilon, mu_dtype=settings.state_dtype
    )


def _adafactor(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Factored second moments, no first one; steps in proportion to the parameters' size."""
    del settings
    return optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
    )


def _lion(settings: OptimizerSettings) -> optax.GradientTransformation:
    return optax.scale_by_lion(settings.beta1, settings.beta2, mu_dtype=settings.state_dtype)


def _sgd(settings: OptimizerSettings) -> optax.GradientTransformation:
    if not settings.beta1:
        return optax.identity()
    return optax.trace(settings.beta1, accumulator_dtype=settings.state_dtype)


_ALGORITHMS: dict[str, Callable[[OptimizerSettings], optax.GradientTransformation]] = {
    "adamw": _adam,
    "adafactor": _adafactor,
    "lion": _lion,
    "sgd": _sgd,
}
