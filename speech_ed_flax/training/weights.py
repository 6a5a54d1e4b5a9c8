"""Parameters of a model out of the checkpoints of its training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.training.loss import CTC_HEAD
from speech_ed_flax.training.stored import check, read_arrays

PARAMS, AVERAGE = "params", "average"
"""Fields of ``TrainState`` that hold parameters: as trained, and their moving average."""


def read_params(checkpoint: Path, average: bool | None = None) -> dict[str, Any]:
    """Returns the parameters of the model in a checkpoint, which is verified first.

    Args:
        checkpoint: its folder.
        average: whether it is their moving average; None for the average if there is one.

    Raises:
        CheckpointError: naming the file that is damaged, or the checkpoint that has no average.
    """
    check(checkpoint)
    arrays = _model(read_arrays(checkpoint, AVERAGE), AVERAGE) if average is not False else {}
    if average and not arrays:
        raise CheckpointError(f"{checkpoint}: the training kept no average of its parameters.")
    return unflatten_dict(arrays or _model(read_arrays(checkpoint, PARAMS), PARAMS), sep="/")


def mean_params(checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Returns the mean of the parameters in several checkpoints, each of which counts alike.

    Raises:
        CheckpointError: naming the file that is damaged, or the parameter that not all of them
            have in the same shape.
    """
    sums: dict[str, np.ndarray] = {}
    for checkpoint in checkpoints:
        check(checkpoint)
        found = _model(read_arrays(checkpoint, PARAMS), PARAMS)
        sums = sums or {name: np.zeros(array.shape) for name, array in found.items()}
        for name in sorted(sums.keys() | found.keys()):
            if name not in found or name not in sums or found[name].shape != sums[name].shape:
                raise CheckpointError(f"{checkpoint}: {name} is not as in {checkpoints[0]}.")
            sums[name] += found[name]
    means = {name: (total / len(checkpoints)).astype(np.float32) for name, total in sums.items()}
    return unflatten_dict(means, sep="/")


def _model(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """Returns the arrays below one field of the state, without what only the training needs."""
    below = {name.removeprefix(f"{part}/"): array for name, array in arrays.items()}
    return {name: array for name, array in below.items() if not name.startswith(f"{CTC_HEAD}/")}
