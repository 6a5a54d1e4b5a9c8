from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.settings import read_settings, to_yaml


@dataclass(frozen=True)
class Part:
    rate: float = 0.5
    steps: int | None = None
    kind: Literal["one", "two"] = "one"
    rules: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        if self.rate < 0:
            raise ConfigError("rate must not be negative.")


@dataclass(frozen=True)
class Whole:
    name: str
    part: Part = field(default_factory=Part)
    other: str | Part | None = None
    free: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def read(tmp_path):
    def read(text, *overrides):
        path = tmp_path / "whole.yaml"
        path.write_text(text)
        return read_settings(Whole, path, overrides)

    return read


def test_a_file_becomes_settings_of_their_types(read):
    found = read(
        "name: x\npart: {rate: 1e-3, rules: [['a', 1], ['b', .5]]}\nfree: {a: [1, null], b: {c: x}}"
    )
    rules = (("a", 1.0), ("b", 0.5))
    assert found == Whole("x", Part(0.001, rules=rules), free={"a": [1, None], "b": {"c": "x"}})


def test_words_of_the_command_line_change_single_keys(read):
    words = ("--part.rate=2", "--part.kind", "two", "--free.a-b", "[1, 2]", "--free.c", "-1e-2")
    found = read("name: x\npart: {steps: 3}", *words)
    assert found.part == Part(2.0, 3, "two")
    assert found.free == {"a_b": [1, 2], "c": -0.01}


def test_what_is_written_reads_back_the_same(read):
    settings = read("name: ünï\npart: {rate: 1e-7, rules: [['/(bias|scale)$', 0]]}\nother: {}")
    assert read(to_yaml(settings)) == settings


@pytest.mark.parametrize(
    ("text", "words", "reason"),
    [
        ("name: x\npart: {ratee: 1}", (), "part.ratee is not known; did you mean part.rate?"),
        ("name: x\nother: {stepz: 1}", (), "other.stepz is not known; did you mean other.steps?"),
        ("name: x", ("--nothing", "1"), "nothing is not known; known: name, part, other, free"),
        ("name: x\npart: {steps: 1.5}", (), "part.steps=1.5: input should be a valid integer"),
        ("name: 3", (), "name=3: input should be a valid string"),
        ("name: x\npart: {kind: three}", (), "part.kind='three': input should be 'one' or 'two'"),
        ("name: x\npart: {rate: -1}", (), "part: rate must not be negative."),
        ("name: x\npart: {rate: .inf}", (), "part.rate=inf is not a finite number"),
        ("part: {}", (), "name is missing"),
        ("name: [x", (), "is no YAML on line 1"),
        ("- x", (), "holds no keys"),
        ("name: 2020-01-01", (), "holds more than text, numbers, lists and keys"),
        ("name: x", ("part",), "'part' has no key before it"),
        ("name: x", ("--part.rate",), "--part.rate has no value"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_file_and_the_key(read, text, words, reason):
    with pytest.raises(ConfigError) as error:
        read(text, *words)
    assert reason in str(error.value)
    assert words[:1] in (("part",), ("--part.rate",)) or "whole.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read, No such file"):
        read_settings(Whole, tmp_path / "none.yaml")
