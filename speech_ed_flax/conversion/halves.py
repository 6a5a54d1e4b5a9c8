"""The two halves of a model to be: each from a checkpoint, or from a config alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech_ed_flax.conversion.config import change_config, make_config, read_config
from speech_ed_flax.conversion.names import SPELLINGS, rename, torch_name
from speech_ed_flax.conversion.weights import read_weights
from speech_ed_flax.errors import CheckpointError, ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.model import family_of
from speech_ed_flax.types import State

VOCABULARY = (r"^tokens/", r"^head/")
"""Patterns of the parameters of a decoder that belong to its vocabulary."""

EVERYTHING = (r"",)


@dataclass(frozen=True)
class Half:
    """An encoder or a decoder, before it is joined to another half.

    Attributes:
        config: transformers' config.
        state: its tensors by the names that they have inside a joint model.
        anew: patterns of our paths that start at random, whatever the checkpoint holds.
        source: of the tensors; None if there are none.
    """

    config: Any
    state: State
    anew: tuple[str, ...] = ()
    source: Path | None = None


def read_half(
    part: str, folder: Path, changes: Mapping[str, Any], anew: tuple[str, ...] = ()
) -> Half:
    """Reads one half from a checkpoint, which may hold the other one too.

    Args:
        part: "encoder" or "decoder".
        folder: of the checkpoint.
        changes: of its config.
        anew: patterns of our paths that are to start at random.

    Raises:
        CheckpointError: naming the file that cannot be used.
        ConfigError: naming the field that is unknown or not supported.
    """
    hf = read_config(folder)
    if hf.model_type == "speech-encoder-decoder":
        raise CheckpointError(f"{folder}: it holds a joint model already: use from_pretrained.")
    if part == "encoder":  # whole recognisers, such as parakeet_ctc, have a config of their encoder
        hf = getattr(hf, "encoder_config", hf)
    family: Family = family_of(part, hf)
    change_config(part, hf, changes)
    state, source = read_weights(folder)
    return Half(hf, rename(state, (*SPELLINGS, *family.aliases)), anew, source)


def random_half(part: str, fields: Mapping[str, Any]) -> Half:
    """Returns a half of which everything starts at random.

    Args:
        part: "encoder" or "decoder".
        fields: of its config, ``model_type`` among them.

    Raises:
        ConfigError: naming the field that is missing, unknown or not supported.
    """
    return Half(make_config(part, fields), {}, EVERYTHING)


def shorten(part: str, state: State, family: Family, config: Any) -> tuple[State, list[str]]:
    """Returns the first layers and positions of a checkpoint, where the config has fewer.

    Whisper's sinusoids do not depend on how many there are, and what is learned of a position
    hardly does: a model that hears 8 s begins as one that heard 30 s.

    Args:
        part: "encoder" or "decoder", for messages.
        state: tensors by the names inside a joint model.
        family: of the half.
        config: its frozen config.

    Returns:
        The tensors that are left, and what was done, in words.

    Raises:
        ConfigError: the config has more layers.
    """
    state, notes = dict(state), []
    inside = next(
        name
        for path, name in family.names.items()
        if path.startswith("transformer/layers_{}/self_")
    )
    numbered = re.compile(rf"^{re.escape(inside.partition('{}')[0])}(\d+)\.")
    layers = {name: int(match[1]) for name in state if (match := numbered.match(name))}
    depth = max(layers.values(), default=config.layers - 1) + 1
    if depth < config.layers:
        raise ConfigError(
            f"{part}: the config asks for {config.layers} layers, the checkpoint has {depth}."
        )
    if depth > config.layers:
        notes.append(f"{part}: the first {config.layers} of {depth} layers")
        state = {n: t for n, t in state.items() if layers.get(n, 0) < config.layers}
    if hasattr(config, "positions"):
        name = torch_name("positions/embedding", family.names)
        rows = config.positions + getattr(config, "position_offset", 0)
        if name in state and len(state[name]) > rows:
            kept, known = config.positions, config.positions + len(state[name]) - rows
            notes.append(f"{part}: the first {kept} of {known} positions")
            state[name] = state[name][:rows]
    return state, notes
