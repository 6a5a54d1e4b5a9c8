"""The legend of axes used in every signature of this package.

``batch``: utterances. ``samples``: audio samples (16 kHz). ``frames``: feature frames.
``source``: encoder positions. ``target``: decoder positions. ``beams``: hypotheses per utterance.
``rows``: batch x beams. ``heads``, ``head_dim``, ``width``, ``vocab``: sizes of the model.

Masks are boolean and True means real; biases are additive floats; ``tokens`` are integers.
The annotations are checked under pytest only (``--jaxtyping-packages``).
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "Params", "Size", "State"]

Params = Mapping[str, Any]
"""A nested mapping of our parameter names to arrays."""

Size = Any
"""An integer, or a dimension that ``jax.export`` has left symbolic."""

State = dict[str, Any]
"""A flat dict of PyTorch tensor names to numpy arrays (often read-only views of a mapped file)."""
