"""The model: an encoder and a decoder joined by cross-attention."""

import difflib
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from speech_ed_flax.decoders import DECODERS
from speech_ed_flax.encoders import ENCODERS
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.cache import Cache
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.transformer import Context
from speech_ed_flax.types import Array, Bool, Float, Int, Params


class SpeechEncoderDecoder(nn.Module):
    """A speech encoder and a text decoder (SpeechEncoderDecoder; Wang et al., 2021).

    Attributes:
        encoder: called with ``(waveform or features, mask)``, returns ``(states, mask)``.
        decoder: a ``layers.decoder.Decoder``.
        project: whether a dense layer turns the encoder's width into the decoder's.
    """

    encoder: nn.Module
    decoder: nn.Module
    project: bool

    def setup(self):
        """Creates the projection."""
        if self.project:
            self.projection = Dense(self.decoder.config.width)

    def encode(
        self, inputs: Float[Array, "batch ..."], mask: Bool[Array, "batch any"] | None = None
    ) -> tuple[Float[Array, "batch source width"], Bool[Array, "batch source"] | None]:
        """Encodes speech to states of the decoder's width, and says which are real."""
        states, mask = self.encoder(inputs, mask)
        return (self.projection(states) if self.project else states), mask

    def context(
        self, states: Float[Array, "batch source width"], mask: Bool[Array, "batch source"] | None
    ) -> Context:
        """Projects states to the keys and values of every decoder layer."""
        return self.decoder.context(states, mask)

    def listen(
        self, inputs: Float[Array, "batch ..."], mask: Bool[Array, "batch any"] | None = None
    ) -> Context:
        """Encodes speech to what the decoder reads of it."""
        return self.context(*self.encode(inputs, mask))

    def decode(
        self,
        tokens: Int[Array, "rows target"],
        context: Context,
        cache: Cache | None = None,
        position: Int[Array, ""] | int = 0,
        mask: Bool[Array, "rows length"] | None = None,
        positions: Int[Array, "#rows target"] | None = None,
    ) -> tuple[Float[Array, "rows target vocab"], Cache | None]:
        """Scores the token after each of ``tokens``; see ``layers.decoder.Decoder``."""
        return self.decoder(tokens, context, cache, position, mask, positions)

    def __call__(
        self,
        inputs: Float[Array, "batch ..."],
        tokens: Int[Array, "batch target"],
        mask: Bool[Array, "batch any"] | None = None,
        token_mask: Bool[Array, "batch target"] | None = None,
        positions: Int[Array, "#batch target"] | None = None,
    ) -> tuple[Float[Array, "batch target vocab"], Float[Array, "batch source width"]]:
        """Encodes and scores in one pass: logits and the (projected) encoder states."""
        states, mask = self.encode(inputs, mask)
        context = self.context(states, mask)
        logits, _ = self.decode(tokens, context, mask=token_mask, positions=positions)
        return logits, states


LARGEST_DEPTH = 512
"""More layers than any published model has: a config that asks for more is a mistake."""

LARGEST_SIZE = (1 << 31) - 1
"""The largest dimension that XLA counts; what is less and too large is refused with the tensors
that it does not fit."""

_NONSENSE = (TypeError, ValueError, ArithmeticError, IndexError)
"""What shapes that make no sense raise when a model is described or traced."""


WRITERS_OF_AUDIO = ("musicgen", "musicgen_melody")
"""Of transformers' causal language models, those with cross-attention that write no text."""


def family_of(part: str, hf: Any) -> Family:
    """Returns the family of a transformers config; ``part`` is "encoder" or "decoder".

    A language model without cross-attention is refused with the reason: upstream's joint model
    takes it, and hands it the encoder's states as an argument that it ignores.

    Raises:
        ConfigError: naming the model type and the supported ones.
    """
    families = ENCODERS if part == "encoder" else DECODERS
    kind, known = hf.model_type, ", ".join(sorted(families))
    if kind in families:
        return families[kind]
    refused = f"{part}.model_type={kind!r} is not supported:"
    deaf = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - WRITERS_OF_AUDIO
    if part == "decoder" and kind in deaf:
        raise ConfigError(
            f"{refused} it has no cross-attention, so it would silently be deaf to the encoder; "
            f"use one that listens: {known}."
        )
    raise ConfigError(f"{refused} use one of {known}.")


def unknown_type(kind: str, part: str | None = None) -> str:
    """Returns a sentence on a model type that transformers has not, and what it may be a typo of.

    Args:
        kind: the model type.
        part: "encoder" or "decoder"; None if it may be either.
    """
    families = {"encoder": ENCODERS, "decoder": DECODERS}.get(part or "", ENCODERS | DECODERS)
    close = difflib.get_close_matches(kind, families, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    field = f"{part}.model_type" if part else "model_type"
    return f"{field}={kind!r} is not known{hint}: use one of {', '.join(sorted(families))}."


def build(
    hf: Any, padding: str = "exact", project: bool | None = None, attention: str = "xla"
) -> SpeechEncoderDecoder:
    """Builds the module that a ``SpeechEncoderDecoderConfig`` describes.

    Args:
        hf: the configuration, with ``encoder`` and ``decoder``.
        padding: ``"exact"`` or ``"invariant"``, for encoders whose output depends on it.
        project: whether there is a projection; None decides as ``needs_projection`` does.
        attention: the kernel of every attention: ``"xla"``, ``"splash"`` or ``"cudnn"``.

    Raises:
        ConfigError: naming the field that is missing, contradicts another or is not supported.
    """
    encoder, decoder = _part("encoder", hf.encoder), _part("decoder", hf.decoder)
    if padding not in ("exact", "invariant"):
        raise ConfigError(f"padding={padding!r} is not known: use 'exact' or 'invariant'.")
    if hasattr(encoder.config, "padding"):
        encoder = encoder.clone(config=replace(encoder.config, padding=padding))
    cross = getattr(hf.decoder, "cross_attention_hidden_size", None)
    read = getattr(decoder.config, "context_width", None)
    if cross not in (None, decoder.config.width, read):
        raise ConfigError(
            f"decoder.cross_attention_hidden_size={cross} is not supported by "
            f"{hf.decoder.model_type!r}: remove it, and the encoder is projected instead."
        )
    if read not in (None, encoder.config.width):
        raise ConfigError(
            f"decoder.cross_attention_hidden_size={read} is not the encoder's width of "
            f"{encoder.config.width}: remove it, and the encoder is projected instead."
        )
    if project is None:
        project = read is None and needs_projection(hf, encoder.config.width, decoder.config.width)
    return with_layers(SpeechEncoderDecoder(encoder, decoder, project), attention=attention)


def with_layers(module: SpeechEncoderDecoder, **fields: Any) -> SpeechEncoderDecoder:
    """Returns the module with other values of some fields of both halves' ``LayerConfig``.

    Raises:
        ConfigError: if a value is not known.
    """

    def changed(part: nn.Module) -> nn.Module:
        layer = replace(part.config.layer, **fields)
        return part.clone(config=replace(part.config, layer=layer))

    return module.clone(encoder=changed(module.encoder), decoder=changed(module.decoder))


def _part(part: str, hf: Any) -> nn.Module:
    family = family_of(part, hf)
    try:
        config = family.config.from_hf(hf)
        _check_sizes(config)
    except (ConfigError, *_NONSENSE) as error:
        raise ConfigError(f"{part} ({hf.model_type}): {error}") from None
    return family.module(config)


def _check_sizes(config: Any) -> None:
    """Raises ConfigError naming the first size, here or below, that no model can have."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _check_sizes(value)
        sizes = {int: (value,), tuple[int, ...]: value, int | None: (value,)}.get(field.type, ())
        largest = LARGEST_DEPTH if field.name == "layers" else LARGEST_SIZE
        smallest = 0 if field.name in ("position_offset", "padding", "fewest") else 1
        for size in sizes:
            optional = size is None and field.type is not int
            if not optional and not (isinstance(size, int) and smallest <= size <= largest):
                raise ConfigError(f"{field.name}={size!r} is not within {smallest} to {largest}.")


def needs_projection(hf: Any, encoder_width: int, decoder_width: int) -> bool:
    """Tells whether the encoder's states must be projected to the decoder's width.

    Upstream looks at ``output_hidden_size`` even where there is no adapter to give that width,
    and sizes the projection by ``hidden_size`` even where there is one. Every checkpoint that
    upstream can load gets the same projection here; the others get a right one.
    """
    announced = getattr(hf.encoder, "output_hidden_size", None) or encoder_width
    return encoder_width != decoder_width or announced != decoder_width


def initialise(module: SpeechEncoderDecoder, key: Any) -> dict[str, Any]:
    """Returns random parameters by path (``encoder/positions/bias``); traceable."""
    module = with_layers(module, attention="xla")  # which computes float32 on any backend
    inputs = jnp.zeros((1, *module.encoder.config.input_shape))
    variables = module.init(key, inputs, jnp.zeros((1, 1), jnp.int32))
    return flatten_dict(variables["params"], sep="/")


def abstract_params(module: SpeechEncoderDecoder) -> dict[str, Any]:
    """Returns the shape of every parameter by path, allocating nothing.

    Raises:
        ConfigError: if the sizes of the configuration do not fit each other.
    """
    try:
        return dict(_traced_params(module))  # pyright: ignore[reportArgumentType] (it is hashable)
    except _NONSENSE as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(f"the sizes of the config do not fit each other ({reason}).") from error


@lru_cache(maxsize=64)
def _traced_params(module: SpeechEncoderDecoder) -> dict[str, Any]:
    return jax.eval_shape(lambda key: initialise(module, key), jax.random.key(0))


def match_dtype(inputs: Float[Array, "batch ..."], params: Params) -> Float[Array, "batch ..."]:
    """Returns ``inputs`` in the precision of the parameters, which is that of the computation."""
    return inputs.astype(jax.tree.leaves(params)[0].dtype)
