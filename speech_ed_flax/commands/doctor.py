"""The command ``doctor``: whether this installation works; and the versions it is made of."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module

from speech_ed_flax.commands.outcome import Outcome

_LIBRARIES = (
    "jax", "jaxlib", "flax", "transformers", "safetensors", "soundfile", "soxr"
)  # fmt: skip


def versions() -> str:
    """Returns a line for this package, Python and each library, without importing any."""
    from importlib.metadata import PackageNotFoundError, version

    lines = [f"speech_ed_flax {version('speech_ed_flax')}", f"python {platform.python_version()}"]
    for library in _LIBRARIES:
        try:
            lines.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            lines.append(f"{library} is not installed")
    return "\n".join(lines)


def doctor() -> int:
    """Check this installation: libraries, devices, and a model that generates.

    Prints a line for each check, ok or fail. Ends with 1 if one failed.
    """
    failed = False
    for name, check in _checks():
        try:
            print(f"ok    {name}: {check()}", flush=True)
        except Exception as error:  # a broken installation can raise anything
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            print(f"fail  {name}: {type(error).__name__}: {reason}", flush=True)
            failed = True
    return Outcome.INTERNAL_ERROR if failed else Outcome.DONE


def _checks() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "speech_ed_flax", partial(_import, "speech_ed_flax")
    yield "python", platform.python_version
    for library in _LIBRARIES:
        yield library, partial(_import, library)
    yield "devices", _devices
    yield "compile cache", _compile_cache
    yield "free memory", _free_memory
    yield "smoke test", _smoke_test


def _import(library: str) -> str:
    from importlib.metadata import version

    import_module(library)
    return version(library)


def _devices() -> str:
    import jax

    return ", ".join(f"{device.device_kind} ({device})" for device in jax.devices())


def _compile_cache() -> str:
    import jax

    # jax defines its options when it runs, where no checker of types sees them.
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    return folder or "off (JAX_COMPILATION_CACHE_DIR names a folder)"


def _free_memory() -> str:
    """Returns the memory that is free on the host, and on the devices that tell."""
    import jax

    free = {}
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        free["host"] = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for device in jax.local_devices():
        memory = device.memory_stats() or {}
        if "bytes_limit" in memory:
            free[str(device)] = memory["bytes_limit"] - memory.get("bytes_in_use", 0)
    return ", ".join(f"{place} {size / 1e9:.1f} GB" for place, size in free.items()) or "unknown"


def _smoke_test() -> str:
    """Generates four tokens with a tiny random model."""
    import numpy as np
    from transformers import BartConfig, Wav2Vec2Config

    from speech_ed_flax.conversion.config import join
    from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

    started = time.perf_counter()
    encoder = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    decoder = BartConfig(
        vocab_size=16, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
        max_position_embeddings=16,
    )  # fmt: skip
    model = FlaxSpeechEncoderDecoderModel(join(encoder, decoder))
    found = model.generate(np.zeros((1, 800), np.float32), min_new_tokens=4, max_new_tokens=4)
    tokens = found.sequences.shape[1] - 1
    if tokens != 4:
        raise RuntimeError(f"{tokens} tokens were generated, not 4")
    return f"4 tokens generated in {time.perf_counter() - started:.1f} s, compilation included"
