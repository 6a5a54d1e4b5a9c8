"""Resolution of a transformers generation config: defaults, lengths, tuples, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from speech_ed_flax.errors import ConfigError

if TYPE_CHECKING:
    import transformers

DEFAULT_NEW_TOKENS = 20
"""How many tokens are generated when neither ``max_length`` nor ``max_new_tokens`` is set."""

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (None,),
    "constraints": (None,),
    "dola_layers": (None,),
    "force_words_ids": (None,),
    "forced_decoder_ids": (None,),
    "guidance_scale": (None, 1),
    "is_assistant": (None, False),
    "low_memory": (None, False),
    "penalty_alpha": (None, 0),
    "prompt_lookup_num_tokens": (None,),
    "speculation_type": (None,),
    "token_healing": (None, False),
    "use_mtp": (None, False),
    "watermarking_config": (None,),
}
"""Settings that would change the tokens and are not implemented, with the values that do not."""

_PLAIN_FIELDS = (
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "do_sample",
    "early_stopping",
    "top_k",
    "renormalize_logits",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "forced_bos_token_id",
    "remove_invalid_values",
    "output_scores",
    "output_logits",
    "output_attentions",
    "decoder_start_token_id",
    "bos_token_id",
)
_FLOAT_FIELDS = (
    "length_penalty",
    "diversity_penalty",
    "temperature",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "max_time",
)


def resolve(config: transformers.GenerationConfig, prompt_length: int) -> dict[str, Any]:
    """Returns the fields of ``GenerationSettings`` that a config sets, as it takes them.

    Args:
        config: the config with call arguments and model defaults already merged.
        prompt_length: number of decoder tokens given before the first generated one.

    Raises:
        ConfigError: a setting has the wrong form, or changes the result and is not supported.
    """
    _refuse_unsupported(config)
    return {
        **_plain_values(config),
        **_lengths(config, prompt_length),
        **_token_ids(config),
        "sequence_bias": _sequence_bias(config.sequence_bias),
        "exponential_decay_length_penalty": _length_decay(config.exponential_decay_length_penalty),
        "stop_strings": _stop_strings(config.stop_strings),
    }


def _refuse_unsupported(config: transformers.GenerationConfig) -> None:
    for name, inactive in UNSUPPORTED.items():
        value = getattr(config, name, None)
        if value not in inactive:
            raise ConfigError(
                f"{name} is set to {value!r} but generation does not support it: unset {name}."
            )


def _plain_values(config: transformers.GenerationConfig) -> dict[str, Any]:
    """Copies fields that mean the same on both sides, leaving out those that are None."""
    if isinstance(config.decoder_start_token_id, list | tuple):
        raise ConfigError(
            "decoder_start_token_id is a list: give the start tokens as decoder_input_ids instead."
        )
    values = {name: getattr(config, name) for name in _PLAIN_FIELDS + _FLOAT_FIELDS}
    return {
        name: float(value) if name in _FLOAT_FIELDS else value
        for name, value in values.items()
        if value is not None
    }


def _lengths(config: transformers.GenerationConfig, prompt_length: int) -> dict[str, int]:
    """Resolves lengths: counts of new tokens win over counts of all tokens."""
    for name in ("max_length", "max_new_tokens", "min_length", "min_new_tokens"):
        if not isinstance(getattr(config, name), int | None):
            raise ConfigError(f"{name} is {getattr(config, name)!r}: set it to a whole number.")
    max_length, min_length = config.max_length, config.min_length or 0
    if config.max_new_tokens is not None:
        max_length = prompt_length + config.max_new_tokens
    elif max_length is None:
        max_length = prompt_length + DEFAULT_NEW_TOKENS
    if config.min_new_tokens is not None:
        min_length = prompt_length + config.min_new_tokens
    return {
        "max_length": max_length,
        "min_length": min_length,
        "min_new_tokens": config.min_new_tokens or 0,
    }


def _token_ids(config: transformers.GenerationConfig) -> dict[str, Any]:
    """Resolves lists of token ids: a number or a list becomes a tuple, None the empty tuple."""
    eos = _as_tuple(config.eos_token_id)
    pad = config.pad_token_id
    return {
        "bad_words_ids": tuple(tuple(word) for word in config.bad_words_ids or ()),
        "suppress_tokens": _as_tuple(config.suppress_tokens),
        "begin_suppress_tokens": _as_tuple(config.begin_suppress_tokens),
        "forced_eos_token_id": _as_tuple(config.forced_eos_token_id),
        "eos_token_id": eos,
        "pad_token_id": eos[0] if pad is None and eos else pad,
    }


def _as_tuple(tokens: Any) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, int) else tuple(tokens)


def _sequence_bias(biases: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Resolves ``[[tokens, bias], ...]`` or the older ``{tokens: bias}``; the last of equals."""
    pairs = biases.items() if isinstance(biases, Mapping) else biases or ()
    try:
        return tuple({tuple(tokens): float(bias) for tokens, bias in pairs}.items())
    except (TypeError, ValueError):
        raise ConfigError(
            f"sequence_bias is {biases!r}: give a list of [[token ids], bias] pairs."
        ) from None


def _length_decay(decay: Any) -> tuple[int, float] | None:
    if decay is None:
        return None
    try:
        start, factor = decay
        return int(start), float(factor)
    except (TypeError, ValueError):
        raise ConfigError(
            f"exponential_decay_length_penalty is {decay!r}: give (start, factor), the number of "
            "generated tokens after which it begins and its growth a token."
        ) from None


def _stop_strings(strings: Any) -> tuple[str, ...]:
    if strings is None:
        return ()
    return (strings,) if isinstance(strings, str) else tuple(strings)
