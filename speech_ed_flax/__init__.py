"""Speech encoder-decoders in JAX: any speech encoder joined to any text decoder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import SpeechEncoderDecoderConfig as SpeechEncoderDecoderConfig

    from speech_ed_flax.errors import AudioError as AudioError
    from speech_ed_flax.errors import CheckpointError as CheckpointError
    from speech_ed_flax.errors import ConfigError as ConfigError
    from speech_ed_flax.errors import SpeechError as SpeechError
    from speech_ed_flax.pretrained import (
        FlaxSpeechEncoderDecoderModel as FlaxSpeechEncoderDecoderModel,
    )
    from speech_ed_flax.transcription import Transcript as Transcript

    __version__: str

_WHERE = {
    "AudioError": "speech_ed_flax.errors",
    "CheckpointError": "speech_ed_flax.errors",
    "ConfigError": "speech_ed_flax.errors",
    "FlaxSpeechEncoderDecoderModel": "speech_ed_flax.pretrained",
    "SpeechEncoderDecoderConfig": "transformers",
    "SpeechError": "speech_ed_flax.errors",
    "Transcript": "speech_ed_flax.transcription",
}

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "FlaxSpeechEncoderDecoderModel",
    "SpeechEncoderDecoderConfig",
    "SpeechError",
    "Transcript",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: the command line must start at once."""
    if name == "__version__":
        return import_module("importlib.metadata").version("speech_ed_flax")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
