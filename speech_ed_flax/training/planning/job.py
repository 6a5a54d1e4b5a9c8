"""One program to compile: everything that its process must know."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.mesh import MeshSettings
from speech_ed_flax.model import SpeechEncoderDecoder
from speech_ed_flax.training.planning.report import Program
from speech_ed_flax.training.planning.topology import Topology
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.training.step import Batch


@dataclass(frozen=True)
class Job:
    """A program, for a shape of batch and a topology; it can be pickled.

    Attributes:
        program: "train" or "generate".
        module: the model.
        step: settings of the training step.
        mesh: how the devices are laid out.
        topology: the devices.
        batch: the shapes of a batch over all devices.
        generation: transformers' generation config, complete; only "generate" reads it.
    """

    program: Program
    module: SpeechEncoderDecoder
    step: StepSettings
    mesh: MeshSettings
    topology: Topology
    batch: Batch
    generation: Any = None


def batch_like(module: SpeechEncoderDecoder, shape: Shape) -> Batch:
    """Returns the shapes of a batch, of the features that a new encoder hears."""
    config = module.encoder.config
    inputs, length = config.input_shape, config.input_shape[-1]  # where it hears one length only
    if config.features.fixed_samples is None:
        features = config.features.shaped(config.input_shape)
        values, mask = features.features([np.zeros(0)], shape.samples)
        inputs, length = values.shape[1:], mask.shape[1]
    leaf = jax.ShapeDtypeStruct
    return Batch(
        inputs=leaf((shape.rows, *inputs), jnp.float32),
        labels=leaf((shape.rows, shape.labels), jnp.int32),
        mask=leaf((shape.rows, length), jnp.bool),
    )
