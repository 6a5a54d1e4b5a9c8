"""Models from checkpoints: one folder, or two halves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speech_ed_flax.conversion.assemble import PROJECTION, Part, assemble
from speech_ed_flax.conversion.config import join, read_config
from speech_ed_flax.conversion.halves import Half, shorten
from speech_ed_flax.conversion.names import SPELLINGS, is_tied, rename, select
from speech_ed_flax.conversion.weights import read_weights
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.model import SpeechEncoderDecoder, build, family_of
from speech_ed_flax.types import Params, State

_PROJECTION_KEYS = ("enc_to_dec_proj.weight", "enc_to_dec_proj.bias")


@dataclass(frozen=True)
class Loaded:
    """A model read from disk.

    Attributes:
        config: transformers' ``SpeechEncoderDecoderConfig``.
        module: what it describes.
        params: its parameters.
        fresh: paths of the parameters that no checkpoint held and that started at random.
        shortened: what of the checkpoints was left out, in words.
    """

    config: Any
    module: SpeechEncoderDecoder
    params: Params
    fresh: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()


def parts_of(
    module: SpeechEncoderDecoder, config: Any, states: Mapping[str, State] | None = None
) -> list[Part]:
    """Returns the parts of a model with their names in a PyTorch checkpoint.

    Args:
        module: the model.
        config: its transformers config.
        states: tensors of each part, to load; none to export.
    """
    states = states or {}
    parts = [
        Part(
            path=path,
            family=family_of(path, getattr(config, path)),
            config=getattr(module, path).config,
            state=states.get(path, {}),
            prefix=f"{path}.",
        )
        for path in ("encoder", "decoder")
    ]
    if module.project:
        parts.append(Part("projection", PROJECTION, None, states.get("projection", {})))
    return parts


def load(folder: Path, padding: str = "exact", dtype: Any | None = None) -> Loaded:
    """Loads a speech encoder-decoder, or a Whisper checkpoint as one.

    Args:
        folder: with ``config.json`` and weights.
        padding: see ``layers.waveform_encoder``.
        dtype: of the parameters; None keeps what is stored.

    Raises:
        CheckpointError: naming the file and the tensors that do not fit.
        ConfigError: naming a setting that is not supported.
    """
    config = read_config(folder)
    state, source = read_weights(folder)
    state = rename(state, SPELLINGS)
    if config.model_type == "speech-encoder-decoder":
        states = {part: select(state, f"{part}.") for part in ("encoder", "decoder")}
        states["projection"] = {n: state[n] for n in _PROJECTION_KEYS if n in state}
        known = ("encoder.", "decoder.", *_PROJECTION_KEYS)
        unexpected = tuple(name for name in state if not name.startswith(known))
    elif config.model_type == "whisper":
        config = join(config, config)
        states = {
            part: rename(state, family_of(part, getattr(config, part)).aliases)
            for part in ("encoder", "decoder")
        }
        unexpected = ()
    else:
        raise CheckpointError(
            f"{folder}: model_type is {config.model_type!r}, not a speech encoder-decoder: join it "
            "to another half with from_encoder_decoder_pretrained."
        )
    untie(config.decoder, states["decoder"])
    # Flax 4.x made projections that the config does not ask for: the file decides.
    project = True if states.get("projection") else None
    module = build(config, padding, project)
    parts = parts_of(module, config, states)
    params, _ = assemble(module, parts, source, dtype, unexpected=unexpected)
    return Loaded(config, module, params)


def untie(hf: Any, state: State) -> None:
    """Records in a decoder's config that the file holds an output layer of its own, if it does."""
    if not is_tied(state, family_of("decoder", hf), hf.tie_word_embeddings):
        hf.tie_word_embeddings = False


def join_halves(
    encoder: Half, decoder: Half, fields: dict[str, Any], padding: str, dtype: Any | None, key: Any
) -> Loaded:
    """Joins an encoder and a decoder from two checkpoints, from one, or from none.

    Cross-attention, projection and adapter that no checkpoint holds start at random. Of a half
    whose config has fewer layers or positions than its checkpoint, the first ones are taken.

    Args:
        encoder: one half.
        decoder: the other.
        fields: of the joint config.
        padding: see ``layers.waveform_encoder``.
        dtype: of the parameters.
        key: randomness for what is new.

    Raises:
        CheckpointError: naming the file and the tensors that do not fit.
        ConfigError: naming a setting that is not supported.
    """
    untie(decoder.config, decoder.state)
    config = join(encoder.config, decoder.config, **fields)
    module = build(config, padding)
    halves = {"encoder": encoder, "decoder": decoder}
    parts, shortened = [], []
    for part in parts_of(module, config):
        half = halves.get(part.path)
        if half is not None:
            state, notes = shorten(part.path, half.state, part.family, part.config)
            part = replace(part, prefix="", state=state, anew=half.anew)
            shortened += notes
        parts.append(replace(part, fresh=part.family.fresh))
    sources = dict.fromkeys(str(half.source) for half in halves.values() if half.source)
    params, fresh = assemble(module, parts, " and ".join(sources), dtype, key)
    return Loaded(config, module, params, tuple(fresh), tuple(shortened))
