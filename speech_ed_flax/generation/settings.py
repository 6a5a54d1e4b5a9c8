"""Settings of one generation: what transformers calls a generation config, resolved and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from speech_ed_flax.errors import ConfigError

if TYPE_CHECKING:
    import transformers

DEFAULT_NEW_TOKENS = 20
"""How many tokens are generated when neither ``max_length`` nor ``max_new_tokens`` is set."""

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (None,),
    "constraints": (None,),
    "diversity_penalty": (None, 0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None,),
    "forced_decoder_ids": (None,),
    "guidance_scale": (None, 1),
    "is_assistant": (None, False),
    "low_memory": (None, False),
    "max_time": (None,),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0),
    "prompt_lookup_num_tokens": (None,),
    "remove_invalid_values": (None, False),
    "renormalize_logits": (None, False),
    "sequence_bias": (None,),
    "speculation_type": (None,),
    "stop_strings": (None,),
    "token_healing": (None, False),
    "use_mtp": (None, False),
    "watermarking_config": (None,),
}
"""Settings that would change the tokens and are not implemented, with the values that do not."""

UNSUPPORTED_IN_SAMPLING: dict[str, tuple[Any, ...]] = {
    "epsilon_cutoff": (None, 0, 1),
    "eta_cutoff": (None, 0, 1),
    "min_p": (None,),
    "top_h": (None,),
    "typical_p": (None, 1),
}
"""The same for settings that upstream reads only when it samples."""


@dataclass(frozen=True)
class GenerationSettings:
    """Holds every setting of one generation; hashable, so usable as a static argument of ``jit``.

    Names and defaults are those of ``transformers.GenerationConfig`` at generation time. Lengths
    count tokens and include the prompt. An empty tuple means "none" for every field of token ids.

    Raises:
        ConfigError: a value is out of range or contradicts another one.
    """

    max_length: int
    min_length: int = 0
    min_new_tokens: int = 0
    num_beams: int = 1
    num_return_sequences: int = 1
    do_sample: bool = False
    early_stopping: bool | Literal["never"] = False
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | tuple[int, ...] = ()
    pad_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    decoder_start_token_id: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_number_of_sequences()
        if self.do_sample:
            self._check_sampling()
        self._check_forced_tokens()

    @classmethod
    def from_hf(
        cls, config: transformers.GenerationConfig, prompt_length: int, vocab: int | None = None
    ) -> GenerationSettings:
        """Resolves a generation config as ``transformers.generate`` does before its loop.

        Args:
            config: the config with call arguments and model defaults already merged; what is
                still None takes transformers' global default.
            prompt_length: number of decoder tokens given before the first generated one.
            vocab: size of the vocabulary, to refuse token ids beyond it; None skips that check.

        Raises:
            ConfigError: a setting is invalid, or changes the result and is not supported.
        """
        _refuse_unsupported(config, UNSUPPORTED)
        if config.do_sample:
            _refuse_unsupported(config, UNSUPPORTED_IN_SAMPLING)
        settings = cls(
            **_plain_values(config),
            **_lengths(config, prompt_length),
            **_token_ids(config),
        )
        settings.check_prompt(prompt_length)
        if vocab is not None:
            settings.check_vocabulary(vocab)
        return settings

    @property
    def forced_eos(self) -> tuple[int, ...]:
        """The tokens of which one must be last when ``max_length`` is reached."""
        forced = self.forced_eos_token_id
        return (forced,) if isinstance(forced, int) else forced

    @property
    def row_fill(self) -> int:
        """The token after the end of a greedy or sampled row: pad, else the first end token."""
        if self.pad_token_id is not None:
            return self.pad_token_id
        return self.eos_token_id[0] if self.eos_token_id else 0

    @property
    def beam_fill(self) -> int:
        """The token after the end of a beam.

        As upstream: -1 when no end token exists, and a pad token of 0 counts as no pad token.
        """
        if not self.eos_token_id:
            return -1
        return self.pad_token_id or self.eos_token_id[0]

    def check_prompt(self, prompt_length: int) -> None:
        """Raises ConfigError unless a prompt of this length leaves room for one more token."""
        if not 0 < prompt_length < self.max_length:
            raise ConfigError(
                f"max_length is {self.max_length} but the prompt has {prompt_length} tokens: "
                "give at least one token and raise max_length or set max_new_tokens."
            )

    def check_vocabulary(self, vocab: int) -> None:
        """Raises ConfigError if a token id of these settings is not below ``vocab``."""
        named = {
            "bad_words_ids": tuple(token for word in self.bad_words_ids for token in word),
            "forced_bos_token_id": (self.forced_bos_token_id,),
            "forced_eos_token_id": self.forced_eos,
            "pad_token_id": (self.pad_token_id,),
            "eos_token_id": self.eos_token_id,
            "decoder_start_token_id": (self.decoder_start_token_id,),
        }
        for name, tokens in named.items():
            beyond = [token for token in tokens if token is not None and token >= vocab]
            if beyond:
                raise ConfigError(
                    f"{name} holds {beyond} but the vocabulary ends at {vocab - 1}: correct the id."
                )

    def check_positions(self, positions: int) -> None:
        """Raises ConfigError if the longest sequence has no place in the decoder's positions."""
        if self.max_length > positions:
            raise ConfigError(
                f"max_length is {self.max_length} but the decoder has {positions} positions: "
                "lower max_length or max_new_tokens."
            )

    def _check_ranges(self) -> None:
        lowest = {
            "max_length": 1,
            "min_length": 0,
            "min_new_tokens": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "no_repeat_ngram_size": 0,
        }
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name} is {getattr(self, name)}: set it to {low} or more.")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(
                f"early_stopping is {self.early_stopping!r}: set it to True, False or 'never'."
            )
        if self.repetition_penalty <= 0:
            raise ConfigError(
                f"repetition_penalty is {self.repetition_penalty}: set it above 0 (1 = none)."
            )
        if not all(word and min(word) >= 0 for word in self.bad_words_ids):
            raise ConfigError(
                "bad_words_ids has an empty word or a negative id: give each word token ids >= 0."
            )

    def _check_number_of_sequences(self) -> None:
        if self.num_beams == 1 and not self.do_sample and self.num_return_sequences > 1:
            raise ConfigError(
                f"num_return_sequences is {self.num_return_sequences} but greedy search finds one "
                "sequence: set num_beams or do_sample."
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences is {self.num_return_sequences} but num_beams is "
                f"{self.num_beams}: ask for at most one sequence a beam."
            )

    def _check_sampling(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(
                f"temperature is {self.temperature}: set it above 0, or do_sample=False for greedy."
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}: set it above 0, or to 0 to switch it off.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}: set it above 0 and at most 1.")

    def _check_forced_tokens(self) -> None:
        first = () if self.forced_bos_token_id is None else (self.forced_bos_token_id,)
        for name, forced in (
            ("forced_bos_token_id", first),
            ("forced_eos_token_id", self.forced_eos),
        ):
            if forced and set(forced) <= set(self.suppress_tokens):
                raise ConfigError(
                    f"{name} forces {list(forced)} but suppress_tokens forbids it: drop one."
                )


_PLAIN_FIELDS = (
    "num_beams",
    "num_return_sequences",
    "do_sample",
    "early_stopping",
    "top_k",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "decoder_start_token_id",
    "bos_token_id",
)
_FLOAT_FIELDS = ("length_penalty", "temperature", "top_p", "repetition_penalty")


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


def _refuse_unsupported(
    config: transformers.GenerationConfig, inactive: dict[str, tuple[Any, ...]]
) -> None:
    for name, values in inactive.items():
        value = getattr(config, name, None)
        if value not in values:
            raise ConfigError(
                f"{name} is set to {value!r} but generation does not support it: unset {name}."
            )


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
