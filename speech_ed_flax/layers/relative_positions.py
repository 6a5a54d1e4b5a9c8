"""Where frames stand to each other, in the attention of conformers: three ways to tell it."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.layers.linear import INITIALISE, Dense
from speech_ed_flax.layers.relative import by_key
from speech_ed_flax.layers.sizes import is_open
from speech_ed_flax.types import Array, Float, Int, Size

Bias = Float[Array, "batch heads frames frames"]


def sinusoids(frames: Size, width: int) -> Float[Array, "distances width"]:
    """Returns what ``RelativePositions`` projects: sines and cosines in turn, of every distance.

    Row ``d`` is of the frame that stands ``frames - 1 - d`` before the one that asks; there are
    ``2 * frames`` rows, of which the last one is read by nobody.
    """
    rates = (10_000.0 ** -(np.arange(0, width, 2) / width)).astype(np.float32)
    angles = (frames - 1.0 - jnp.arange(2 * frames, dtype=jnp.float32))[:, None] * rates
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(2 * frames, width)


class RelativePositions(nn.Module):
    """Projected sinusoids of distances, and what is asked of any query (Dai et al., 2019)."""

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "batch heads frames head_dim"],
        key: Float[Array, "batch heads frames head_dim"],
        table: Float[Array, "distances width"],
    ) -> Bias:
        """Returns what is added to the scores of queries that are scaled already."""
        _, heads, _, head_dim = query.shape
        spread = nn.initializers.xavier_uniform()
        content = self.param("content_bias", spread, (heads, head_dim)) * head_dim**-0.5
        position = self.param("position_bias", spread, (heads, head_dim)) * head_dim**-0.5
        projected = Dense(heads * head_dim, use_bias=False, name="projection")(table)
        projected = projected.reshape(-1, heads, head_dim).astype(query.dtype)
        scores = jnp.einsum(
            "bhqd,phd->bhqp",
            query + position[:, None],
            projected,
            preferred_element_type=jnp.float32,
        )
        asked = jnp.einsum("hd,bhkd->bhk", content, key, preferred_element_type=jnp.float32)
        return by_key(scores) + asked[:, :, None]


class ClippedDistances(nn.Module):
    """A learned vector for each distance, the same one for all that are larger (Shaw et al., 2018).

    Attributes:
        left: the largest distance to a frame before.
        right: the largest distance to a frame behind.
    """

    left: int
    right: int

    @nn.compact
    def __call__(self, query: Float[Array, "batch heads frames head_dim"]) -> Bias:
        """Returns what is added to the scores of queries that are scaled already."""
        frames, head_dim = query.shape[2:]
        shape = (self.left + 1 + self.right, head_dim)
        table = self.param("embedding", INITIALISE, shape)
        scores = jnp.einsum("bhqd,pd->bhqp", query, table, preferred_element_type=jnp.float32)
        if is_open(frames):
            return by_key(scores[..., self._rows(frames)])
        left, right = frames - 1 - self.left, frames - self.right
        scores = scores[..., max(0, -left) : shape[0] - max(0, -right)]
        beyond = ((0, 0), (0, 0), (0, 0), (max(0, left), max(0, right)))
        return by_key(jnp.pad(scores, beyond, mode="edge"))

    def _rows(self, frames: Size) -> Int[Array, " distances"]:
        """Returns the row of the table for each distance, where padding would be of open size."""
        distances = jnp.arange(2 * frames) - (frames - 1)
        return jnp.clip(distances, -self.left, self.right) + self.left


def rotary_rates(head_dim: int, base: int) -> Float[np.ndarray, " half"]:
    """Returns the radians a frame by which ``rotate`` turns each pair of channels."""
    return (1.0 / base ** (np.arange(0, head_dim, 2) / head_dim)).astype(np.float32)


def rotations(
    frames: Size, rates: Float[Array, " half"] | Float[np.ndarray, " half"]
) -> tuple[Float[Array, "frames half"], Float[Array, "frames half"]]:
    """Returns the cosines and sines of each frame's angles."""
    angles = jnp.arange(frames, dtype=jnp.float32)[:, None] * jnp.asarray(rates, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "batch frames width"],
    rotations: tuple[Float[Array, "frames half"], Float[Array, "frames half"]],
) -> Float[Array, "batch frames width"]:
    """Turns pairs of channels, half a head apart, by the angles of their frame (Su et al., 2021).

    wav2vec 2.0's conformers turn the frames, before they are projected to queries and keys.
    """
    cosine, sine = (part.astype(x.dtype)[:, None] for part in rotations)
    batch, frames, width = x.shape
    first, second = jnp.moveaxis(x.reshape(batch, frames, -1, 2, sine.shape[-1]), 3, 0)
    turned = first * cosine - second * sine, second * cosine + first * sine
    return jnp.stack(turned, 3).reshape(batch, frames, width)
