"""The command ``convert``: a checkpoint into another layout, or another dtype."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from speech_ed_flax.commands.outcome import Outcome, UsageError, refuse_overwriting

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def convert(
    source: str,
    destination: Path,
    /,
    *,
    to: Literal["flax", "pytorch"],
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
    verify: Annotated[bool, Parameter(negative="--no-verify")] = True,
    max_shard_size: str = "5GB",
    force: bool = False,
    local_files_only: bool = False,
) -> int:
    """Convert a checkpoint between the layouts of PyTorch and Flax.

    Reads safetensors, PyTorch's .bin and Flax's .msgpack.
    The folder appears only when it is complete and verified. Ends with 4 if the
    source is unusable, with 5 if what was written does not read back the same.

    Args:
        source: Folder of a speech encoder-decoder or a Whisper, or its name on the Hub.
        destination: Folder to write.
        to: pytorch writes safetensors, flax the flax_model.msgpack of transformers 4.x.
        dtype: Of the weights; auto keeps what is stored.
        verify: Load what was written, and compare every parameter bit for bit.
        max_shard_size: Most bytes of one file of safetensors, such as 5GB or 200MB.
        force: Write into a folder that is not empty, in place of its weights and configs.
        local_files_only: Stay off the network.
    """
    from speech_ed_flax.staging import staging

    shard_size = _bytes(max_shard_size)
    destination = destination.expanduser().resolve()
    if Path(source).expanduser().resolve() == destination:
        raise UsageError(f"{destination}: it is the source too; name another folder.")
    refuse_overwriting(destination, force)
    with staging(destination) as folder:
        model = _load(source, dtype, local_files_only)
        _write(model, folder, to, shard_size)
        verified = _verify(folder, model.params) if verify else "not verified"
    print(f"{source} -> {destination}: {to}, {verified}")
    return Outcome.DONE


def _bytes(size: str) -> int:
    """Returns the number of bytes in ``5GB``, ``200 MB`` or ``1000``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", size.strip(), re.IGNORECASE)
    if match is None or not (count := int(float(match[1]) * _UNITS[match[2].upper()])):
        raise UsageError(f"--max-shard-size {size!r} is no size: give one such as 5GB or 200MB.")
    return count


def _load(source: str, dtype: str, local_files_only: bool) -> Any:
    from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

    return FlaxSpeechEncoderDecoderModel.from_pretrained(
        source, dtype=None if dtype == "auto" else dtype, local_files_only=local_files_only
    )


def _write(model: Any, folder: Path, layout: str, shard_size: int) -> None:
    from speech_ed_flax.conversion import save

    save.save_weights(folder, model.module, model.params, model.config, layout, shard_size)
    model.save_companions(folder)


def _verify(folder: Path, params: Any) -> str:
    from speech_ed_flax.commands.verification import compare

    tensors, size = compare(folder, params)
    return f"{tensors} tensors, {size:,} bytes, read back bit for bit the same"
