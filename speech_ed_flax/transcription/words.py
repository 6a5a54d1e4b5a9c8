"""When words were said, from what the decoder listened to while it wrote them.

The method is that of Whisper (Radford et al., 2022; ``timing.py`` of its own code): attention of
chosen heads, normalised over the tokens and smoothed, is a map of tokens and time, through which
dynamic time warping finds the likeliest path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speech_ed_flax.transcription.transcript import Word

_SMOOTH = 3  # states on each side that the median is taken of


@dataclass(frozen=True)
class WordFinder:
    """Finds the words of generated rows, and their times.

    Attributes:
        tokenizer: of the decoder.
        heads: layer and head of those that follow the speech; all of the upper half of the layers
            if the checkpoint does not say.
    """

    tokenizer: Any
    heads: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, generation: Any, processor: Any) -> "WordFinder":
        """Returns the finder for a checkpoint, of which Whisper's name the heads to listen to.

        Args:
            generation: transformers' generation config.
            processor: of the checkpoint.

        Raises:
            ConfigError: it has no tokenizer.
        """
        heads = getattr(generation, "alignment_heads", None) or ()
        return cls(processor.writer, tuple((layer, head) for layer, head in heads))

    def __call__(self, found: Any, mask: np.ndarray, seconds: float) -> list[tuple[Word, ...]]:
        """Returns the words of each row.

        Args:
            found: a ``GenerationOutput`` with cross-attention.
            mask: which part of each clip is real ``[clips, any]``.
            seconds: that clips last, padding included.
        """
        rows, clips = len(found.sequences), len(mask)
        real = np.repeat(mask.mean(axis=1), rows // clips)
        chosen = self._chosen(found.cross_attentions)
        return [
            self._words(found.sequences[row], chosen[row], float(real[row]), seconds)
            for row in range(rows)
        ]

    def _chosen(self, layers: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the attention of the chosen heads ``[rows, heads, tokens, states]``."""
        if self.heads:
            return np.stack([layers[layer][:, head] for layer, head in self.heads], axis=1)
        return np.concatenate(layers[len(layers) // 2 :], axis=1)

    def _words(
        self, tokens: np.ndarray, attention: np.ndarray, real: float, seconds: float
    ) -> tuple[Word, ...]:
        """Returns the words of one row; ``attention`` at ``i`` chose token ``i + 1``."""
        special = set(self.tokenizer.all_special_ids)
        written = [i for i, token in enumerate(tokens.tolist()) if i and token not in special]
        if not written:
            return ()
        states = attention.shape[-1]
        heard = max(1, round(real * states))
        rows = slice(written[0] - 1, min(written[-1] + 1, attention.shape[1]))
        starts = warp(_map(attention[:, rows, :heard])) * (seconds / states)
        times = np.append(starts, heard * seconds / states)
        return tuple(
            Word(float(times[first]), float(times[last]), text)
            for first, last, text in self._spelled(tokens[written[0] : written[-1] + 1])
        )

    def _spelled(self, tokens: np.ndarray) -> list[tuple[int, int, str]]:
        """Returns the first token of each word, the one behind its last, and its text."""
        lengths = [
            len(self.tokenizer.decode(tokens[:end], skip_special_tokens=True).rstrip())
            for end in range(1, len(tokens) + 1)
        ]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        found, position = [], 0
        for word in text.split():
            begin = text.index(word, position)
            position = begin + len(word)
            first = int(np.searchsorted(lengths, begin, side="right"))
            last = int(np.searchsorted(lengths, position, side="left")) + 1
            found.append((first, min(last, len(tokens)), word))
        return found


def _map(attention: np.ndarray) -> np.ndarray:
    """Returns how much each token listened to each state ``[tokens, states]``, from all heads."""
    deviation = attention.std(axis=1, keepdims=True) + 1e-9
    normal = (attention - attention.mean(axis=1, keepdims=True)) / deviation
    around = np.pad(normal, ((0, 0), (0, 0), (_SMOOTH, _SMOOTH)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(around, 2 * _SMOOTH + 1, axis=-1)
    return np.median(windows, axis=-1).mean(axis=0)


def warp(gain: np.ndarray) -> np.ndarray:
    """Returns the state at which each token begins on the path of the highest gain ``[tokens]``.

    Tokens and states both go forward, one or none at a time (dynamic time warping; Sakoe & Chiba,
    1978), computed by diagonals.

    Args:
        gain: of each token and state ``[tokens, states]``.
    """
    tokens, states = gain.shape
    best = np.full((tokens + 1, states + 1), -np.inf)
    best[0, 0] = 0.0
    steps = np.zeros((tokens + 1, states + 1), np.int8)
    for diagonal in range(2, tokens + states + 1):
        i = np.arange(max(1, diagonal - states), min(tokens, diagonal - 1) + 1)
        j = diagonal - i
        options = np.stack([best[i - 1, j - 1], best[i - 1, j], best[i, j - 1]])
        steps[i, j] = options.argmax(axis=0)
        best[i, j] = gain[i - 1, j - 1] + options.max(axis=0)
    starts = np.zeros(tokens)
    i, j = tokens, states
    while i > 0 and j > 0:
        starts[i - 1] = j - 1
        step = steps[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return starts
