"""Dense layers and embeddings with the initialisation of the published models (normal, 0.02)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.types import Array, Float

INITIALISE = nn.initializers.normal(0.02)

Dense = partial(nn.Dense, kernel_init=INITIALISE)
Embed = partial(nn.Embed, embedding_init=INITIALISE)


class Head(nn.Module):
    """Scores of every token of the vocabulary, always in float32.

    Attributes:
        vocab: size of the vocabulary.
        tied: whether the kernel is the token embedding, given at the call, or a parameter.
        use_bias: whether each token has a bias.
    """

    vocab: int
    tied: bool
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows target width"], embedding: Float[Array, "vocab width"]
    ) -> Float[Array, "rows target vocab"]:
        """Projects ``x`` on the vocabulary; ``embedding`` is read only where the head is tied."""
        kernel = embedding.T
        if not self.tied:
            kernel = self.param("kernel", INITIALISE, (x.shape[-1], self.vocab))
        logits = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
        if self.use_bias:
            logits += self.param("bias", nn.initializers.zeros, (self.vocab,))
        return logits
