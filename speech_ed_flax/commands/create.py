"""The command ``create``: a new model of two halves, to be trained."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from speech_ed_flax.commands.outcome import Outcome, UsageError, refuse_overwriting

_CONFIGS = (".json", ".yaml", ".yml")

Fields = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]


def create(
    destination: Path,
    /,
    *,
    encoder: str,
    decoder: str,
    tokenizer: str | None = None,
    encoder_config: Fields = (),
    decoder_config: Fields = (),
    seed: int = 0,
    force: bool = False,
    local_files_only: bool = False,
) -> int:
    """Make a model of a speech encoder and a text decoder, to be trained.

    Each half is the folder or Hub name of a checkpoint, whose weights it takes,
    or a .json or .yaml file with a config of transformers, for random weights.
    With fewer layers or positions than its checkpoint a half gets the first of
    them: --encoder-config max_source_positions=400 makes a Whisper hear 8 s.
    The folder appears only when it is complete and reads back the same. Ends
    with 4 if a half is unusable.

    Args:
        destination: Folder to write.
        encoder: The half that hears.
        decoder: The half that writes.
        tokenizer: Folder or Hub name, if not that of the decoder; see train-tokenizer.
        encoder_config: Fields of the encoder's config to change, as name=value.
        decoder_config: Fields of the decoder's config to change, as name=value.
        seed: Of the weights that start at random.
        force: Write into a folder that is not empty, in place of its weights and configs.
        local_files_only: Stay off the network.
    """
    from speech_ed_flax.commands.verification import compare
    from speech_ed_flax.staging import staging

    halves = (
        _half(encoder) | _fields("--encoder-config", encoder_config),
        _half(decoder) | _fields("--decoder-config", decoder_config),
    )
    destination = destination.expanduser().resolve()
    refuse_overwriting(destination, force)
    with staging(destination) as folder:
        model = _create(halves, tokenizer, seed, local_files_only)
        model.save_pretrained(folder)
        compare(folder, model.params)
    print("\n".join(_summary(model, halves)))
    return Outcome.DONE


def _half(given: str) -> dict[str, Any]:
    """Returns the config in a file, or the checkpoint of that name."""
    path = Path(given).expanduser()
    if path.suffix not in _CONFIGS or path.is_dir():
        return {"from": given}
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name a config or a checkpoint.")
    fields = _read(path)
    if not isinstance(fields, dict):
        raise UsageError(f"{path}: it holds no fields; write one as name: value on a line.")
    return fields


def _read(path: Path) -> Any:
    import yaml

    from speech_ed_flax.conversion.json_object import read_json

    if path.suffix == ".json":
        return read_json(path)
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: it is no YAML ({reason[:200]}).") from None


def _fields(option: str, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields in ``name=value`` words; values are JSON, or else text."""
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (equals and name):
            raise UsageError(f"{option} {assignment!r}: write it as name=value.")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields


def _create(
    halves: tuple[dict[str, Any], dict[str, Any]],
    tokenizer: str | None,
    seed: int,
    local_files_only: bool,
) -> Any:
    from speech_ed_flax.creation import create

    return create(*halves, tokenizer, seed=seed, local_files_only=local_files_only)


def _summary(model: Any, halves: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[str]:
    """Yields what each part is made of, and what of it is new."""
    from flax.traverse_util import flatten_dict

    leaves: dict[str, Any] = flatten_dict(model.params, sep="/")
    sizes = {path: leaf.size for path, leaf in leaves.items()}
    for part, half in zip(("encoder", "decoder", "projection"), (*halves, {}), strict=True):
        inside = {path: size for path, size in sizes.items() if path.startswith(f"{part}/")}
        if not inside:
            continue
        fresh = {path: size for path, size in inside.items() if path in model.fresh}
        kind = getattr(getattr(model.config, part, None), "model_type", "dense")
        origin = f" from {half['from']}" if "from" in half else ""
        yield f"{part}: {kind}{origin}, {sum(inside.values()):,} parameters{_new(inside, fresh)}"
        yield from (f"  {note}" for note in _notes(model, part))
        if len(fresh) < len(inside):
            yield from (f"  at random: {name}" for name in _modules(fresh))
    yield f"in all: {sum(sizes.values()):,} parameters, {model.module.decoder.config.vocab} tokens"


def _new(inside: Mapping[str, int], fresh: Mapping[str, int]) -> str:
    if not fresh:
        return ""
    return ", all at random" if fresh == inside else f", {sum(fresh.values()):,} of them at random"


def _notes(model: Any, part: str) -> Iterator[str]:
    for note in model.shortened:
        if note.startswith(f"{part}: "):
            yield note.removeprefix(f"{part}: ")


def _modules(paths: Mapping[str, int]) -> list[str]:
    """Returns the modules that parameters belong to, layers of all numbers as one."""
    modules = (re.sub(r"_\d+(?=/)", "_*", path).rpartition("/")[0] for path in paths)
    return list(dict.fromkeys(modules))
