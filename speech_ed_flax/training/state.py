"""The state of a training: everything that a step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from speech_ed_flax.model import SpeechEncoderDecoder
from speech_ed_flax.precision import refuse_integers, widen
from speech_ed_flax.training.loss import CTC_HEAD, ctc_head
from speech_ed_flax.training.optimizer import optimizer
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.types import Params


@flax.struct.dataclass
class TrainState:
    """What a step takes and returns; a pytree of arrays.

    Attributes:
        step: batches seen, int32. The keys of dropout and SpecAugment are folded from it.
        skipped: how many of them changed nothing, int32, because they were not finite.
        key: random key that never changes.
        params: float32 parameters of the model and, beside them, of the CTC head.
        optimizer: state of the optimizer.
        average: moving average of ``params``, by which the model is judged; None without one.
    """

    step: Any
    skipped: Any
    key: Any
    params: Any
    optimizer: Any
    average: Any = None

    @property
    def updates(self) -> Any:
        """How often the parameters were changed."""
        return self.step - self.skipped


def create(
    module: SpeechEncoderDecoder, params: Params, settings: StepSettings, seed: int = 0
) -> TrainState:
    """Returns the state before the first step.

    Args:
        module: the model.
        params: its parameters, in any floating precision. They are copied: a step gives the
            memory of its state to the next one.
        settings: of the step.
        seed: of every random number drawn while training.

    Raises:
        ConfigError: if the parameters are integers.
    """
    refuse_integers(params)
    key, head_key = jax.random.split(jax.random.key(seed))
    trained = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), dict(widen(params)))
    if settings.loss.ctc_weight:
        shape = module.decoder.config
        trained[CTC_HEAD] = ctc_head(head_key, shape.width, shape.vocab)
    zero = jnp.zeros((), jnp.int32)
    fresh = optimizer(settings.optimizer).init(trained)
    average = None if settings.average is None else jax.tree.map(jnp.copy, trained)
    return TrainState(zero, jnp.copy(zero), key, trained, fresh, average)


def judged(state: TrainState) -> Params:
    """Returns the parameters that the training is judged by: averaged if it averages them."""
    return state.params if state.average is None else state.average


def without_head(params: Params) -> dict[str, Any]:
    """Returns the parameters of the model alone, as a checkpoint holds them."""
    return {name: tree for name, tree in params.items() if name != CTC_HEAD}


def exported(state: TrainState) -> dict[str, Any]:
    """Returns the parameters of the model that the training made."""
    return without_head(judged(state))
