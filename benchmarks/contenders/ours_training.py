"""This package, training."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.memory import keep_memory
from speech_ed_flax.model import with_layers
from speech_ed_flax.training.settings import OptimizerSettings, StepSettings
from speech_ed_flax.training.state import create
from speech_ed_flax.training.step import Batch, make_train_step

PACKAGES = ("speech_ed_flax", "jax", "jaxlib", "flax", "optax", "numpy")


def load(
    request: dict[str, Any], precision: str = "float32", scan: bool = False
) -> Callable[[], float]:
    """Returns a function that takes a step and returns its loss; memory is kept, as by ``train``.

    Args:
        request: see ``trainings.request_for``.
        precision: of the computation.
        scan: whether layers are compiled once and looped over.
    """
    keep_memory()
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(request["folder"])
    module = with_layers(model.module, scan=scan, layer_drop=0.0)
    settings = StepSettings(
        model.config.pad_token_id,
        model.config.decoder_start_token_id,
        optimizer=OptimizerSettings(**request["optimizer"]),
        precision=precision,
        dropout=request["dropout"],
        augment=False,
    )
    state, train_step = create(module, model.params, settings), make_train_step(module, settings)
    del model
    batch = Batch(*(jnp.asarray(np.load(request[name])) for name in ("inputs", "labels")))

    def step() -> float:
        nonlocal state
        state, metrics = train_step(state, batch)
        return float(metrics.loss)

    return step
