"""Errors that a user can act on: one sentence that names the file, the field or the tensor."""


class SpeechError(ValueError):
    """Base of every error this package raises on bad input."""


class ConfigError(SpeechError):
    """A configuration that lacks a value, contradicts itself or asks for what is not supported."""


class CheckpointError(SpeechError):
    """A checkpoint file that cannot be read, or whose tensors do not fit the model."""


class AudioError(SpeechError):
    """An audio input that cannot be decoded or is not sound."""
