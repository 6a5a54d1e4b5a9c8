"""What PyTorch keeps beside the statistics of a batch norm: how many batches it has seen."""

import numpy as np

from speech_ed_flax.types import State

_COUNTER = "num_batches_tracked"


def without_counters(state: State) -> State:
    """Drops the counters, which no computation reads."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(f".{_COUNTER}")}


def with_counters(state: State) -> State:
    """Gives every batch norm a counter of 0 back: PyTorch's strict loading wants it."""
    norms = [name.rpartition(".")[0] for name in state if name.endswith(".running_var")]
    return state | {f"{norm}.{_COUNTER}": np.zeros((), np.int64) for norm in norms}
