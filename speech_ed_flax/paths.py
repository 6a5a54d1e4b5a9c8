"""Rules over parameter paths: the first pattern that matches decides."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

from speech_ed_flax.types import Params

Value = TypeVar("Value")

FEATURE_ENCODER = r"^encoder/feature_encoder/"
"""The convolutions in front of every encoder, which fine-tuning usually freezes."""


def first_match(path: str, rules: Sequence[tuple[str, Value]], default: Value) -> Value:
    """Returns the value of the first ``(pattern, value)`` whose pattern is found in ``path``."""
    return next((value for pattern, value in rules if re.search(pattern, path)), default)


def map_paths(function: Callable[..., Any], tree: Any, *trees: Any) -> Any:
    """Returns the tree of ``function(path, leaf, ...)``, paths as in ``encoder/positions/bias``."""

    def by_path(path: Any, *leaves: Any) -> Any:
        return function(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves)

    return jax.tree_util.tree_map_with_path(by_path, tree, *trees)


def freeze(params: Params, *patterns: str) -> dict[str, Any]:
    """Returns ``params`` with no gradient reaching those whose path matches a pattern."""
    rules = [(pattern, True) for pattern in patterns]

    def frozen(path: str, leaf: Any) -> Any:
        return jax.lax.stop_gradient(leaf) if first_match(path, rules, False) else leaf

    return map_paths(frozen, params)
