"""A model's generation as a recogniser of batches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from speech_ed_flax.transcription.judgement import Hypothesis
from speech_ed_flax.transcription.transcriber import Recognise
from speech_ed_flax.transcription.transcript import Alternative, Word

FindWords = Callable[[Any, np.ndarray, float], Sequence[tuple[Word, ...]]]
"""From a ``GenerationOutput``, the mask of its clips and the seconds that they last, padding
included, to the words of each row."""


def recogniser(
    generate: Callable[..., Any],
    text: Callable[[np.ndarray], list[str]],
    alternatives: int = 0,
    find_words: FindWords | None = None,
) -> Recognise:
    """Returns a recogniser.

    Args:
        generate: from values and mask, and what should be returned, to a ``GenerationOutput``.
        text: from tokens ``[rows, length]`` to their text.
        alternatives: further texts of each clip.
        find_words: the words of each row, and their times; None if nobody wants them.
    """
    rows = 1 + alternatives
    wanted = {"num_return_sequences": rows, "output_log_probs": True}
    if find_words is not None:
        wanted["output_attentions"] = True

    def recognise(values: np.ndarray, mask: np.ndarray, seconds: float) -> list[Hypothesis]:
        found = generate(values, mask, **wanted)
        texts = [written.strip() for written in text(found.sequences)]
        likely = np.log(np.maximum(found.confidence, 1e-30)).tolist()
        words = [()] * len(texts) if find_words is None else find_words(found, mask, seconds)
        others = list(map(Alternative, texts, likely))
        return [
            Hypothesis(texts[i], likely[i], tuple(others[i + 1 : i + rows]), tuple(words[i]))
            for i in range(0, len(texts), rows)
        ]

    return recognise
