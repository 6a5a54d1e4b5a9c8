"""A batch of speech shared by the devices of one process."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.types import Params


def over_devices(
    generate: Callable[..., Any], params: Params, devices: Sequence[Any]
) -> Callable[..., Any]:
    """Returns ``generate`` for batches whose rows are dealt out, each device having all parameters.

    Args:
        generate: takes values, mask and ``params``.
        params: of the model.
        devices: that share the rows, whose number is to be a multiple of theirs.
    """
    if len(devices) == 1:
        return generate
    mesh = Mesh(np.asarray(devices), ("data",))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    generate = partial(generate, params=jax.device_put(params, whole))

    def shared(values: np.ndarray, mask: np.ndarray, **asked: Any) -> Any:
        return generate(*jax.device_put((values, mask), rows), **asked)

    return shared
