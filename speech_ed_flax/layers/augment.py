"""SpecAugment (Park et al., 2019) that is on exactly when the caller gives an ``"augment"`` key.

Behaviour matched: ``_compute_mask_indices`` of transformers 5.23, drawn on the device in static
shapes.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.types import Array, Bool, Float, Int, PRNGKeyArray


@dataclass(frozen=True)
class Spans:
    """How many spans of an axis are masked.

    Attributes:
        share: of the axis that would be masked if no spans overlapped.
        size: positions of each span.
        fewest: spans, however short the axis.
    """

    share: float
    size: int
    fewest: int


@dataclass(frozen=True)
class SpecAugment:
    """What is masked while training; None for an axis that is left alone.

    Attributes:
        time: spans of frames.
        features: spans of channels, the same ones in every frame of an utterance.
    """

    time: Spans | None
    features: Spans | None

    @classmethod
    def from_hf(cls, hf: Any) -> "SpecAugment":
        """Reads the ``mask_*`` fields and ``apply_spec_augment`` of a transformers config.

        data2vec's has no switch and is always on; WavLM's does not say how many spans of channels
        there are at least.
        """

        def spans(axis: str) -> Spans | None:
            share, size = (getattr(hf, f"mask_{axis}_{field}") for field in ("prob", "length"))
            fewest = getattr(hf, f"mask_{axis}_min_masks", 0)
            on = share > 0 and getattr(hf, "apply_spec_augment", True)
            return Spans(share, size, fewest) if on else None

        return cls(spans("time"), spans("feature"))


def augment(
    module: nn.Module,
    x: Float[Array, "batch frames width"],
    lengths: Int[Array, " batch"] | None,
    masked: SpecAugment,
    filling: Float[Array, " width"] | float = 0.0,
) -> Float[Array, "batch frames width"]:
    """Returns ``x`` with spans masked if ``module`` was given an ``"augment"`` key.

    Args:
        module: that is called; it draws the key.
        x: the sequence.
        lengths: how many frames of each row are real; all if None.
        masked: what to mask.
        filling: of masked frames; masked channels become 0.
    """
    if not module.has_rng("augment"):
        return x
    batch, frames, width = x.shape
    if masked.time is not None:
        real = jnp.full(batch, frames) if lengths is None else lengths
        hidden = draw_spans(module.make_rng("augment"), real, frames, masked.time)
        x = jnp.where(hidden[:, :, None], jnp.asarray(filling, x.dtype), x)
    if masked.features is not None:
        whole = jnp.full(batch, width)
        hidden = draw_spans(module.make_rng("augment"), whole, width, masked.features)
        x = jnp.where(hidden[:, None, :], 0, x)
    return x


def draw_spans(
    key: PRNGKeyArray, lengths: Int[Array, " batch"], axis: int, spans: Spans
) -> Bool[Array, "batch axis"]:
    """Draws which positions are masked, for each row on its own.

    The number of spans is ``share * length / size``, rounded up or down at random so that it is
    right on average. They begin at different positions, may overlap, and end within the length.
    """
    rounding, ordering = jax.random.split(key)
    starts = jnp.maximum(lengths - spans.size + 1, 0)  # [batch] positions where a span can begin
    wanted = spans.share * lengths / spans.size + jax.random.uniform(rounding, lengths.shape)
    count = jnp.maximum(wanted.astype(jnp.int32), spans.fewest)
    count = jnp.minimum(jnp.minimum(count, axis // spans.size), starts)

    positions = jnp.arange(axis)
    lots = jax.random.uniform(ordering, (len(lengths), axis))
    lots = jnp.where(positions < starts[:, None], lots, 2.0)  # after every position that can begin
    rank = jnp.argsort(jnp.argsort(lots))
    begun = jnp.cumsum(rank < count[:, None], axis=1)  # [batch, axis] spans that began so far
    ended = jnp.pad(begun, ((0, 0), (spans.size, 0)))[:, :axis]
    return begun > ended
