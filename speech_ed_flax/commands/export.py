"""The command ``export``: a model as a program that runs where nothing but JAX is installed."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from speech_ed_flax.commands.outcome import Outcome, UsageError, refuse_overwriting
from speech_ed_flax.commands.progress import reporter
from speech_ed_flax.commands.recognition import Count, embedded
from speech_ed_flax.data.extras import require


def export(
    destination: Path,
    /,
    *,
    model: Annotated[str | None, Parameter(alias="-m")] = None,
    format: Annotated[Literal["stablehlo"], Parameter(alias="-f")] = "stablehlo",
    platforms: str = "cpu,cuda,tpu",
    beam_size: Count | None = None,
    max_new_tokens: Count | None = None,
    language: str | None = None,
    task: Literal["transcribe", "translate"] | None = None,
    target_language: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    batch_size: Count | None = None,
    seconds: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    force: bool = False,
    local_files_only: bool = False,
) -> int:
    """Write a model as one program, features in and tokens out, and an example that runs it.

    The program hears batches of any size and length, encodes them, and searches in one loop.
    The folder holds it, its weights, what is to be known of both, the tokenizer, and run.py,
    which needs jax and flatbuffers alone. It appears only when it is complete.
    Needs pip install 'speech_ed_flax[export]'. Ends with 4 if the model is unusable.

    Args:
        destination: Folder to write.
        model: Folder of a checkpoint, or its name on the Hub; if omitted, the small model that
            comes with the package.
        format: Of the program.
        platforms: That the program runs on, none of which need be here.
        beam_size: Beams of the search; what the model says if omitted.
        max_new_tokens: Most tokens of one clip.
        language: Of the speech, for multilingual Whisper; detected by the program if omitted.
        task: For multilingual Whisper.
        target_language: Of the text, for mBART: de, de_DE, or the id of its token.
        dtype: Of the weights and of the computation.
        batch_size: Clips of every batch, instead of any number.
        seconds: That every clip is padded to, instead of any length.
        force: Write into a folder that is not empty, in place of its weights and configs.
        local_files_only: Stay off the network.
    """
    wanted = _platforms(platforms)
    require("flatbuffers", "export")  # what jax.export writes programs with
    destination = destination.expanduser().resolve()
    if model is not None and Path(model).expanduser().resolve() == destination:
        raise UsageError(f"{destination}: it is the model too; name another folder.")
    refuse_overwriting(destination, force)
    settings = {
        "num_beams": beam_size,
        "max_new_tokens": max_new_tokens,
        "language": language,
        "task": task,
        "target_language": target_language,
    }
    chosen = {name: value for name, value in settings.items() if value is not None}
    from speech_ed_flax.exporting.folder import PROGRAM, export_folder
    from speech_ed_flax.staging import staging

    with staging(destination) as folder:
        loaded = _load(model, dtype, local_files_only)
        exported = export_folder(loaded, folder, wanted, batch_size, seconds, **chosen)
        size = (folder / PROGRAM).stat().st_size
    shape = ", ".join(map(str, exported.in_avals[-2].shape))
    print(f"{destination}: {', '.join(wanted)}; features [{shape}]; {PROGRAM} {size:,} bytes")
    return Outcome.DONE


def _platforms(given: str) -> tuple[str, ...]:
    from speech_ed_flax.exporting import PLATFORMS

    wanted = tuple(given.split(","))
    if unknown := [name for name in wanted if name not in PLATFORMS]:
        raise UsageError(f"--platforms {unknown[0]!r} is not known: use {','.join(PLATFORMS)}.")
    return wanted


def _load(name: str | None, dtype: str, local_files_only: bool) -> Any:
    from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

    return FlaxSpeechEncoderDecoderModel.from_pretrained(
        name or embedded(reporter(quiet=False)), dtype=dtype, local_files_only=local_files_only
    )
