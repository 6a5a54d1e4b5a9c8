"""A family: one kind of pretrained model, and how its checkpoints name things."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn

from speech_ed_flax.types import State


def unchanged(state: State, config: Any) -> State:
    """Returns ``state`` as it is."""
    del config
    return state


@dataclass(frozen=True)
class Family:
    """Everything the rest of the package knows about one kind of model.

    Attributes:
        config: frozen dataclass with a classmethod ``from_hf(hf_config)``.
        module: linen module built as ``module(config)``.
        names: our module path -> PyTorch module name, ``{}`` for a layer's index. A row may also
            name a single leaf.
        aliases: ``(pattern, replacement)``: how names in the family's own checkpoints become the
            names it has inside a speech encoder-decoder. Each is applied with ``re.sub`` in turn.
        unused: patterns of tensors that such checkpoints may hold and this model has no use for.
        fresh: patterns of our paths that such checkpoints may lack: they start at random.
        tied: the PyTorch names of the output and the input embedding, if they can be one tensor.
        regular: makes a PyTorch state one-to-one with our leaves (splits, drops, renames).
        irregular: its inverse, for export.
    """

    config: type
    module: type[nn.Module]
    names: Mapping[str, str]
    aliases: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    tied: tuple[str, str] | None = None
    regular: Callable[[State, Any], State] = field(default=unchanged)
    irregular: Callable[[State, Any], State] = field(default=unchanged)
