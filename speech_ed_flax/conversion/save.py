"""Models to folders that PyTorch transformers, and this package, load."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from speech_ed_flax.conversion.assemble import export
from speech_ed_flax.conversion.load import parts_of
from speech_ed_flax.conversion.msgpack import write_msgpack
from speech_ed_flax.conversion.names import torch_name
from speech_ed_flax.conversion.replacement import replacing
from speech_ed_flax.conversion.shards import write_sharded
from speech_ed_flax.encoders import ENCODERS
from speech_ed_flax.encoders.whisper import ENCODER_FIELDS
from speech_ed_flax.model import SpeechEncoderDecoder
from speech_ed_flax.types import Params, State

SHARD_SIZE = 5_000_000_000
"""Bytes of one file at most, as transformers' default."""


def is_whisper(module: SpeechEncoderDecoder, config: Any) -> bool:
    """Tells whether the halves can be one Whisper, which has a checkpoint layout of its own."""
    if module.project or not (config.encoder.model_type == config.decoder.model_type == "whisper"):
        return False
    read = ENCODERS["whisper"].config.from_hf
    return read(type(config.encoder).from_dict(_whole(config))) == read(config.encoder)


def _whole(config: Any) -> dict[str, Any]:
    """Returns the config of the Whisper that hears as one half says and writes as the other."""
    return config.decoder.to_dict() | {
        name: getattr(config.encoder, name) for name in ENCODER_FIELDS
    }


def torch_config(module: SpeechEncoderDecoder, params: Params, config: Any) -> dict[str, Any]:
    """Returns the ``config.json`` under which PyTorch knows this model.

    A whole Whisper is a ``WhisperForConditionalGeneration``; everything else a
    ``SpeechEncoderDecoderModel``. PyTorch loads in the dtype that it names, so it names that of
    the parameters: another one would round them.
    """
    dtype = str(jnp.result_type(*jax.tree.leaves(params)))
    if is_whisper(module, config):
        return _whole(config) | {
            "architectures": ["WhisperForConditionalGeneration"],
            "dtype": dtype,
            "is_encoder_decoder": True,
            "is_decoder": False,
            "add_cross_attention": False,
        }
    fields = config.to_dict()
    for part in (fields, fields["encoder"], fields["decoder"]):
        part["dtype"] = dtype
    return fields | {"architectures": ["SpeechEncoderDecoderModel"]}


def torch_weights(
    module: SpeechEncoderDecoder, params: Params, config: Any
) -> tuple[State, set[str]]:
    """Returns the state dict that goes with ``torch_config``, and its embeddings' names."""
    parts = parts_of(module, config)
    state = export(params, parts)
    embeddings = {
        part.prefix + torch_name(path.removeprefix(f"{part.path}/"), part.family.names)
        for part in parts
        for path in flatten_dict(params, sep="/")
        if path.startswith(f"{part.path}/") and path.endswith("/embedding")
    }
    if not is_whisper(module, config):
        return state, embeddings
    renamed = {_whisper_name(name): tensor for name, tensor in state.items()}
    return renamed, {_whisper_name(name) for name in embeddings}


def _whisper_name(name: str) -> str:
    return f"model.{name}" if name.startswith("encoder.") else name.removeprefix("decoder.")


def save_weights(
    folder: Path,
    module: SpeechEncoderDecoder,
    params: Params,
    config: Any,
    layout: str = "pytorch",
    shard_size: int = SHARD_SIZE,
) -> None:
    """Writes ``config.json`` and the weights.

    Args:
        folder: created if need be.
        module: the model.
        params: its parameters.
        config: its transformers config.
        layout: ``"pytorch"`` for safetensors, ``"flax"`` for the ``flax_model.msgpack`` of
            transformers 4.x.
        shard_size: bytes of one safetensors file at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = torch_config(module, params, config)
    state, embeddings = torch_weights(module, params, config)
    if layout == "flax":
        fields["architectures"] = ["Flax" + name for name in fields["architectures"]]
        write_msgpack(folder / "flax_model.msgpack", state, embeddings)
    else:
        write_sharded(folder, state, shard_size)
    write_json(folder / "config.json", fields)


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
