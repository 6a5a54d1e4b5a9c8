"""Settings: frozen dataclasses out of YAML, and back; strict about every key and every type."""

import dataclasses
import difflib
import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from speech_ed_flax.errors import ConfigError

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Returns the settings that a YAML file holds.

    Args:
        kind: a dataclass, of dataclasses.
        path: of the file.
        overrides: ``--a.b value`` or ``--a.b=value``, as words of a command line; values are YAML.

    Raises:
        ConfigError: naming the file and the key that is unknown, missing or of the wrong type.
    """
    values = _read_yaml(path)
    for key, value in parse_overrides(overrides):
        _assign(values, key, value)
    return make_settings(kind, values, str(path))


def make_settings(kind: type[Settings], values: Mapping[str, Any], source: str) -> Settings:
    """Returns the settings that nested mappings hold; ``source`` names them in errors.

    Raises:
        ConfigError: as ``read_settings``.
    """
    import pydantic

    _refuse_unknown(kind, values, source, "")
    try:
        # As JSON: there, and only there, being strict lets lists be tuples and strings be paths.
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{source}: {_sentence(error.errors()[0])}") from None


def _sentence(fault: Mapping[str, Any]) -> str:
    """Returns what one of pydantic's faults says; those of our own checks are sentences already."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}" if key else str(fault["ctx"]["error"])
    if fault["type"] == "missing":
        return f"{key} is missing."
    return f"{key}={fault['input']!r}: {fault['msg'].lower()}."


def to_yaml(settings: Any) -> str:
    """Returns settings, defaults included, as YAML that ``read_settings`` reads back the same."""
    import yaml

    plain = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Returns the dotted keys and values of ``--a.b value`` and ``--a.b=value``.

    Raises:
        ConfigError: naming a word that is neither a key nor its value.
    """
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{word!r} has no key before it: write --key value.")
        key, given, text = word[2:].partition("=")
        if not given:
            if not rest:
                raise ConfigError(f"--{key} has no value: write --{key} VALUE.")
            text = rest.pop(0)
        pairs.append((key.replace("-", "_"), _parse_yaml(text, f"--{key}")))
    return pairs


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read, {reason} (name a YAML file).") from None
    values = _parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no keys: write 'key: value' lines.")
    return values


def _parse_yaml(text: str, source: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's numbers: 1e-3 is one."""

    number = r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.inf"
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(rf"^(?:{number})$"), list("-+.0123456789")
    )
    try:
        values = yaml.load(text, Loader)
        json.dumps(values)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" on line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(f"{source}: is no YAML{line}: {problem}.") from None
    except (TypeError, RecursionError):
        raise ConfigError(f"{source}: holds more than text, numbers, lists and keys.") from None
    return values


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = values.get(parent)
        values[parent] = dict(below) if isinstance(below, dict) else {}
        values = values[parent]
    values[last] = value


def _refuse_unknown(kind: Any, values: Any, source: str, prefix: str) -> None:
    """Raises ConfigError naming the first key, here or below, that is no field."""
    if not (dataclasses.is_dataclass(kind) and isinstance(values, Mapping)):
        return
    types = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in types:
            close = difflib.get_close_matches(str(key), types, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(types)}."
            raise ConfigError(f"{source}: {prefix}{key} is not known; {hint}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{source}: {prefix}{key}={value} is not a finite number.")
        for option in (types[key], *typing.get_args(types[key])):
            _refuse_unknown(option, value, source, f"{prefix}{key}.")
