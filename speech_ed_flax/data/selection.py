"""Which rows a training hears, at which speeds; what is left out is counted by its reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.settings import DataSettings
from speech_ed_flax.data.speed import stretched
from speech_ed_flax.errors import ConfigError

FrameCount = Callable[[np.ndarray], np.ndarray]
"""Frames that an encoder makes of clips of so many samples, int64 ``[...]`` to int64 ``[...]``."""


@dataclass(frozen=True)
class Selection:
    """Rows and the speeds at which they can be heard.

    Attributes:
        speeds: factors; the first column of the arrays is always speed 1.
        samples: int64 ``[rows, speeds]``, the length of each row at each speed.
        allowed: bool ``[rows, speeds]``; a row that is left out has none.
        labels: int64 ``[rows]``, labels of each row.
        omitted: number of rows left out, by the name of the reason.
    """

    speeds: tuple[float, ...]
    samples: np.ndarray
    allowed: np.ndarray
    labels: np.ndarray
    omitted: Mapping[str, int]


def select_rows(
    samples: np.ndarray,
    labels: Labels,
    settings: DataSettings,
    rate: int = 16_000,
    ctc_frames: FrameCount | None = None,
    ctc_silent: Sequence[int] = (),
) -> Selection:
    """Leaves out rows that are too short, too long, or have too many labels.

    A row is left out by what it is at speed 1; another speed that would bring it out of the limits
    is never drawn for it.

    Args:
        samples: int64 ``[rows]``.
        labels: of the same rows.
        settings: the limits and the speeds.
        rate: samples per second.
        ctc_frames: of the encoder, if its frames are to spell the labels by CTC.
        ctc_silent: labels that CTC does without.

    Raises:
        ConfigError: there are not as many labels as rows, or no row is left.
    """
    if len(labels) != len(samples):
        raise ConfigError(f"labels of {len(labels)} rows for {len(samples)} rows of sound.")
    speeds = (1.0, *(speed for speed in dict.fromkeys(settings.speeds) if speed != 1))
    lengths = np.stack([stretched(samples, speed) for speed in speeds], axis=1)
    faults = {
        "too short": lengths < settings.min_seconds * rate,
        "too long": lengths > settings.max_seconds * rate,
        "no labels": (labels.lengths == 0)[:, None],
        "too many labels": (labels.lengths > settings.max_labels)[:, None],
    }
    faults["too short"] |= lengths == 0
    if ctc_frames is not None:
        needed = labels.ctc_frames(ctc_silent)
        faults["too few frames for CTC"] = ctc_frames(lengths) < needed[:, None]
    allowed, omitted = np.ones(lengths.shape, bool), {}
    for reason, faulty in faults.items():
        omitted[reason] = int(np.count_nonzero(allowed[:, 0] & faulty[:, 0]))
        allowed &= ~faulty
    allowed &= allowed[:, :1]
    if not allowed.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in omitted.items() if count)
        raise ConfigError(f"no row is left of {len(samples)}: {reasons or 'there was none'}.")
    if 1.0 not in settings.speeds:
        allowed[:, 0] &= ~allowed[:, 1:].any(axis=1)
    omitted = {reason: count for reason, count in omitted.items() if count}
    return Selection(speeds, lengths, allowed, labels.lengths, omitted)
