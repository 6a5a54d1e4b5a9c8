"""What every decoder family is: tokens in, scores of the next token out."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.layers.cache import Cache
from speech_ed_flax.layers.transformer import Context, TransformerDecoder
from speech_ed_flax.types import Array, Bool, Float, Int


class Decoder(nn.Module):
    """A causal language model that reads an encoder by cross-attention.

    A family's ``setup`` creates ``self.transformer`` and what its ``embed`` and ``score`` need.

    Attributes:
        config: the family's frozen config; it has ``layer`` (LayerConfig), ``layers``,
            ``vocab`` and ``positions`` (the longest sequence).
    """

    config: Any

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target width"]:
        """Embeds tokens at their positions (counted from 0)."""
        raise TypeError(f"{type(self).__name__} must define embed.")

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token of the vocabulary."""
        raise TypeError(f"{type(self).__name__} must define score.")

    def shared(self, positions: Int[Array, "#rows target"]) -> tuple[Array, ...]:
        """Returns what every layer reads besides ``[#rows, target, any]``; nothing, usually."""
        del positions
        return ()

    def make_transformer(self) -> TransformerDecoder:
        """Returns the stack that ``config`` describes."""
        return TransformerDecoder(self.config.layer, self.config.layers)

    def context(
        self, states: Float[Array, "batch source other"], mask: Bool[Array, "batch source"] | None
    ) -> Context:
        """Projects encoder states to the keys and values of every layer, once per utterance."""
        return self.transformer.context(states, mask)

    def __call__(
        self,
        tokens: Int[Array, "rows target"],
        context: Context,
        cache: Cache | None = None,
        position: Int[Array, ""] | int = 0,
        mask: Bool[Array, "rows length"] | None = None,
        positions: Int[Array, "#rows target"] | None = None,
    ) -> tuple[Float[Array, "rows target vocab"], Cache | None]:
        """Scores the token after each of ``tokens``.

        Args:
            tokens: the sequence, or the part of it that begins at ``position``. There may be
                several rows (beams) for each utterance of ``context``, side by side.
            context: the encoder's keys and values.
            cache: keys and values of the tokens before ``position``; None to start from nothing
                and keep nothing.
            position: index of the first of ``tokens`` in the sequence.
            mask: which tokens of the sequence (of the cache, if there is one) are real.
            positions: of the tokens, where they are not consecutive from ``position``.

        Returns:
            Float32 scores, and the cache with the keys and values of ``tokens`` written.
        """
        if positions is None:
            positions = (position + jnp.arange(tokens.shape[1]))[None]
        x = self.embed(tokens, positions)
        x, cache = self.transformer(x, context, cache, position, mask, *self.shared(positions))
        return self.score(x), cache
