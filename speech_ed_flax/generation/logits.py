"""The chain of logits processors that settings ask for, in the order of transformers 5.23.

A processor is any callable ``processor(tokens, scores, length) -> scores``, the signature that the
Flax processors of transformers 4.x had, so those and a user's own fit. ``tokens`` has a static
length; positions from ``length`` on are padding and must not be read as text. Processors are built
on the host and are pytrees, to be passed as arguments of a compiled function: their numbers and
token ids are traced, and changing them compiles nothing anew.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.allowed import Allowed, allowed_tokens
from speech_ed_flax.generation.constraints import (
    ForcedTokens,
    MinimumLength,
    SuppressedTokens,
    SuppressedTokensAtBegin,
    ValidValues,
)
from speech_ed_flax.generation.ngrams import EncoderNoRepeatNgram, NoRepeatNgram
from speech_ed_flax.generation.penalties import (
    EncoderRepetitionPenalty,
    RepetitionPenalty,
    end_growth,
    sequence_bias,
)
from speech_ed_flax.generation.processor import Processor, as_processor
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.tables import token_mask
from speech_ed_flax.generation.warpers import (
    TOP_H_CANDIDATES,
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    Normalized,
    Temperature,
    TopH,
    TopK,
    TopP,
    TypicalP,
)
from speech_ed_flax.types import Int


def processors(
    settings: GenerationSettings,
    prompt_length: int,
    vocab: int,
    custom: Sequence[Processor] = (),
    encoder_tokens: Any | None = None,
    allowed: Allowed | None = None,
) -> tuple[Processor, ...]:
    """Builds the processors that the settings ask for, in upstream's order, ``custom`` last.

    Args:
        settings: see ``GenerationSettings``.
        prompt_length: number of decoder tokens given before the first generated one.
        vocab: size of the vocabulary.
        custom: a user's own processors; what is no pytree is compiled in.
        encoder_tokens: the text that the encoder read, ``[batch, any]``; a waveform has none.
        allowed: what may be generated: see ``allowed.allowed_tokens``.

    Raises:
        ConfigError: a setting needs ``encoder_tokens``, ``allowed`` cannot be used, or a custom
            processor is not hashable.
    """
    return (
        *_repetition(settings, vocab, encoder_tokens),
        *_bad_words(settings, vocab),
        *_minimum_length(settings, prompt_length, vocab),
        *_allowed(settings, prompt_length, vocab, allowed),
        *_forced(settings, vocab),
        *((ValidValues(),) if settings.remove_invalid_values else ()),
        *_end_growth(settings, prompt_length, vocab),
        *_suppressed(settings, prompt_length, vocab),
        *map(as_processor, custom),
    )


def warpers(settings: GenerationSettings) -> tuple[Processor, ...]:
    """Builds the processors that shape the distribution of a sampled token; they come last.

    Greedy search has none but the normalization, if that is asked for.
    """
    normalized = (Normalized(),) if settings.renormalize_logits else ()
    if not settings.do_sample:
        return normalized
    # Beams must keep one continuation that does not end besides every end token.
    keep = max(2, 1 + len(settings.eos_token_id)) if settings.num_beams > 1 else 1
    return (*_best(settings, keep), *_likely_enough(settings, keep), *normalized)


def _repetition(
    settings: GenerationSettings, vocab: int, encoder_tokens: Any | None
) -> list[Processor]:
    chosen: list[Processor] = []
    if settings.sequence_bias:
        chosen.append(sequence_bias(settings.sequence_bias, vocab))
    if settings.encoder_repetition_penalty != 1.0:
        read = _encoder_tokens(encoder_tokens, "encoder_repetition_penalty")
        chosen.append(EncoderRepetitionPenalty(1 / settings.encoder_repetition_penalty, read))
    if settings.repetition_penalty != 1.0:
        chosen.append(RepetitionPenalty(settings.repetition_penalty))
    if settings.no_repeat_ngram_size > 0:
        chosen.append(NoRepeatNgram(settings.no_repeat_ngram_size))
    if settings.encoder_no_repeat_ngram_size > 0:
        read = _encoder_tokens(encoder_tokens, "encoder_no_repeat_ngram_size")
        chosen.append(EncoderNoRepeatNgram(settings.encoder_no_repeat_ngram_size, read))
    return chosen


def _encoder_tokens(given: Any | None, name: str) -> Int[np.ndarray, "batch encoder_length"]:
    tokens = None if given is None else np.asarray(given)
    if tokens is None or tokens.ndim != 2 or (tokens < 0).any():
        raise ConfigError(
            f"{name} needs the tokens that the encoder read, as ids [batch, length] of 0 or more, "
            f"and speech has none: pass encoder_input_ids, or unset {name}."
        )
    return tokens.astype(np.int32)


def _bad_words(settings: GenerationSettings, vocab: int) -> list[Processor]:
    """A bad word is one with a bias of -inf; upstream leaves out those that are an end token."""
    ends = {(token,) for token in settings.eos_token_id}
    words = tuple((word, -np.inf) for word in settings.bad_words_ids if word not in ends)
    return [sequence_bias(words, vocab)] if words else []


def _minimum_length(
    settings: GenerationSettings, prompt_length: int, vocab: int
) -> list[Processor]:
    """Upstream has two minima, both counted from the first token; the larger one decides."""
    shortest = max(settings.min_length, prompt_length + settings.min_new_tokens)
    if not settings.eos_token_id or shortest <= prompt_length:
        return []
    return [MinimumLength(shortest, token_mask(settings.eos_token_id, vocab))]


def _allowed(
    settings: GenerationSettings, prompt_length: int, vocab: int, allowed: Allowed | None
) -> list[Processor]:
    if allowed is None:
        return []
    free = prompt_length + int(_is_first_forced(settings, prompt_length))
    # A group of beams is searched on its own, as if there were no other beams.
    beams = settings.num_beams // settings.num_beam_groups
    return [allowed_tokens(allowed, free, settings.eos_token_id, vocab, beams)]


def _forced(settings: GenerationSettings, vocab: int) -> list[Processor]:
    chosen: list[Processor] = []
    if settings.forced_bos_token_id is not None:
        chosen.append(ForcedTokens(token_mask([settings.forced_bos_token_id], vocab), 1))
    if settings.forced_eos:
        last = settings.max_length - 1
        chosen.append(ForcedTokens(token_mask(settings.forced_eos, vocab), last))
    return chosen


def _end_growth(settings: GenerationSettings, prompt_length: int, vocab: int) -> list[Processor]:
    if settings.exponential_decay_length_penalty is None:
        return []
    start, factor = settings.exponential_decay_length_penalty
    ends = token_mask(settings.eos_token_id, vocab)
    return [end_growth(start + prompt_length, factor, ends, settings.max_length)]


def _suppressed(settings: GenerationSettings, prompt_length: int, vocab: int) -> list[Processor]:
    chosen: list[Processor] = []
    if settings.suppress_tokens:
        chosen.append(SuppressedTokens(token_mask(settings.suppress_tokens, vocab)))
    if settings.begin_suppress_tokens:
        begin = prompt_length + int(_is_first_forced(settings, prompt_length))
        mask = token_mask(settings.begin_suppress_tokens, vocab)
        chosen.append(SuppressedTokensAtBegin(mask, begin))
    return chosen


def _is_first_forced(settings: GenerationSettings, prompt_length: int) -> bool:
    return prompt_length == 1 and settings.forced_bos_token_id is not None


def _best(settings: GenerationSettings, keep: int) -> list[Processor]:
    """Builds the warpers that keep the best tokens; each ranks what the ones before it left."""
    chosen: list[Processor] = []
    alive: int | None = None
    if settings.temperature != 1.0:
        chosen.append(Temperature(settings.temperature))
    if settings.top_h is not None:
        chosen.append(TopH(settings.top_h))
        alive = TOP_H_CANDIDATES
    if settings.top_k > 0:
        top_k = max(settings.top_k, keep)
        chosen.append(TopK(top_k))
        alive = top_k if alive is None else min(alive, top_k)
    if settings.top_p < 1.0:
        chosen.append(TopP(settings.top_p, keep, alive))
    if settings.min_p is not None:
        chosen.append(MinP(settings.min_p, keep))
    if settings.typical_p < 1.0:
        chosen.append(TypicalP(settings.typical_p, keep, alive))
    return chosen


def _likely_enough(settings: GenerationSettings, keep: int) -> list[Processor]:
    chosen: list[Processor] = []
    if 0.0 < settings.epsilon_cutoff < 1.0:
        chosen.append(EpsilonCutoff(settings.epsilon_cutoff, keep))
    if 0.0 < settings.eta_cutoff < 1.0:
        chosen.append(EtaCutoff(settings.eta_cutoff, keep))
    return chosen
