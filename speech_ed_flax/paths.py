"""Rules over parameter paths: the first pattern that matches decides."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from speech_ed_flax.types import Params

Value = TypeVar("Value")

FEATURE_ENCODER = r"^encoder/feature_encoder/"
"""The convolutions in front of every encoder, which fine-tuning usually freezes."""


def first_match(path: str, rules: Sequence[tuple[str, Value]], default: Value) -> Value:
    """Returns the value of the first ``(pattern, value)`` whose pattern is found in ``path``."""
    return next((value for pattern, value in rules if re.search(pattern, path)), default)


def freeze(params: Params, *patterns: str) -> dict[str, Any]:
    """Returns ``params`` with no gradient reaching those whose path matches a pattern."""
    rules = [(pattern, True) for pattern in patterns]
    return unflatten_dict(
        {
            path: jax.lax.stop_gradient(leaf) if first_match(path, rules, False) else leaf
            for path, leaf in flatten_dict(params, sep="/").items()
        },
        sep="/",
    )
