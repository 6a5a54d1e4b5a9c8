"""The interface of a logits processor, and the wrapper that makes a user's function one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.pytree import STATIC, pytree
from speech_ed_flax.types import Array, Bool, Float, Int

Tokens = Int[Array, "rows capacity"]
Scores = Float[Array, "rows vocab"]
Length = Int[Array, ""]

Processor = Callable[[Array, Array, Array], Array]
"""``(tokens [rows, capacity], scores [rows, vocab], length []) -> scores [rows, vocab]``."""

# Fields of processors: traced inside a compiled function, numbers or numpy arrays outside.
Real = Float[Any, ""] | float
Whole = Int[Any, ""] | int
Mask = Bool[Any, " vocab"]


@pytree
@dataclass(frozen=True)
class Custom:
    """Calls a user's own function, which is compiled in: another function compiles anew."""

    function: Processor = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns what the function returns."""
        return self.function(tokens, scores, length)


@pytree
@dataclass(frozen=True)
class Registered:
    """Calls a pytree of a user's, whose class its own structure may lack (see ``pytree``)."""

    processor: Processor
    kind: type = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns what the processor returns."""
        return self.processor(tokens, scores, length)


def as_processor(function: Processor) -> Processor:
    """Returns a callable as a pytree, so that it can be an argument of a compiled function.

    Of what is a pytree already, such as every processor of this package, the numbers are traced.

    Raises:
        ConfigError: the callable is not hashable.
    """
    if not jax.tree_util.all_leaves([function]):
        return Registered(function, type(function))
    try:
        hash(function)
    except TypeError:
        raise ConfigError(
            f"The logits processor {function!r} is not hashable: register its class with "
            "jax.tree_util.register_dataclass, or pass a function."
        ) from None
    return Custom(function)
