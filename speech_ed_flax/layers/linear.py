"""Dense layers and embeddings with the initialisation of the published models (normal, 0.02)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.layers.sizes import surely
from speech_ed_flax.types import Array, Float, Int

DEVIATION = 0.02
INITIALISE = nn.initializers.normal(DEVIATION)

Embed = partial(nn.Embed, embedding_init=INITIALISE)


def embed_tokens(
    embedding: nn.Embed, tokens: Int[Array, "rows target"], padding: int | None
) -> Float[Array, "rows target width"]:
    """Returns the embeddings of tokens; no gradient reaches that of ``padding`` by this way.

    That matters where the text starts with padding, as it does in several published models.
    """
    x = embedding(tokens)
    if padding is None:
        return x
    return jnp.where((tokens == padding)[..., None], lax.stop_gradient(x), x)


FEW = 32
"""Rows up to which XLA:CPU is faster with the weights on the left. It reads them once in either
order, but packs what stands on the right: ``benchmarks/kernels.py rows`` shows it."""

TILES = (4, 8, 16)
"""Rows that its inner loops take in one go: five take longer than eight."""


def project(
    x: Float[Array, "... inputs"], weight: Float[Array, "outputs inputs"]
) -> Float[Array, "... outputs"]:
    """Returns the product of each row of ``x`` with each row of ``weight``.

    Weights are ``[outputs, inputs]``, as PyTorch keeps them: a checkpoint is read as it is, a tied
    output layer is the embedding as it is, and a step of decoding, which is bound by reading them,
    is fastest so. The formulation is chosen here, for each backend, and nowhere else.
    """
    rows = x.size // x.shape[-1]
    if surely(lambda: 1 < rows <= FEW):
        return lax.platform_dependent(x, weight, cpu=_weights_first, default=_rows_first)
    return _rows_first(x, weight)


def _rows_first(x: Array, weight: Array) -> Array:
    return jnp.einsum("...i,oi->...o", x, weight, preferred_element_type=jnp.float32)


def _weights_first(x: Array, weight: Array) -> Array:
    rows = x.reshape(-1, x.shape[-1])
    tile = next((size for size in TILES if len(rows) <= size), len(rows))
    product = jnp.einsum(
        "oi,ri->or",
        weight,
        jnp.pad(rows, ((0, tile - len(rows)), (0, 0))),
        preferred_element_type=jnp.float32,
    )
    # The barrier keeps XLA from turning the product round again.
    product = lax.optimization_barrier(product)[:, : len(rows)]
    return product.T.reshape(*x.shape[:-1], len(weight))


class Dense(nn.Module):
    """Projects the last axis to ``width``, with a bias unless it is switched off."""

    width: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... width"]:
        """Projects ``x``."""
        weight = self.param("weight", INITIALISE, (self.width, x.shape[-1]))
        y = project(x, weight).astype(x.dtype)
        return y + self.param("bias", nn.initializers.zeros, (self.width,)) if self.use_bias else y


class Head(nn.Module):
    """Scores of every token of the vocabulary, always in float32.

    Attributes:
        vocab: size of the vocabulary.
        tied: whether the weight is the token embedding, given at the call, or a parameter.
        use_bias: whether each token has a bias.
    """

    vocab: int
    tied: bool
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows target width"], embedding: Float[Array, "vocab any"]
    ) -> Float[Array, "rows target vocab"]:
        """Projects ``x`` on the vocabulary; ``embedding`` is read only where the head is tied."""
        weight = embedding
        if not self.tied:
            weight = self.param("weight", INITIALISE, (self.vocab, x.shape[-1]))
        logits = project(x, weight)
        if self.use_bias:
            logits += self.param("bias", nn.initializers.zeros, (self.vocab,))
        return logits
