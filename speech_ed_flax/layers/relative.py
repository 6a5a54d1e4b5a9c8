"""Relative positions as dense arithmetic: no gather of one number a pair of positions.

A gather of ``[frames, frames]`` numbers is slow on accelerators, and its gradient is a scatter that
XLA:CPU does one number at a time. What depends on the distance alone is computed for each distance,
and what is left is to shift rows, which is a reshape.
"""

from speech_ed_flax.types import Array, Float


def by_key(x: Float[Array, "*batch frames distances"]) -> Float[Array, "*batch frames frames"]:
    """Shifts what is known by distance so that it stands at its key.

    Each row begins one column further left than the one above (Dai et al., 2019, appendix B)::

        . . 0 1 2 .        0 1 2
        . 0 1 2 . .   ->   0 1 2
        0 1 2 . . .        0 1 2

    Args:
        x: column ``frames - 1 + distance`` of row ``query`` is about the key at ``query +
            distance``. There are twice as many columns as frames; the last one is not read.
    """
    *batch, frames, columns = x.shape
    read = frames * (columns - 1)
    flat = x.reshape(*batch, frames * columns)[..., frames - 1 : frames - 1 + read]
    return flat.reshape(*batch, frames, columns - 1)[..., :frames]
