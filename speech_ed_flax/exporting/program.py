"""The transcribing function as one portable program: features in, tokens out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from speech_ed_flax.conversion.config import merge_generation
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.exporting import PLATFORMS
from speech_ed_flax.exporting.lengths import Lengths, lengths_of
from speech_ed_flax.generation.generate import generate
from speech_ed_flax.generation.output import confidence
from speech_ed_flax.generation.plan import Plan
from speech_ed_flax.generation.prompt import first_tokens, write_in
from speech_ed_flax.generation.request import Request, prepare
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.generation.whisper import LANGUAGE, detect_language, languages_of
from speech_ed_flax.model import SpeechEncoderDecoder
from speech_ed_flax.precision import refuse_integers
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.types import Array, Bool, Float, Int, Params


def export_program(
    model: FlaxSpeechEncoderDecoderModel,
    platforms: Sequence[str] = PLATFORMS,
    batch_size: int | None = None,
    length: int | None = None,
    *,
    language: str | None = None,
    task: str | None = None,
    target_language: str | None = None,
    **settings: Any,
) -> jax.export.Exported:
    """Returns ``(params, features, mask) -> outputs``, for any batch and length unless given.

    ``params`` are the weights by path (``encoder/positions/bias``). Features and mask are those of
    ``generate``, of one of the lengths in ``lengths_of`` the encoder; padding changes nothing. The
    outputs are ``tokens`` int32 ``[rows, capacity]``, prompt included, filled behind their ends;
    ``lengths`` int32 ``[rows]``; ``confidence`` float32 ``[rows]``, as ``generate`` has it; and of
    beams ``scores`` float32 ``[rows]``.

    Args:
        model: whose weights give shapes and precision alone.
        platforms: that the program runs on, of ``PLATFORMS``; none need be here.
        batch_size: of every batch; any if None.
        length: samples or frames of every batch; any if None.
        language: as ``generate`` has it; detected within the program if omitted.
        task: as ``generate`` has it.
        target_language: as ``generate`` has it.
        **settings: of the generation.

    Raises:
        ConfigError: if the model or a setting cannot be exported.
    """
    refuse_integers(model.params)
    generation: Any = merge_generation(None, model.generation_config, settings)
    decoder = model.config.decoder.model_type
    write_in(target_language, generation, decoder, model.processor.tokenizer)
    module = model.with_padding("invariant").module
    search = _search_of(model, generation, language, task)

    def transcribe(
        params: dict[str, Array],
        features: Float[Array, "batch ..."],
        mask: Bool[Array, "batch any"],
    ) -> dict[str, Array]:
        tree = unflatten_dict(params, sep="/")
        prompt = search.begin(module, tree, features, mask)
        found = generate(module, tree, features, mask, prompt, search.plan, search.rules).found
        likely = confidence(found.log_probs, found.lengths - prompt.shape[1])
        outputs = {"tokens": found.tokens, "lengths": found.lengths, "confidence": likely}
        return outputs if found.scores is None else outputs | {"scores": found.scores}

    weights: dict[str, Any] = flatten_dict(model.params, sep="/")
    described = {path: jax.ShapeDtypeStruct(a.shape, a.dtype) for path, a in weights.items()}
    inputs = input_shapes(module.encoder.config, batch_size, length)
    return jax.export.export(jax.jit(transcribe), platforms=platforms)(described, *inputs)


@dataclass(frozen=True)
class _Search:
    """What is decided before the program is traced.

    Attributes:
        prompt: of every clip ``[1, prompt]``.
        languages: tokens of those that the program detects; none if there is nothing to detect.
        plan: of the search.
        rules: that the search reads.
    """

    prompt: Int[np.ndarray, "1 prompt"]
    languages: tuple[int, ...]
    plan: Plan
    rules: Rules

    def begin(
        self,
        module: SpeechEncoderDecoder,
        params: Params,
        features: Float[Array, "batch ..."],
        mask: Bool[Array, "batch any"],
    ) -> Int[Array, "batch prompt"]:
        """Returns what every sequence begins with."""
        prompt = jnp.broadcast_to(self.prompt, (features.shape[0], self.prompt.shape[1]))
        if not self.languages:
            return prompt
        start = int(self.prompt[0, 0])
        heard = detect_language(module, params, features, mask, start, self.languages)
        return prompt.at[:, LANGUAGE].set(heard)


def _search_of(
    model: FlaxSpeechEncoderDecoderModel, generation: Any, language: str | None, task: str | None
) -> _Search:
    languages: tuple[int, ...] = ()
    if model.config.decoder.model_type == "whisper" and language is None:
        languages = languages_of(generation)
    if languages:
        language = next(iter(generation.lang_to_id))  # a place for the one that is detected
    speech = jnp.zeros((1, *model.module.encoder.config.input_shape))  # read by nobody
    given = (speech, None, None, language, task)
    request = Request(
        prompt=first_tokens(model.module, model.params, model.config, generation, *given),
        key=jax.random.key(0),
        log_probs=True,
        tokenizer=model.processor.tokenizer,
    )
    plan, rules = prepare(model.module.decoder.config, generation, request)
    if generation.max_time is not None:
        raise ConfigError("max_time needs a clock, which an exported program has not: unset it.")
    return _Search(request.prompt, languages, plan, rules)


def input_shapes(
    encoder: Any, batch_size: int | None = None, length: int | None = None
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns what features and mask are like; what is not given is symbolic.

    Args:
        encoder: its frozen config.
        batch_size: of every batch.
        length: samples or frames of every batch.
    """
    batch, steps = jax.export.symbolic_shape("batch, steps")
    lengths = lengths_of(encoder) if length is None else Lengths(length, 0)
    time = lengths.symbolic(steps) if lengths.step else lengths.shortest
    rows = batch if batch_size is None else batch_size
    mels = encoder.input_shape[:-1] if encoder.features.axes[0] == "mels" else ()
    beside = () if mels else encoder.input_shape[1:]
    features = jax.ShapeDtypeStruct((rows, *mels, time, *beside), jnp.float32)
    return features, jax.ShapeDtypeStruct((rows, time), jnp.bool_)
