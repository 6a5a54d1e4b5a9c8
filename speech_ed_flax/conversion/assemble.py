"""From the tensors of one or two checkpoints to the parameters of a model."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from speech_ed_flax.conversion.names import leaves, torch_state
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.family import Family
from speech_ed_flax.model import SpeechEncoderDecoder, abstract_params, initialise
from speech_ed_flax.types import Params, State

PROJECTION = Family(
    config=object, module=SpeechEncoderDecoder, names={"": "enc_to_dec_proj"}, fresh=(r".*",)
)
"""The dense layer between encoder and decoder; neither half's checkpoint holds it."""

LISTED = 40
"""Lines of one error message at most."""


@dataclass(frozen=True)
class Part:
    """One part of the model and the tensors that are to fill it.

    Attributes:
        path: of the part in our parameters: "encoder", "decoder" or "projection".
        family: the part's family.
        config: the part's frozen config.
        state: PyTorch tensors by the names of the family.
        prefix: of these names in the checkpoint, for messages and export.
        fresh: patterns of our paths that may be missing and then start at random.
        anew: patterns of our paths that start at random, whatever the state holds.
    """

    path: str
    family: Family
    config: Any
    state: State
    prefix: str = ""
    fresh: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()


def assemble(
    module: SpeechEncoderDecoder,
    parts: list[Part],
    source: Path | str,
    dtype: Any | None,
    key: Any | None = None,
    unexpected: tuple[str, ...] = (),
) -> tuple[Params, list[str]]:
    """Fills every parameter of ``module``.

    All shapes are checked before anything is allocated; then one tensor at a time is copied, so
    that there is never more than one copy of the weights and one tensor.

    Args:
        module: the model.
        parts: encoder, decoder and, if there is one, projection.
        source: the file or folders, for messages.
        dtype: of the parameters; None keeps what is stored.
        key: for parameters that start at random.
        unexpected: names of tensors that belong to no part.

    Returns:
        The parameters, and the paths of those that started at random.

    Raises:
        CheckpointError: listing every missing (``-``), unexpected (``+``) or misshapen (``!``)
            tensor.
    """
    abstract = abstract_params(module)
    found: dict[str, Any] = {}
    fresh: list[str] = []
    problems = [f"+ {name}" for name in unexpected]
    for part in parts:
        filled, missing, lines = _match(part, abstract)
        random = (*part.fresh, *part.anew)
        allowed = [path for path in missing if any(re.search(p, path) for p in random)]
        lines += [f"- {part.path}/{path}" for path in missing if path not in allowed]
        found |= {f"{part.path}/{path}": tensor for path, tensor in filled.items()}
        fresh += [f"{part.path}/{path}" for path in allowed]
        problems += lines
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        listing = "\n  ".join(problems[:LISTED] + more)
        raise CheckpointError(
            f"{source}: the tensors do not fit the config "
            f"(- missing, + unexpected, ! other shape):\n  {listing}"
        )
    params = _start(module, tuple(fresh), key, dtype)
    for path in list(found):
        params[path] = _copy(found.pop(path), dtype)
    return unflatten_dict(params, sep="/"), fresh


def _match(part: Part, abstract: Mapping[str, Any]):
    inside = {
        path.removeprefix(part.path + "/"): shape
        for path, shape in abstract.items()
        if path.startswith(part.path + "/")
    }
    return leaves(part.state, inside, part.family, part.config, part.prefix, part.anew)


def _start(module: SpeechEncoderDecoder, paths: tuple[str, ...], key: Any, dtype: Any):
    """Initialises only ``paths``: XLA never computes what the jitted function does not return."""
    if not paths:
        return {}
    pick: Callable = partial(_pick, module, paths)
    return {p: a if dtype is None else a.astype(dtype) for p, a in jax.jit(pick)(key).items()}


def _pick(module: SpeechEncoderDecoder, paths: tuple[str, ...], key: Any):
    params = initialise(module, key)
    return {path: params[path] for path in paths}


def _copy(tensor: np.ndarray, dtype: Any | None) -> jax.Array:
    return jnp.array(np.ascontiguousarray(tensor), dtype=dtype, copy=True)


def export(params: Params, parts: list[Part]) -> State:
    """Returns the PyTorch state dict of a model: the inverse of ``assemble``."""
    flat = flatten_dict(params, sep="/")
    state: State = {}
    for part in parts:
        inside = {
            path.removeprefix(part.path + "/"): array
            for path, array in flat.items()
            if path.startswith(part.path + "/")
        }
        state |= torch_state(inside, part.family, part.config, part.prefix)
    return state
