"""What can be wrong with a set of recordings and texts."""

from speech_ed_flax.errors import SpeechError


class DataError(SpeechError):
    """A manifest, a source or a prepared folder that cannot be used as it is."""
