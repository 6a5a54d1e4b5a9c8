"""A folder with all that an exported program needs, and an example that runs it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from speech_ed_flax.audio.features import Features
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.conversion.save import write_json
from speech_ed_flax.embedded import FOLDER
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.exporting import PLATFORMS
from speech_ed_flax.exporting.lengths import Lengths, lengths_of
from speech_ed_flax.exporting.program import export_program
from speech_ed_flax.exporting.vocabulary import spelling
from speech_ed_flax.precision import computed_dtype
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

PROGRAM, WEIGHTS, SAMPLE = "transcribe.stablehlo", "weights.npz", "sample.npz"
MANIFEST, VOCABULARY, EXAMPLE = "manifest.json", "vocabulary.json", "run.py"


def export_folder(
    model: FlaxSpeechEncoderDecoderModel,
    folder: Path,
    platforms: Sequence[str] = PLATFORMS,
    batch_size: int | None = None,
    seconds: float | int | None = None,
    **settings: Any,
) -> jax.export.Exported:
    """Writes the program of a model, its weights, and what is to be known of both.

    Args:
        model: whose features must be known.
        folder: that exists.
        platforms: that the program runs on.
        batch_size: of every batch; any if None.
        seconds: that every clip is padded to; any if None.
        **settings: of ``export_program``.

    Returns:
        The program.

    Raises:
        ConfigError: if the model or a setting cannot be exported.
    """
    features, encoder = model.processor.hearer, model.module.encoder.config
    length = None if seconds is None else _length(features, encoder, seconds)
    lengths = lengths_of(encoder) if length is None else Lengths(length, 0)
    exported = export_program(model, platforms, batch_size, length, **settings)
    (folder / PROGRAM).write_bytes(exported.serialize())
    weights = {path: np.asarray(leaf) for path, leaf in flatten_dict(model.params, sep="/").items()}
    np.savez(folder / WEIGHTS, **weights)  # pyright: ignore[reportArgumentType]
    sample = _sample(features, lengths, batch_size or 1)
    np.savez(folder / SAMPLE, **sample)  # pyright: ignore[reportArgumentType]
    spelled = spelling(model.processor.tokenizer, model.module.decoder.config.vocab)
    numbers = [f" {token}" for token in range(model.module.decoder.config.vocab)]
    write_json(folder / VOCABULARY, {"texts": numbers if spelled is None else spelled})
    model.processor.save(folder)
    facts = _describe(exported, features, model, lengths, batch_size)
    facts["texts"] = "tokens" if spelled is None else "utf-8"
    write_json(folder / MANIFEST, facts)
    shutil.copyfile(Path(__file__).with_name("example.py"), folder / EXAMPLE)
    return exported


def _length(features: Features, encoder: Any, seconds: float | int) -> int:
    """Returns the samples or frames that clips of so many seconds become.

    Raises:
        ConfigError: if the encoder has one length only.
    """
    if features.fixed_samples is not None:
        always = features.fixed_samples / features.sampling_rate
        raise ConfigError(f"this encoder always hears {always:g} s: leave --seconds out.")
    _, mask = features.features([np.zeros(round(seconds * features.sampling_rate), np.float32)])
    return max(mask.shape[1], encoder.input_shape[0])


def _sample(features: Features, lengths: Lengths, rows: int) -> dict[str, np.ndarray]:
    """Returns features and mask of the recording that comes with the package, in every row."""
    samples = read_audio(FOLDER / "sample.flac", features.sampling_rate)
    values, mask = features.features([samples])
    if lengths.step == 0:
        values, mask = (part[:, : lengths.shortest] for part in (values, mask))
    if features.fixed_samples is None:
        missing = lengths.fit(mask.shape[1]) - mask.shape[1]
        beside = ((0, 0),) * (values.ndim - 2)
        values = np.pad(values, ((0, 0), (0, missing), *beside))
        mask = np.pad(mask, ((0, 0), (0, missing)))
    return {"features": np.repeat(values, rows, 0), "mask": np.repeat(mask, rows, 0)}


def _describe(
    exported: jax.export.Exported,
    features: Features,
    model: FlaxSpeechEncoderDecoderModel,
    lengths: Lengths,
    batch_size: int | None,
) -> dict[str, Any]:
    """Returns what whoever runs the program must know of it."""
    generation = model.generation_config
    inputs = exported.in_avals[-2:]
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    tokens = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    return {
        "format": "stablehlo",
        "program": PROGRAM,
        "weights": WEIGHTS,
        "sample": SAMPLE,
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "jax": jax.__version__,
        "dtype": str(computed_dtype(model.params)),
        "inputs": dict(zip(("features", "mask"), map(_shape, inputs), strict=True)),
        "outputs": {name: _shape(output) for name, output in outputs.items()},
        "batch": batch_size,
        "shortest": lengths.shortest,
        "step": lengths.step or lengths.shortest,
        "sampling_rate": features.sampling_rate,
        "features": features.to_hf(),
        "tokens": {name: getattr(generation, name) for name in tokens},
    }


def _shape(value: Any) -> dict[str, Any]:
    """Returns shape and dtype; symbolic dimensions in words."""
    sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"shape": sizes, "dtype": str(value.dtype)}
