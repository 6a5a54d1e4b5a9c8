"""What can be wrong with sound; every message names the input and what to do."""

from speech_ed_flax.errors import AudioError


class AudioFormatError(AudioError):
    """An input that is not sound, or is sound in a form that is not read."""


class AudioTruncatedError(AudioError):
    """A file that ends before the sound its header announces."""


class AudioCorruptError(AudioError):
    """A file of a known format that the decoder cannot follow."""


class AudioLimitError(AudioError):
    """Sound whose rate, channels or duration is outside what is accepted."""


class NonFiniteAudioError(AudioError):
    """Samples that are NaN, infinite, or so large that arithmetic on them overflows."""
