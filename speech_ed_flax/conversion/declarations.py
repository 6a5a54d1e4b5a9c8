"""What the pickle of a state dict declares: storages, tensors over them, and no more.

``CALLS`` and ``STORAGES`` are the list of every global that such a pickle may name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from speech_ed_flax.errors import CheckpointError

__all__ = ["CALLS", "STORAGES", "Storage", "Tensor", "exactly"]

STORAGES = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.UntypedStorage": np.dtype(np.uint8),
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
}


@dataclass(frozen=True)
class Storage:
    """A row of numbers kept outside the pickle: ``elements`` of ``dtype``, found under ``key``."""

    dtype: np.dtype
    key: str
    elements: int


@dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle declares it.

    Only the storage is checked yet: the rest is judged where the tensor's name is known.
    """

    storage: Storage
    offset: object
    shape: object
    strides: object


def exactly(kind: type, value: Any) -> Any:
    """Returns ``value``; a TypeError if it is not of that very type (a bool is no int here)."""
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, {type(value).__name__} found")
    return value


def _ordered_dict() -> dict[str | int, Any]:
    return {}


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, bits: Any = None
) -> Tensor:
    if bits:  # torch's lazy "negative" and "conjugate" bits: the stored numbers are not its own
        raise CheckpointError("its pickle has a tensor with lazy bits: save tensor.clone() instead")
    return Tensor(exactly(Storage, storage), offset, shape, strides)


def _parameter(tensor: Any, grad: Any, hooks: Any) -> Tensor:
    return exactly(Tensor, tensor)


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
