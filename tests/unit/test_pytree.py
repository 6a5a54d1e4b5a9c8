"""Trees of different classes are different, whatever they hold."""

from dataclasses import dataclass, field

import jax

from speech_ed_flax.generation.processor import as_processor
from speech_ed_flax.pytree import STATIC, pytree


@pytree
@dataclass(frozen=True)
class Half:
    value: float
    name: str = field(default="", metadata=STATIC)


@pytree
@dataclass(frozen=True)
class Double:
    value: float
    name: str = field(default="", metadata=STATIC)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Plain:
    def __call__(self, tokens, scores, length):
        return scores


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Negative:
    def __call__(self, tokens, scores, length):
        return -scores


def test_the_class_is_a_part_of_the_structure():
    assert jax.tree.structure(Half(1.0)) == jax.tree.structure(Half(2.0))
    assert jax.tree.structure(Half(1.0)) != jax.tree.structure(Double(1.0))
    assert jax.tree.structure(Half(1.0)) != jax.tree.structure(Half(1.0, "other"))


def test_the_class_of_a_users_processor_is_too():
    plain, negative = as_processor(Plain()), as_processor(Negative())
    assert jax.tree.structure(plain) != jax.tree.structure(negative)


def test_fields_keep_their_names_and_values():
    ((path, value),) = jax.tree_util.tree_leaves_with_path(Half(3.0, "x"))
    assert (jax.tree_util.keystr(path), value) == (".value", 3.0)
    assert jax.tree.map(lambda number: number + 1, Half(3.0, "x")) == Half(4.0, "x")


def test_what_is_no_array_may_stand_in_a_tree():
    assert jax.tree.map(str, Half(3.0, "x")).value == "3.0"
    assert jax.tree.map(lambda number: None, Half(3.0)).value is None
