"""The front door: a model with its weights, under the names people know from transformers 4.x."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from transformers import GenerationConfig, SpeechEncoderDecoderConfig

from speech_ed_flax import arguments
from speech_ed_flax.compiled import (
    DecoderOutput,
    EncoderOutput,
    SpeechOutput,
    as_mask,
    decode,
    encode,
    forward,
    random_params,
)
from speech_ed_flax.conversion.card import write_card
from speech_ed_flax.conversion.config import (
    fill_token_ids,
    merge_generation,
    require,
    resolve_generation,
    sort_fields,
)
from speech_ed_flax.conversion.halves import read_half
from speech_ed_flax.conversion.hub import read_json, resolve
from speech_ed_flax.conversion.load import Loaded, join_halves, load
from speech_ed_flax.conversion.processor import Processor, fit_features
from speech_ed_flax.conversion.save import SHARD_SIZE, save_weights, write_json
from speech_ed_flax.devices import default_batch, over_devices, share_devices
from speech_ed_flax.errors import AudioError, ConfigError
from speech_ed_flax.generation.allowed import Allowed
from speech_ed_flax.generation.output import GenerationOutput
from speech_ed_flax.generation.prompt import first_tokens, write_in
from speech_ed_flax.generation.request import Request, compile_ahead, respond
from speech_ed_flax.generation.stretches import Streamer
from speech_ed_flax.labels import shift_tokens_right
from speech_ed_flax.layers.cache import Cache, empty_cache
from speech_ed_flax.layers.fused import check_kernel
from speech_ed_flax.mesh import DATA
from speech_ed_flax.model import SpeechEncoderDecoder, build, with_layers
from speech_ed_flax.paths import FEATURE_ENCODER, freeze
from speech_ed_flax.precision import computable, computed_dtype, quantise, refuse_integers
from speech_ed_flax.transcription import Listening, Thresholds, Transcriber, Transcript
from speech_ed_flax.transcription.listening import BUCKETS
from speech_ed_flax.transcription.recogniser import Recogniser
from speech_ed_flax.transcription.words import WordFinder
from speech_ed_flax.types import Array, Params


class FlaxSpeechEncoderDecoderModel:
    """A speech encoder joined to a text decoder, with its weights.

    The signatures are those of transformers 4.57; what it lacked (``labels``, ``attention_mask``
    in ``generate``, ``transcribe``) is added. Every method computes with ``params`` if they are
    given, and with the model's own if not, so that it can be used under ``jax.grad``.

    Attributes:
        config: transformers' ``SpeechEncoderDecoderConfig``.
        module: the linen module.
        params: its parameters.
        generation_config: transformers' ``GenerationConfig``.
        processor: features of the encoder and tokenizer of the decoder.
        fresh: paths of parameters that no checkpoint held and that need training.
        shortened: what of the checkpoints was left out, in words: layers, positions.
    """

    def __init__(
        self,
        config: SpeechEncoderDecoderConfig,
        seed: int = 0,
        dtype: Any = jnp.float32,
        padding: str = "exact",
        *,
        attention: str = "xla",
        module: SpeechEncoderDecoder | None = None,
        params: Params | None = None,
        generation_config: GenerationConfig | None = None,
        processor: Processor | None = None,
        fresh: tuple[str, ...] = (),
        shortened: tuple[str, ...] = (),
    ):
        """Creates a model from its configuration, with random weights unless ``params`` are given.

        Args:
            config: of encoder and decoder.
            seed: of the random weights.
            dtype: of the random weights.
            padding: ``"exact"`` computes what transformers computes, padding included;
                ``"invariant"`` gives each clip the output it has alone.
            attention: ``"xla"``, or a kernel for the long attention of the encoder: ``"splash"`` on
                TPU (inside ``jax.shard_map`` if there are several), ``"cudnn"`` on NVIDIA (bfloat16
                or float16).
            module: what ``config`` describes; built if omitted.
            params: the weights.
            generation_config: derived from ``config`` if omitted.
            processor: for ``transcribe``.
            fresh: paths of the params that started at random.
            shortened: what of the checkpoints was left out, in words.

        Raises:
            ConfigError: naming the field that is missing or not supported.
        """
        self.config: Any = config
        if module is None:
            module = build(config, padding, attention=attention)
        self.module = module
        self.generation_config = generation_config or resolve_generation(None, config.to_dict())
        self.processor = processor or Processor()
        fill_token_ids(config, self.generation_config, self.processor.tokenizer)
        self.fresh = fresh
        self.shortened = shortened
        key = jax.random.key(seed)
        self.params: Params = params or random_params(self.module, key, dtype)
        if self._attention != "xla":
            check_kernel(self._attention, computed_dtype(self.params), jax.default_backend())

    @property
    def _attention(self) -> str:
        return self.module.encoder.config.layer.attention

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: Any | None = jnp.float32,
        weights: str | None = None,
        padding: str = "exact",
        attention: str = "xla",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> FlaxSpeechEncoderDecoderModel:
        """Loads a speech encoder-decoder, or a Whisper checkpoint as one.

        Args:
            pretrained_model_name_or_path: a folder or the name of a Hub repository.
            dtype: of the parameters, and of the computation unless the processor would only
                emulate bfloat16, which is then computed in float32; None keeps what is stored.
            weights: "int8" keeps the weights of dense layers and embeddings in a quarter of the
                memory, one factor an output channel; such a model cannot be trained or saved.
            padding: see the constructor.
            attention: see the constructor.
            revision: branch, tag or commit of the repository.
            local_files_only: whether to stay off the network.

        Raises:
            CheckpointError: naming the file and the tensors that do not fit.
            ConfigError: naming a setting that is not supported.
        """
        folder = resolve(pretrained_model_name_or_path, revision, local_files_only)
        loaded = load(folder, padding, dtype)
        if weights is not None:
            loaded = replace(loaded, params=quantise(loaded.params, weights))
        generation = resolve_generation(folder, read_json(folder / "config.json"))
        return cls.of_loaded(loaded, generation, Processor.load(folder, folder), attention)

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | Path,
        decoder_pretrained_model_name_or_path: str | Path,
        *,
        seed: int = 0,
        dtype: Any | None = jnp.float32,
        padding: str = "exact",
        attention: str = "xla",
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> FlaxSpeechEncoderDecoderModel:
        """Joins a pretrained encoder and a pretrained decoder (two checkpoints, or twice one).

        What neither holds starts at random and is listed in ``fresh``: cross-attention, the
        projection between the widths, an adapter that was asked for.

        Args:
            encoder_pretrained_model_name_or_path: folder or Hub repository of the encoder.
            decoder_pretrained_model_name_or_path: folder or Hub repository of the decoder.
            seed: of what starts at random.
            dtype: of the parameters; None keeps what is stored.
            padding: see the constructor.
            attention: see the constructor.
            local_files_only: whether to stay off the network.
            **kwargs: ``encoder_*`` and ``decoder_*`` change their configs; settings of generation
                (``max_length``, ``num_beams``, ...) are kept; the rest are fields of the joint
                config (``pad_token_id``, ``decoder_start_token_id``, ``eos_token_id``).

        Raises:
            CheckpointError: naming the file and the tensors that do not fit.
            ConfigError: naming a field that is unknown, or a token id that must be passed.
        """
        of_encoder, of_decoder, of_generation, fields = sort_fields(kwargs)
        encoder, decoder = (
            resolve(name, local_files_only=local_files_only)
            for name in (
                encoder_pretrained_model_name_or_path,
                decoder_pretrained_model_name_or_path,
            )
        )
        halves = (
            read_half("encoder", encoder, of_encoder),
            read_half("decoder", decoder, of_decoder),
        )
        loaded = join_halves(*halves, fields, padding, dtype, jax.random.key(seed))
        generation = resolve_generation(None, loaded.config.to_dict())
        generation.update(**of_generation)
        processor = Processor.load(encoder, decoder)
        if processor.features is not None:
            hears = loaded.module.encoder.config
            processor = replace(processor, features=fit_features(processor.features, hears))
        missing = fill_token_ids(loaded.config, generation, processor.tokenizer)
        require(dict.fromkeys(missing))
        return cls.of_loaded(loaded, generation, processor, attention)

    @classmethod
    def of_loaded(
        cls,
        loaded: Loaded,
        generation: GenerationConfig,
        processor: Processor,
        attention: str = "xla",
    ) -> FlaxSpeechEncoderDecoderModel:
        """Returns the model of what was read or made; arguments as in the constructor."""
        return cls(
            loaded.config,
            module=with_layers(loaded.module, attention=attention),
            params=loaded.params,
            generation_config=generation,
            processor=processor,
            fresh=loaded.fresh,
            shortened=loaded.shortened,
        )

    def save_pretrained(
        self, folder: str | Path, params: Params | None = None, *, shard_size: int = SHARD_SIZE
    ) -> None:
        """Writes a folder that this package and PyTorch transformers load.

        ``config.json``, ``model.safetensors`` (or shards), ``generation_config.json``, the
        processor's files and a model card.

        Args:
            folder: created if need be; files of the same names are replaced.
            params: to write; the model's own if omitted.
            shard_size: bytes of one file at most.
        """
        folder = Path(folder)
        params = self.params if params is None else params
        refuse_integers(params)
        save_weights(folder, self.module, params, self.config, shard_size=shard_size)
        self.save_companions(folder)

    def save_companions(self, folder: Path) -> None:
        """Writes what goes with the weights: generation config, processor and model card."""
        write_json(folder / "generation_config.json", self.generation_config.to_diff_dict())
        self.processor.save(folder)
        write_card(folder, self.config)

    def with_padding(self, padding: str) -> FlaxSpeechEncoderDecoderModel:
        """Returns the same model with another treatment of padding; see the constructor."""
        other = copy.copy(self)
        other.module = build(self.config, padding, self.module.project, self._attention)
        return other

    def __call__(
        self,
        inputs: Any | None = None,
        attention_mask: Any | None = None,
        decoder_input_ids: Any | None = None,
        decoder_attention_mask: Any | None = None,
        decoder_position_ids: Any | None = None,
        *,
        labels: Any | None = None,
        train: bool = False,
        freeze_feature_encoder: bool = False,
        params: Params | None = None,
        dropout_rng: Any | None = None,
        input_values: Any | None = None,
        input_features: Any | None = None,
    ) -> SpeechOutput:
        """Scores ``decoder_input_ids``, or the labels shifted to the right.

        Args:
            inputs: waveforms ``[batch, samples]`` or features ``[batch, frames, mels]`` (Whisper's
                ``[batch, mels, frames]``).
            attention_mask: which samples or frames are real ``[batch, samples or frames]``.
            decoder_input_ids: tokens ``[batch, target]``; made of ``labels`` if omitted.
            decoder_attention_mask: which tokens are real ``[batch, target]``.
            decoder_position_ids: positions ``[batch, target]``; 0, 1, ... if omitted.
            labels: tokens to predict ``[batch, target]``; -100 does not count.
            train: whether dropout and layer drop are on; needs ``dropout_rng``.
            freeze_feature_encoder: whether no gradient reaches the convolutional front end.
            params: parameters; the model's own if omitted.
            dropout_rng: a ``jax.random.key``.
            input_values: another name for ``inputs``.
            input_features: another name for ``inputs``.

        Raises:
            ConfigError: naming the argument or config key that is missing.
        """
        inputs, mask = self._speech(inputs, attention_mask, input_values, input_features)
        if labels is not None:
            labels = self._tokens("labels", labels, inputs.shape[0])
        if decoder_input_ids is None:
            decoder_input_ids = self._shift(labels)
        params = self._computable(params, freeze_feature_encoder)
        return forward(
            self.module,
            params,
            inputs,
            mask,
            self._tokens("decoder_input_ids", decoder_input_ids, inputs.shape[0]),
            as_mask(decoder_attention_mask),
            decoder_position_ids,
            labels,
            _dropout_key(train, dropout_rng),
        )

    def _shift(self, labels: Array | None) -> Array:
        if labels is None:
            raise ConfigError("give decoder_input_ids or labels: the decoder has nothing to read.")
        ids = {
            name: getattr(self.config, name) for name in ("pad_token_id", "decoder_start_token_id")
        }
        require(ids)
        return shift_tokens_right(labels, **ids)

    def _computable(self, params: Params | None, freeze_feature_encoder: bool = False) -> Params:
        """Returns the parameters of a call, as they are computed with."""
        params = self.params if params is None else params
        if freeze_feature_encoder:
            params = freeze(params, FEATURE_ENCODER)
        return computable(params)

    def _speech(self, inputs: Any, mask: Any, values: Any, features: Any) -> tuple[Array, Any]:
        inputs = arguments.one_of("inputs", inputs, input_values=values, input_features=features)
        return arguments.speech(inputs, mask, self.module.encoder.config)

    def _tokens(self, name: str, tokens: Any, batch: int) -> Array:
        return arguments.tokens(name, tokens, batch, self.module.decoder.config.positions)

    def encode(
        self,
        inputs: Any | None = None,
        attention_mask: Any | None = None,
        *,
        train: bool = False,
        freeze_feature_encoder: bool = False,
        params: Params | None = None,
        dropout_rng: Any | None = None,
        input_values: Any | None = None,
        input_features: Any | None = None,
    ) -> EncoderOutput:
        """Encodes speech; arguments as in ``__call__``."""
        inputs, mask = self._speech(inputs, attention_mask, input_values, input_features)
        params = self._computable(params, freeze_feature_encoder)
        return encode(self.module, params, inputs, mask, _dropout_key(train, dropout_rng))

    def decode(
        self,
        decoder_input_ids: Any,
        encoder_outputs: EncoderOutput,
        encoder_attention_mask: Any | None = None,
        decoder_attention_mask: Any | None = None,
        decoder_position_ids: Any | None = None,
        past_key_values: Cache | None = None,
        *,
        train: bool = False,
        params: Params | None = None,
        dropout_rng: Any | None = None,
    ) -> DecoderOutput:
        """Scores tokens given what ``encode`` returned.

        Args:
            decoder_input_ids: tokens ``[batch, target]``.
            encoder_outputs: of ``encode``.
            encoder_attention_mask: which states are real ``[batch, source]``; what
                ``encoder_outputs`` says if omitted.
            decoder_attention_mask: which tokens are real ``[batch, length]``.
            decoder_position_ids: positions ``[batch, target]``; with a cache the first of them is
                where it is written, the same for all rows.
            past_key_values: of ``init_cache`` or the last call.
            train: whether dropout is on.
            params: parameters; the model's own if omitted.
            dropout_rng: a ``jax.random.key``.

        Raises:
            ConfigError: if there is a cache and no ``decoder_position_ids``.
        """
        if encoder_attention_mask is not None:
            states = encoder_outputs.last_hidden_state
            encoder_outputs = EncoderOutput(states, as_mask(encoder_attention_mask))
        positions = None if decoder_position_ids is None else jnp.asarray(decoder_position_ids)
        position: Any = 0
        if past_key_values is not None:
            if positions is None:
                raise ConfigError("past_key_values need decoder_position_ids: where do they stand?")
            position = positions[0, 0]
        return decode(
            self.module,
            self._computable(params),
            self._tokens(
                "decoder_input_ids", decoder_input_ids, encoder_outputs.last_hidden_state.shape[0]
            ),
            encoder_outputs,
            past_key_values,
            position,
            as_mask(decoder_attention_mask),
            positions,
            _dropout_key(train, dropout_rng),
        )

    def init_cache(self, batch_size: int, max_length: int) -> Cache:
        """Returns an empty cache for ``decode``, of ``max_length`` tokens."""
        dtype = computed_dtype(self._computable(None))
        return empty_cache(self.module.decoder.config, batch_size, max_length, dtype)

    def generate(
        self,
        inputs: Any | None = None,
        attention_mask: Any | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        decoder_input_ids: Any | None = None,
        encoder_input_ids: Any | None = None,
        logits_processor: Iterable[Callable] = (),
        prefix_allowed_tokens_fn: Allowed | None = None,
        streamer: Streamer | None = None,
        tokenizer: Any | None = None,
        output_log_probs: bool = False,
        prng_key: Any | None = None,
        params: Params | None = None,
        language: str | None = None,
        task: str | None = None,
        target_language: str | None = None,
        input_values: Any | None = None,
        input_features: Any | None = None,
        **overrides: Any,
    ) -> GenerationOutput:
        """Generates tokens: greedy, sampled or with beams, whole inside one compiled loop.

        Args:
            inputs: waveforms ``[batch, samples]`` or features ``[batch, frames, mels]`` (Whisper's
                ``[batch, mels, frames]``).
            attention_mask: which samples or frames are real ``[batch, samples or frames]``.
            generation_config: settings; what it leaves open is taken from the model's own.
            decoder_input_ids: tokens that every sequence begins with ``[batch, prompt]``; the
                start token is put in front if it is not there.
            encoder_input_ids: text that the encoder read ``[batch, any]``, for the penalties on it.
            logits_processor: functions ``(tokens, scores, length) -> scores``; traced, and
                compiled anew for every new function.
            prefix_allowed_tokens_fn: what may be generated: sequences of tokens, which are
                compiled, or a function ``(utterance, tokens) -> tokens``, called at every step.
            streamer: receives tokens while they are generated (``put`` and ``end``); no beams.
            tokenizer: for ``stop_strings``; the checkpoint's own if omitted.
            output_log_probs: whether ``token_log_probs`` and ``confidence`` are returned.
            prng_key: for sampling; ``jax.random.key(0)`` if omitted.
            params: parameters; the model's own if omitted.
            language: of the speech, for multilingual Whisper; detected if omitted.
            task: "transcribe" or "translate", for Whisper.
            target_language: of the text, for mBART (``de``, ``de_DE``, or the id of its token).
            input_values: another name for ``inputs``.
            input_features: another name for ``inputs``.
            **overrides: single settings, such as ``num_beams=5``, ``max_time=2.0`` (seconds),
                ``stop_strings=["."]``, ``output_scores=True``, ``output_logits=True`` or
                ``output_attentions=True``.

        Raises:
            ConfigError: naming a setting that is unknown, invalid or not supported.
        """
        merged = merge_generation(generation_config, self.generation_config, overrides)
        asked = self._asked(
            self._speech(inputs, attention_mask, input_values, input_features),
            params,
            merged,
            (decoder_input_ids, language, task),
            target_language,
            custom=tuple(logits_processor),
            allowed=prefix_allowed_tokens_fn,
            encoder_tokens=encoder_input_ids,
            key=jax.random.key(0) if prng_key is None else prng_key,
            log_probs=output_log_probs,
            streamer=streamer,
            tokenizer=tokenizer,
        )
        return respond(*asked)

    def compile_generate(
        self,
        inputs: Any,
        attention_mask: Any | None = None,
        *,
        output_log_probs: bool = False,
        params: Params | None = None,
        language: str | None = None,
        task: str | None = None,
        target_language: str | None = None,
        **overrides: Any,
    ) -> jax.stages.Compiled:
        """Compiles what ``generate`` will run for inputs of these shapes; arguments as there.

        Returns:
            The program, whose ``memory_analysis()`` says what it needs.
        """
        merged = merge_generation(None, self.generation_config, overrides)
        speech = self._speech(inputs, attention_mask, None, None)
        beginning = (None, language, task)
        wanted = {"key": jax.random.key(0), "log_probs": output_log_probs}
        asked = self._asked(speech, params, merged, beginning, target_language, **wanted)
        return compile_ahead(*asked)

    def _asked(
        self,
        speech: tuple[Array, Any],
        params: Params | None,
        merged: Any,
        beginning: tuple[Any | None, str | None, str | None],
        target_language: str | None,
        tokenizer: Any | None = None,
        **wanted: Any,
    ) -> tuple[Any, ...]:
        """Returns the arguments of ``respond``; ``wanted`` are fields of a ``Request``."""
        params = self._computable(params)
        tokenizer = self.processor.tokenizer if tokenizer is None else tokenizer
        write_in(target_language, merged, self.config.decoder.model_type, tokenizer)
        prompt = first_tokens(self.module, params, self.config, merged, *speech, *beginning)
        request = Request(prompt=prompt, tokenizer=tokenizer, **wanted)
        return self.module, params, *speech, merged, request

    def transcribe(
        self, audio: Any, *, allow_truncated: bool = False, **settings: Any
    ) -> Transcript | list[Transcript]:
        """Turns recordings of any rate, channels and length into text.

        Clips are padded to a few lengths with ``"invariant"`` padding, so that each gets the text
        it would get alone.

        Args:
            audio: a file, bytes, ``{"array": samples, "sampling_rate": rate}`` or
                ``(samples, rate)``; or a list of them.
            allow_truncated: whether a file that ends early is transcribed as far as it goes.
            **settings: others of ``transcriber``, and those of ``generate``.

        Returns:
            A transcript; for a list a list, in which a recording that could not be read has an
            ``error``.

        Raises:
            AudioError: if a single recording cannot be read.
            ConfigError: if the checkpoint lacks its feature settings or its tokenizer.
        """
        transcriber = self.transcriber(allow_truncated=allow_truncated, **settings)
        many = isinstance(audio, list)
        results = transcriber.stream(audio if many else [audio])
        if many:
            return list(results)
        (result,) = results
        if result.error is not None:
            raise AudioError(result.error)
        return result

    def transcriber(
        self,
        *,
        batch_size: int | None = None,
        workers: int = 0,
        longest: float | int = BUCKETS[-1],
        buckets: tuple[float, ...] = BUCKETS,
        detector: str = "energy",
        allow_truncated: bool = False,
        thresholds: Thresholds | None = None,
        alternatives: int = 0,
        word_timestamps: bool = False,
        tensor: int | None = None,
        **settings: Any,
    ) -> Transcriber:
        """Returns what transcribes any number of recordings: ``transcriber.stream(sources)``.

        All devices of this process share every batch, and the weights, if one cannot hold them.

        Args:
            batch_size: most clips of one batch; 8 on a CPU and 32 for each accelerator if omitted.
            workers: processes that decode sound; with 0 this one does.
            longest: most seconds of a clip.
            buckets: seconds that clips are padded to, the last at least ``longest``; see
                ``transcription.plan_buckets``.
            detector: of speech: ``energy``, or the name that a package gave its own.
            allow_truncated: whether a file that ends early is transcribed as far as it goes.
            thresholds: beyond which a text is not believed; ``Thresholds()`` if omitted.
            alternatives: further texts of each clip; a search needs as many more beams.
            word_timestamps: whether to say when each word begins and ends.
            tensor: devices that hold the weights together; as few as can if omitted.
            **settings: of ``generate``.

        Raises:
            ConfigError: if the checkpoint lacks its feature settings or its tokenizer, or the
                devices cannot hold the weights.
        """
        features = self.processor.hearer
        model, mesh = self.with_padding("invariant"), share_devices(self.params, tensor)
        on_devices = over_devices(self.params, mesh)
        words = WordFinder.of(self.generation_config, self.processor) if word_timestamps else None
        return Transcriber(
            Listening(
                features, longest, buckets, detector=detector, allow_truncated=allow_truncated
            ),
            Recogniser(
                partial(on_devices(model.generate), **settings),
                partial(on_devices(model.compile_generate), **settings),
                self.processor.text,
                alternatives,
                words,
            ),
            batch_size or default_batch(mesh),
            Thresholds() if thresholds is None else thresholds,
            workers,
            row_multiple=mesh.shape[DATA],
        )


def _dropout_key(train: bool, dropout_rng: Any | None) -> Any | None:
    if train and dropout_rng is None:
        raise ConfigError("train=True needs dropout_rng=jax.random.key(seed).")
    return dropout_rng if train else None
