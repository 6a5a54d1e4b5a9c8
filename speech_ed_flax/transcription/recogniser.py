"""A model's generation as a recogniser of batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speech_ed_flax.transcription.judgement import Hypothesis
from speech_ed_flax.transcription.transcript import Alternative, Word

FindWords = Callable[[Any, np.ndarray, float], Sequence[tuple[Word, ...]]]
"""From a ``GenerationOutput``, the mask of its clips and the seconds that they last, padding
included, to the words of each row."""


@dataclass(frozen=True)
class Recogniser:
    """From a batch of features to texts.

    Attributes:
        generate: from values and mask, and what should be returned, to a ``GenerationOutput``.
        compile: of the same arguments: compiles it, and returns the program.
        text: from tokens ``[rows, length]`` to their text.
        alternatives: further texts of each clip.
        find_words: the words of each row, and their times; None if nobody wants them.
    """

    generate: Callable[..., Any]
    compile: Callable[..., Any]
    text: Callable[[np.ndarray], list[str]]
    alternatives: int = 0
    find_words: FindWords | None = None

    def __call__(self, values: np.ndarray, mask: np.ndarray, seconds: float) -> list[Hypothesis]:
        """Returns one hypothesis a row; ``seconds`` are what a row lasts, padding included."""
        found = self.generate(values, mask, **self._wanted)
        texts = [written.strip() for written in self.text(found.sequences)]
        likely = np.log(np.maximum(found.confidence, 1e-30)).tolist()
        words: Sequence[tuple[Word, ...]] = [()] * len(texts)
        if self.find_words is not None:
            words = self.find_words(found, mask, seconds)
        others, rows = list(map(Alternative, texts, likely)), 1 + self.alternatives
        return [
            Hypothesis(texts[i], likely[i], tuple(others[i + 1 : i + rows]), tuple(words[i]))
            for i in range(0, len(texts), rows)
        ]

    def needed(self, values: np.ndarray, mask: np.ndarray) -> int:
        """Compiles for batches of one shape; returns the bytes that one takes, without weights."""
        memory = self.compile(values, mask, **self._wanted).memory_analysis()
        # Some backends do not say.
        return 0 if memory is None else memory.temp_size_in_bytes + memory.output_size_in_bytes

    @property
    def _wanted(self) -> dict[str, Any]:
        wanted = {"num_return_sequences": 1 + self.alternatives, "output_log_probs": True}
        return wanted if self.find_words is None else wanted | {"output_attentions": True}
