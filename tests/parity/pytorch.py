"""PyTorch twins of our models: the same configuration and the same random weights."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import joint
from transformers import (
    GenerationMixin,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    WhisperForConditionalGeneration,
)
from wrappers import HEARING, WRITING

from speech_ed_flax import FlaxSpeechEncoderDecoderModel

torch = pytest.importorskip("torch")
torch.set_num_threads(1)


@dataclass(frozen=True)
class Pair:
    """One model twice.

    Attributes:
        theirs: PyTorch's, in evaluation mode.
        ours: read from the checkpoint that PyTorch wrote.
    """

    theirs: Any
    ours: FlaxSpeechEncoderDecoderModel

    @property
    def hears_masks(self) -> bool:
        """Whether PyTorch's decoder can be told which of the encoder's states are padding."""
        whisper = "whisper"
        config = self.ours.config
        return config.decoder.model_type != whisper or config.encoder.model_type == whisper

    def call(self, inputs: np.ndarray, mask: np.ndarray | None, **given: np.ndarray) -> Any:
        """Returns the output of PyTorch's model: logits, states and, given labels, the loss."""
        if not self._is_whisper:  # whose mask is for SpecAugment only
            given["attention_mask"] = mask
        tensors = {name: tensor(array) for name, array in given.items()}
        return self.theirs(tensor(inputs), **tensors)

    def generate(self, inputs: np.ndarray, mask: np.ndarray | None, **settings: Any) -> Any:
        """Returns what PyTorch generates, with scores.

        The generation is transformers' own: Whisper's, for long recordings, is another algorithm.
        """
        found = GenerationMixin.generate(
            self.theirs,
            tensor(inputs),
            attention_mask=tensor(mask),
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
        return found

    @property
    def _is_whisper(self) -> bool:
        return isinstance(self.theirs, WhisperForConditionalGeneration)

    def joint_names(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Returns tensors of ``theirs`` by the names that a joint checkpoint gives them."""
        if not self._is_whisper:
            return tensors
        return {
            name.removeprefix("model.")
            if name.startswith("model.encoder.")
            else f"decoder.{name}": tensor
            for name, tensor in tensors.items()
        }


def tensor(array: np.ndarray | None) -> Any:
    """Returns a tensor of ``array``; None for None."""
    return None if array is None else torch.from_numpy(np.array(array))


def build(encoder: Any, decoder: Any, folder: Path) -> Pair:
    """Builds a model of two transformers configurations on both sides.

    The weights go through ``folder``, written by PyTorch and read by us.
    """
    twin = _whisper(decoder) if encoder == decoder else _joint(joint(encoder, decoder))
    draw(twin)
    twin.eval().save_pretrained(folder)
    return Pair(twin, FlaxSpeechEncoderDecoderModel.from_pretrained(folder))


def _whisper(config: Any) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration(type(config).from_dict(config.to_dict()))


def _joint(config: SpeechEncoderDecoderConfig) -> SpeechEncoderDecoderModel:
    hearing, writing = (
        HEARING.get(config.encoder.model_type),
        WRITING.get(config.decoder.model_type),
    )
    encoder = None if hearing is None else hearing(config.encoder)
    decoder = None if writing is None else writing(config.decoder)
    twin = SpeechEncoderDecoderModel(config, encoder, decoder)
    if getattr(config.decoder, "cross_attention_hidden_size", None) is not None:
        return twin
    width = config.encoder.hidden_size
    if getattr(config.encoder, "add_adapter", False):
        width = getattr(config.encoder, "output_hidden_size", width)
    projection = getattr(twin, "enc_to_dec_proj", None)
    if width != config.decoder.hidden_size and getattr(projection, "in_features", 0) != width:
        # Upstream sizes the projection by hidden_size, adapter or not, and leaves it out where
        # output_hidden_size is the decoder's width, adapter or not. Such models crash there.
        twin.enc_to_dec_proj = torch.nn.Linear(width, config.decoder.hidden_size)
        twin.encoder_output_dim = width
    return twin


def draw(model: Any) -> None:
    """Gives every tensor random numbers, large enough that no two scores are almost equal.

    Gradients are wanted of all of them, of Whisper's frozen positions too.
    """
    model.requires_grad_(True)
    noise = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    for name, values in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        fan_in = values[0].numel() if values.ndim == 3 else 25
        numbers = 1.5 * fan_in**-0.5 * noise(values.shape)
        is_scale = (values.ndim == 1 and name.endswith("weight")) or name.endswith("original0")
        if is_scale or name.endswith("running_var"):
            numbers = numbers.exp()
        values.copy_(numbers)
