"""The command ``inspect``: what is in a checkpoint, or in one file of weights."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from speech_ed_flax.commands.outcome import Outcome
from speech_ed_flax.errors import SpeechError

_FILES = (".safetensors", ".bin", ".msgpack")


def inspect(
    path: str,
    /,
    *,
    tensors: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    local_files_only: bool = False,
) -> int:
    """Say what a checkpoint holds, and whether its tensors fit its config.

    The digest is of names and numbers, not of files: every layout has the same.
    Ends with 4 if a file cannot be read, or the tensors do not fit.

    Args:
        path: Folder of a checkpoint, its name on the Hub, or a .safetensors, .bin or .msgpack file.
        tensors: List every tensor with its shape and dtype.
        as_json: Print one JSON object.
        local_files_only: Stay off the network.
    """
    file = Path(path).expanduser()
    if file.is_file() or (file.suffix in _FILES and not file.exists()):
        report = _inspect_file(file, tensors)
    else:
        report = _inspect_checkpoint(path, tensors, local_files_only)
    print(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))
    return Outcome.ALL_FAILED if report.get("fits") is False else Outcome.DONE


def _inspect_file(path: Path, tensors: bool) -> dict[str, Any]:
    from speech_ed_flax.conversion.msgpack import read_msgpack
    from speech_ed_flax.conversion.pickle import read_pickle
    from speech_ed_flax.conversion.safetensors import read_safetensors
    from speech_ed_flax.errors import CheckpointError

    readers = dict(zip(_FILES, (read_safetensors, read_pickle, read_msgpack), strict=True))
    if path.suffix not in readers:
        raise CheckpointError(f"{path}: weights are in files that end in {', '.join(_FILES)}.")
    return {"weights": str(path)} | _describe_tensors(readers[path.suffix](path), tensors)


def _inspect_checkpoint(name: str, tensors: bool, local_files_only: bool) -> dict[str, Any]:
    from speech_ed_flax.conversion.config import read_config, resolve_generation
    from speech_ed_flax.conversion.hub import read_json, resolve
    from speech_ed_flax.conversion.weights import read_weights

    folder = resolve(name, local_files_only=local_files_only)
    config = read_config(folder)
    state, weights = read_weights(folder)
    parts = _describe_parts(config)
    report = {"model_type": config.model_type} | parts
    report |= {"weights": str(weights)} | _describe_tensors(state, tensors)
    report |= _describe_fit(folder, config.model_type, parts)
    generation = resolve_generation(folder, read_json(folder / "config.json")).to_diff_dict()
    generation.pop("transformers_version", None)
    return report | {"generation": generation}


def _describe_parts(config: Any) -> dict[str, Any]:
    """Returns type and sizes of encoder and decoder, or of the one half that there is."""
    from speech_ed_flax.decoders import DECODERS
    from speech_ed_flax.encoders import ENCODERS
    from speech_ed_flax.model import family_of

    families = {"encoder": ENCODERS, "decoder": DECODERS}
    if config.model_type == "speech-encoder-decoder":
        halves = {part: getattr(config, part) for part in families}
    else:
        halves = {part: config for part in families if config.model_type in families[part]}
    parts: dict[str, Any] = {}
    for part, hf in (halves or {"decoder": config}).items():
        parts[part] = {"model_type": hf.model_type}
        try:
            shape = family_of(part, hf).config.from_hf(hf)
        except SpeechError as error:
            parts[part]["problem"] = str(error)
            continue
        sizes = {name: getattr(shape, name, None) for name in ("layers", "vocab", "positions")}
        sizes |= {"width": shape.layer.width, "heads": shape.layer.heads}
        parts[part] |= {name: size for name, size in sizes.items() if isinstance(size, int)}
    return parts


def _describe_tensors(state: Any, listed: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from speech_ed_flax.commands.inventory import list_tensors, take_inventory

    return asdict(take_inventory(state)) | ({"listing": list_tensors(state)} if listed else {})


def _describe_fit(folder: Path, model_type: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Tells whether the checkpoint loads as a model, or can be one half of one."""
    from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

    if model_type not in ("speech-encoder-decoder", "whisper"):
        if all("problem" in part for part in parts.values()):
            return {}
        return {"note": "one half of a model: join it with from_encoder_decoder_pretrained"}
    try:
        FlaxSpeechEncoderDecoderModel.from_pretrained(folder, dtype=None)
    except SpeechError as error:
        return {"fits": False, "problem": str(error)}
    return {"fits": True}


def _lines(value: Any, indent: str = "") -> list[str]:
    """Returns a report as lines ``name: value``, indented where values have parts."""
    lines = []
    for name, item in value.items():
        if name == "listing":
            rows = [(e["name"], str(e["shape"]), e["dtype"]) for e in item]
            widest = max((len(row[0]) for row in rows), default=0)
            lines += [f"{path:{widest}}  {dtype}{shape}" for path, shape, dtype in rows]
        elif isinstance(item, dict):
            lines += [f"{indent}{name}:", *_lines(item, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {_value(name, item)}")
    return lines


def _value(name: str, item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, list) and len(item) > 8:
        return f"[{', '.join(map(str, item[:6]))}, ... {len(item)} in all]"
    return f"{item:,}" if name in ("parameters", "bytes") else str(item)
