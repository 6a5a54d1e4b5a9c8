"""Names and leaves, both ways: PyTorch state dicts and our parameters.

Rows of a family's table name modules; one rule turns leaves: the kernel of a convolution is a
weight with all its axes reversed; a weight, a scale or an embedding is a weight as it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.family import Family
from speech_ed_flax.types import State

LEAVES = {
    "weight": "weight",
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "bias": "bias",
    "magnitude": "parametrizations.weight.original0",
    "direction": "parametrizations.weight.original1",
    "mean": "running_mean",
    "variance": "running_var",
}
REVERSED = {"kernel", "magnitude", "direction"}

SPELLINGS = (
    (re.compile(r"\bgamma$"), "weight"),
    (re.compile(r"\bbeta$"), "bias"),
    (re.compile(r"\bweight_g$"), "parametrizations.weight.original0"),
    (re.compile(r"\bweight_v$"), "parametrizations.weight.original1"),
)
"""Older spellings of leaf names, and today's."""


def torch_name(path: str, names: Mapping[str, str]) -> str:
    """Returns the PyTorch name of our parameter ``path`` (``a/b_3/kernel``).

    Raises:
        CheckpointError: if the table has no row for it.
    """
    indices = re.findall(r"_(\d+)(?=/)", path)
    template = re.sub(r"_\d+(?=/)", "_{}", path)
    module, _, leaf = template.rpartition("/")
    if template in names:
        return names[template].format(*indices)
    if module in names and leaf in LEAVES:
        return f"{names[module].format(*indices)}.{LEAVES[leaf]}"
    raise CheckpointError(f"{path}: no row of the family's table names this parameter.")


def turn(path: str, tensor: Any) -> Any:
    """Returns ``tensor`` with its axes reversed if ``path`` is a kernel; its own inverse."""
    return tensor.T if path.rpartition("/")[2] in REVERSED else tensor


def rename(state: State, rules: Iterable[tuple[str | re.Pattern, str]]) -> State:
    """Applies ``re.sub`` rules to every name.

    Raises:
        CheckpointError: if two different tensors come to have one name.
    """
    rules = tuple(rules)
    result: State = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in result and not same(result[new], tensor):
            raise CheckpointError(f"{name}: another tensor of the file that differs is {new} too.")
        result[new] = tensor
    return result


def same(a: Any, b: Any) -> bool:
    """Tells whether two tensors hold the same numbers."""
    return a is b or (a.shape == b.shape and bool(np.array_equal(a, b)))


def select(state: State, prefix: str) -> State:
    """Returns the tensors whose name begins with ``prefix``, without it."""
    return {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}


def is_tied(state: State, family: Family, tied: bool) -> bool:
    """Tells whether a decoder's output layer is its embedding, given what its config says.

    Two different tensors in the file say that it is not, whatever the config says (transformers
    5.x decides so as well).
    """
    if not (tied and family.tied):
        return False
    output, embedding = (state.get(name) for name in family.tied)
    return output is None or embedding is None or same(output, embedding)


def leaves(
    state: State,
    abstract: Mapping[str, Any],
    family: Family,
    config: Any,
    prefix: str = "",
    anew: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Matches a PyTorch state with the parameters of one part of the model.

    Args:
        state: tensors by the names of ``family.names``.
        abstract: our paths and the shapes that they must have.
        family: the part's family.
        config: the part's frozen config.
        prefix: put before PyTorch names in problems.
        anew: patterns of our paths whose tensors are left out.

    Returns:
        Our paths with their tensors (views), the paths that are left without one, and problems as
        lines: ``+`` unexpected, ``!`` of another shape.
    """
    state = {n: t for n, t in state.items() if not any(re.search(p, n) for p in family.unused)}
    if family.tied and getattr(config, "tied", False):
        output, embedding = family.tied
        state = {embedding: state.get(output)} | state if output in state else state
        state = {name: tensor for name, tensor in state.items() if name != output}
    state = family.regular(state, config)
    found, missing, problems = {}, [], []
    for path, shape in abstract.items():
        name = torch_name(path, family.names)
        if any(re.search(pattern, path) for pattern in anew):
            state.pop(name, None)
        if name not in state:
            missing.append(path)
            continue
        tensor = turn(path, state.pop(name))
        found[path] = tensor
        if tensor.shape != shape.shape:
            expected = list(
                shape.shape[::-1] if path.rpartition("/")[2] in REVERSED else shape.shape
            )
            actual = list(turn(path, tensor).shape)
            problems.append(f"! {prefix}{name}: shape {actual}, the config says {expected}")
    return found, missing, problems + [f"+ {prefix}{name}" for name in state]


def torch_state(params: Mapping[str, Any], family: Family, config: Any, prefix: str = "") -> State:
    """Returns the PyTorch state of one part of the model: the inverse of ``leaves``.

    Args:
        params: our paths and their arrays.
        family: the part's family.
        config: the part's frozen config.
        prefix: put before every name.
    """
    state = {
        torch_name(path, family.names): turn(path, np.asarray(array))
        for path, array in params.items()
    }
    return {prefix + name: tensor for name, tensor in family.irregular(state, config).items()}
