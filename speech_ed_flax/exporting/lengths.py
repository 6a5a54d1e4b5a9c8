"""How long the inputs of an exported program may be."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from speech_ed_flax.types import Size

_SEARCHED = 1 << 17  # samples or frames within which every encoder has said a few states


@dataclass(frozen=True)
class Lengths:
    """Inputs are ``shortest``, or longer by a multiple of ``step``.

    So every convolution divides its input evenly, and a symbolic length stays a polynomial.

    Attributes:
        shortest: samples or frames.
        step: samples or frames; 0 if there is one length only.
    """

    shortest: int
    step: int

    def symbolic(self, steps: Size) -> Size:
        """Returns the length of so many steps, of which there is at least one."""
        return self.step * steps + (self.shortest - self.step)

    def fit(self, length: int) -> int:
        """Returns the shortest input that holds ``length``; the only one, if there is no other."""
        missing = max(length - self.shortest, 0)
        return self.shortest + (-(-missing // self.step) * self.step if self.step else 0)


def lengths_of(encoder: Any) -> Lengths:
    """Returns the lengths that an encoder divides evenly.

    Args:
        encoder: its frozen config.
    """
    if not hasattr(encoder, "frames"):
        return Lengths(encoder.input_shape[-1], 0)
    together = getattr(encoder, "squeeze", 1)
    states = encoder.frames(np.arange(_SEARCHED))
    fewest = together * -(-2 // together)  # one state may take less than any other adds
    first, second = (int(np.argmax(states >= fewest + more)) for more in (0, together))
    return Lengths(first, second - first)
