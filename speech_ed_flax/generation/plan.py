"""What a search is: what its code depends on (``Plan``), and what it only reads (``Limits``).

Two generations whose plans are equal run the same compiled program, whatever their limits say.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.stopping import StopStrings
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Bool, Float, Int

BUCKET = 64
"""New tokens that a search has room for are a multiple of this, so that few sizes are compiled."""

Given = Array | np.ndarray
"""Made on the host, read inside a compiled function."""


@dataclass(frozen=True)
class Record:
    """What is kept besides the tokens; what is False is neither computed nor stored.

    Attributes:
        scores: of the whole vocabulary after the processors, at every step.
        logits: of the whole vocabulary before them, at every step.
        log_probs: of every token of the returned sequences.
        parents: the row that every token of the returned sequences continued.
        attentions: the cross-attention of the returned sequences.
    """

    scores: bool = False
    logits: bool = False
    log_probs: bool = False
    parents: bool = False
    attentions: bool = False


@dataclass(frozen=True)
class Plan:
    """Decides shapes and code of a search; hashable, a static argument of ``jit``.

    Attributes:
        capacity: longest sequence that there is room for, prompt included.
        num_beams: hypotheses of an utterance, of all its groups together.
        num_beam_groups: parts of the beams that avoid each other's tokens.
        num_return_sequences: sequences returned for each utterance.
        do_sample: whether tokens are drawn.
        record: what is kept besides the tokens.
    """

    capacity: int
    num_beams: int = 1
    num_beam_groups: int = 1
    num_return_sequences: int = 1
    do_sample: bool = False
    record: Record = Record()

    @classmethod
    def of(
        cls,
        settings: GenerationSettings,
        prompt_length: int,
        positions: int | None = None,
        log_probs: bool = False,
    ) -> Plan:
        """Returns the plan that settings ask for.

        Args:
            settings: of the generation.
            prompt_length: tokens that every sequence begins with.
            positions: the decoder's longest sequence; None if there is no limit.
            log_probs: whether the log-probabilities of the tokens are wanted.

        Raises:
            ConfigError: if the prompt leaves no room, or the positions do not suffice.
        """
        settings.check_prompt(prompt_length)
        if positions is not None:
            settings.check_positions(positions)
        room = -(-(settings.max_length - prompt_length) // BUCKET) * BUCKET
        capacity = prompt_length + room
        return cls(
            capacity=capacity if positions is None else min(capacity, positions),
            num_beams=settings.num_beams,
            num_beam_groups=settings.num_beam_groups,
            num_return_sequences=settings.num_return_sequences,
            do_sample=settings.do_sample,
            record=Record(
                scores=settings.output_scores,
                logits=settings.output_logits,
                log_probs=log_probs,
                parents=settings.num_beams > 1 and (settings.output_scores or log_probs),
                attentions=settings.output_attentions,
            ),
        )

    @property
    def copies(self) -> int:
        """Rows that are searched for each utterance: its beams, or what is returned of it."""
        return self.num_beams if self.num_beams > 1 else self.num_return_sequences

    @property
    def group_size(self) -> int:
        """Beams of one group."""
        return self.num_beams // self.num_beam_groups

    @property
    def cache_length(self) -> int:
        """Tokens that are ever read back: all but the last possible one."""
        return self.capacity - 1


@pytree
@dataclass(frozen=True)
class Limits:
    """Numbers that a search reads, made on the host; changing them compiles nothing anew.

    Attributes:
        prompt_length: tokens that every sequence begins with.
        max_length: of the sequences, prompt included; at most the plan's capacity.
        end_tokens: any of which ends a sequence.
        fill: the token behind the end of a sequence.
        stops_when_full: whether an utterance with ``num_beams`` finished hypotheses is closed.
        penalties: divisor of the score of a sequence, by its length.
        best_penalties: divisor of the best score that a running hypothesis might still reach, by
            its length.
        diversity: taken off the score of a token for every beam of an earlier group that took it.
        stop: strings that end a sequence; None if there are none.
    """

    prompt_length: Int[Given, ""]
    max_length: Int[Given, ""]
    end_tokens: Int[Given, " ends"]
    fill: Int[Given, ""]
    stops_when_full: Bool[Given, ""]
    penalties: Float[Given, " lengths"]
    best_penalties: Float[Given, " lengths"]
    diversity: Float[Given, ""]
    stop: StopStrings | None = None

    @classmethod
    def of(
        cls,
        settings: GenerationSettings,
        prompt_length: int,
        plan: Plan,
        stop: StopStrings | None = None,
    ) -> Limits:
        """Returns the limits that settings ask for."""
        penalties = _penalties(settings.length_penalty, prompt_length, plan.capacity)
        # Where longer is better, the best that can be hoped for is to end as late as possible.
        hopeful = settings.early_stopping == "never" and settings.length_penalty > 0
        latest = np.full_like(penalties, penalties[settings.max_length])
        plain_beams = plan.num_beams > 1 and plan.num_beam_groups == 1
        return cls(
            prompt_length=np.array(prompt_length, np.int32),
            max_length=np.array(settings.max_length, np.int32),
            end_tokens=np.array(settings.eos_token_id, np.int32),
            fill=np.array(settings.beam_fill if plain_beams else settings.row_fill, np.int32),
            stops_when_full=np.array(settings.early_stopping is True),
            penalties=penalties,
            best_penalties=latest if hopeful else penalties,
            diversity=np.array(settings.diversity_penalty, np.float32),
            stop=stop,
        )

    def penalty(self, length: Int[Array, ""]) -> Float[Array, ""]:
        """Returns the divisor of the scores of sequences of ``length`` tokens."""
        return jnp.asarray(self.penalties)[length]

    def best_penalty(self, length: Int[Array, ""]) -> Float[Array, ""]:
        """Returns the divisor of the best that hypotheses of ``length`` tokens might reach."""
        return jnp.asarray(self.best_penalties)[length]


def check_key(plan: Plan, key: object | None) -> None:
    """Raises ConfigError if the plan samples but no random key was given."""
    if plan.do_sample and key is None:
        raise ConfigError("do_sample needs randomness: pass key=jax.random.key(seed).")


def _penalties(exponent: float, prompt_length: int, capacity: int) -> Float[np.ndarray, " lengths"]:
    """Returns generated length ** exponent for every length, computed in float64 as upstream."""
    generated = np.maximum(np.arange(capacity + 1) - prompt_length, 1)
    return (generated.astype(np.float64) ** exponent).astype(np.float32)
