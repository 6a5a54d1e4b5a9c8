"""Settings of one generation: what transformers calls a generation config, resolved and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation import checks, resolution

if TYPE_CHECKING:
    import transformers


@dataclass(frozen=True)
class GenerationSettings:
    """Holds every setting of one generation; hashable, so usable as a static argument of ``jit``.

    Names and defaults are those of ``transformers.GenerationConfig`` at generation time. Lengths
    count tokens and include the prompt. An empty tuple means "none". ``max_time`` is in seconds,
    ``output_attentions`` asks for the cross-attention of the generated sequences.

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
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    renormalize_logits: bool = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_repetition_penalty: float = 1.0
    encoder_no_repeat_ngram_size: int = 0
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | tuple[int, ...] = ()
    exponential_decay_length_penalty: tuple[int, float] | None = None
    remove_invalid_values: bool = False
    max_time: float | None = None
    stop_strings: tuple[str, ...] = ()
    output_scores: bool = False
    output_logits: bool = False
    output_attentions: bool = False
    pad_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    decoder_start_token_id: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        checks.check(self)

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
        settings = cls(**resolution.resolve(config, prompt_length))
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
            "sequence_bias": tuple(token for word, _ in self.sequence_bias for token in word),
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
