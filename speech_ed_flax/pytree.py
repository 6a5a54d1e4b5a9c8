"""Dataclasses as arguments of compiled functions."""

import dataclasses
from typing import Any, TypeVar

import jax

STATIC = {"static": True}
"""Metadata of a field that decides shapes or code: changing it compiles anew."""

_Class = TypeVar("_Class", bound=type)


def pytree(cls: _Class) -> _Class:
    """Registers a dataclass as a pytree whose fields are traced, but for those that are STATIC.

    Its class is a part of its structure. With ``jax.tree_util.register_dataclass`` (jax 0.10 to
    0.12) it is not: structures of different classes are equal, and ``jit`` runs the program of one
    for the other whenever their hashes fall together, once in a hundred programs.
    """
    fields: Any = dataclasses.fields(cls)
    static = [field.name for field in fields if field.metadata.get("static")]
    traced = [field.name for field in fields if field.name not in static]

    def flatten(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(tree, name) for name in traced], tuple(getattr(tree, n) for n in static)

    def flatten_with_keys(tree: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, structure = flatten(tree)
        return list(zip(map(jax.tree_util.GetAttrKey, traced), values, strict=True)), structure

    def unflatten(structure: Any, values: Any) -> Any:
        tree = object.__new__(cls)  # unchecked: JAX also makes trees of what it says of arrays
        for name, value in zip(static + traced, [*structure, *values], strict=True):
            object.__setattr__(tree, name, value)
        return tree

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
