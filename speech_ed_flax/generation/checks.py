"""Checks of generation settings: every value in its range, and none that contradicts another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speech_ed_flax.errors import ConfigError

if TYPE_CHECKING:
    from speech_ed_flax.generation.settings import GenerationSettings

_LOWEST = {
    "max_length": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
}
"""The lowest value of every field that counts something."""


def check(settings: GenerationSettings) -> None:
    """Raises ConfigError, naming the field, if a value is wrong or contradicts another one."""
    _check_ranges(settings)
    _check_token_sequences(settings)
    _check_number_of_sequences(settings)
    _check_groups(settings)
    if settings.do_sample:
        _check_sampling(settings)
    _check_forced_tokens(settings)
    _check_length_decay(settings)


def _check_ranges(settings: GenerationSettings) -> None:
    for name, low in _LOWEST.items():
        if getattr(settings, name) < low:
            raise ConfigError(f"{name} is {getattr(settings, name)}: set it to {low} or more.")
    if settings.early_stopping not in (True, False, "never"):
        raise ConfigError(
            f"early_stopping is {settings.early_stopping!r}: set it to True, False or 'never'."
        )
    for name in ("repetition_penalty", "encoder_repetition_penalty"):
        if getattr(settings, name) <= 0:
            raise ConfigError(
                f"{name} is {getattr(settings, name)}: set it above 0 (1 = no penalty)."
            )
    if settings.max_time is not None and settings.max_time <= 0:
        raise ConfigError(f"max_time is {settings.max_time} seconds: set it above 0.")
    if not all(settings.stop_strings):
        raise ConfigError("stop_strings has an empty string, which is in every text: drop it.")


def _check_token_sequences(settings: GenerationSettings) -> None:
    if not all(word and min(word) >= 0 for word in settings.bad_words_ids):
        raise ConfigError(
            "bad_words_ids has an empty word or a negative id: give each word token ids >= 0."
        )
    if not all(word and min(word) >= 0 for word, _ in settings.sequence_bias):
        raise ConfigError(
            "sequence_bias has an empty sequence or a negative id: give each one token ids >= 0."
        )


def _check_number_of_sequences(settings: GenerationSettings) -> None:
    wanted, beams = settings.num_return_sequences, settings.num_beams
    if beams == 1 and not settings.do_sample and wanted > 1:
        raise ConfigError(
            f"num_return_sequences is {wanted} but greedy search finds one sequence: "
            "set num_beams or do_sample."
        )
    if 1 < beams < wanted:
        raise ConfigError(
            f"num_return_sequences is {wanted} but num_beams is {beams}: "
            "ask for at most one sequence a beam."
        )


def _check_groups(settings: GenerationSettings) -> None:
    """Checks groups of beams: the rules of transformers' group beam search."""
    groups, penalty = settings.num_beam_groups, settings.diversity_penalty
    if groups == 1:
        if penalty != 0:
            raise ConfigError(
                f"diversity_penalty is {penalty} but num_beam_groups is 1: set num_beam_groups "
                "above 1, or unset diversity_penalty."
            )
        return
    if settings.num_beams % groups != 0:
        raise ConfigError(
            f"num_beam_groups is {groups} but num_beams is {settings.num_beams}: "
            "num_beams must be a multiple of it."
        )
    if settings.do_sample:
        raise ConfigError(f"num_beam_groups is {groups} but do_sample is True: drop one of them.")
    if penalty <= 0:
        raise ConfigError(
            f"diversity_penalty is {penalty} but num_beam_groups is {groups}: set it above 0, or "
            "every group finds the same sequences."
        )


def _check_sampling(settings: GenerationSettings) -> None:
    if settings.temperature <= 0:
        raise ConfigError(
            f"temperature is {settings.temperature}: set it above 0, or do_sample=False for greedy."
        )
    if settings.top_k < 0:
        raise ConfigError(f"top_k is {settings.top_k}: set it above 0, or to 0 to switch it off.")
    for name in ("top_p", "typical_p", "top_h"):
        value = getattr(settings, name)
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"{name} is {value}: set it above 0 and at most 1.")
    for name in ("min_p", "epsilon_cutoff", "eta_cutoff"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value}: set it between 0 and 1.")


def _check_forced_tokens(settings: GenerationSettings) -> None:
    bos = settings.forced_bos_token_id
    forced = {
        "forced_bos_token_id": () if bos is None else (bos,),
        "forced_eos_token_id": settings.forced_eos,
    }
    for name, tokens in forced.items():
        if tokens and set(tokens) <= set(settings.suppress_tokens):
            raise ConfigError(
                f"{name} forces {list(tokens)} but suppress_tokens forbids it: drop one."
            )


def _check_length_decay(settings: GenerationSettings) -> None:
    decay = settings.exponential_decay_length_penalty
    if decay is None:
        return
    if decay[1] <= 0:
        raise ConfigError(
            f"exponential_decay_length_penalty has factor {decay[1]}: set it above 0 (1 = none)."
        )
    if not settings.eos_token_id:
        raise ConfigError(
            "exponential_decay_length_penalty favours the end token: set eos_token_id."
        )
