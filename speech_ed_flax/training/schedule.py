"""Learning rates over the updates of a training, as transformers' schedules define them."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from speech_ed_flax.training.settings import OptimizerSettings

UNWARMED = 10_000
"""Updates after which an inverse-sqrt schedule without warm-up has fallen to ``2 ** -0.5``."""


def schedule(settings: OptimizerSettings) -> optax.Schedule:
    """Returns the learning rate as a function of the updates made before."""
    falling = _FALLING[settings.schedule](settings)
    if not settings.warmup_steps:
        return falling
    rising = optax.linear_schedule(0.0, settings.learning_rate, settings.warmup_steps)
    return optax.join_schedules([rising, falling], [settings.warmup_steps])


def _constant(settings: OptimizerSettings) -> optax.Schedule:
    return optax.constant_schedule(settings.learning_rate)


def _linear(settings: OptimizerSettings) -> optax.Schedule:
    last = settings.learning_rate * settings.final
    return optax.linear_schedule(settings.learning_rate, last, _remaining(settings))


def _cosine(settings: OptimizerSettings) -> optax.Schedule:
    steps = _remaining(settings)
    return optax.cosine_decay_schedule(settings.learning_rate, steps, settings.final)


def _inverse_sqrt(settings: OptimizerSettings) -> optax.Schedule:
    scale = settings.warmup_steps or UNWARMED
    # A joined schedule is asked for what is before its beginning too.
    return lambda count: settings.learning_rate * jnp.sqrt(scale / (jnp.maximum(count, 0) + scale))


def _tri_stage(settings: OptimizerSettings) -> optax.Schedule:
    """Holds the rate, then lets it fall exponentially (wav2vec 2.0; Baevski et al., 2020)."""
    falling = optax.exponential_decay(
        settings.learning_rate,
        _remaining(settings) - settings.hold_steps,
        settings.final,
        end_value=settings.learning_rate * settings.final,
    )
    return optax.join_schedules([_constant(settings), falling], [settings.hold_steps])


def _remaining(settings: OptimizerSettings) -> int:
    """Returns the updates after the warm-up; the settings made sure that there are some."""
    return (settings.steps or 0) - settings.warmup_steps


_FALLING: dict[str, Callable[[OptimizerSettings], optax.Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse-sqrt": _inverse_sqrt,
    "tri-stage": _tri_stage,
}
