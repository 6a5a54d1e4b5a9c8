"""Settings of the data of a training, checked where they are made."""

import math
from dataclasses import dataclass

from speech_ed_flax.errors import ConfigError


@dataclass(frozen=True)
class DataSettings:
    """Which rows a training hears, and in which batches.

    Attributes:
        batch_seconds: most seconds of sound, padding included, in one batch over all devices.
        shapes: most shapes that batches have; the step is compiled once for each.
        min_seconds: shorter rows are left out.
        max_seconds: longer rows are left out.
        max_labels: rows with more labels, the end of the text included, are left out.
        max_rows: most rows of a batch, however short they are; None for no limit.
        row_multiple: the rows of a batch are a multiple of this, and of the devices that share it:
            with 8 a training on 8 devices goes on, with the same batches, on 1, 2 or 4.
        sample_multiple: the length of a shape is a multiple of this many samples.
        label_multiple: the labels of a shape are a multiple of this.
        speeds: factors of speed perturbation (Ko et al., 2015), such as ``(0.9, 1.0, 1.1)``; every
            row is heard at one of them in each epoch.
        workers: processes that load batches; 0 loads in a thread of the training's own.
        prefetch: batches that each worker keeps ready.
        seed: of the order of rows and of their speeds.

    Raises:
        ConfigError: naming the setting that is out of range.
    """

    batch_seconds: float = 120.0
    shapes: int = 8
    min_seconds: float = 0.1
    max_seconds: float = 30.0
    max_labels: int = 448
    max_rows: int | None = None
    row_multiple: int = 1
    sample_multiple: int = 1_600
    label_multiple: int = 8
    speeds: tuple[float, ...] = (1.0,)
    workers: int = 1
    prefetch: int = 2
    seed: int = 0

    def __post_init__(self):
        positive = (
            "shapes",
            "max_labels",
            "row_multiple",
            "sample_multiple",
            "label_multiple",
            "prefetch",
        )
        for name in positive:
            _check(name, getattr(self, name), 1, math.inf)
        for name in ("workers", "seed", "min_seconds"):
            _check(name, getattr(self, name), 0, math.inf)
        if self.max_rows is not None:
            _check("max_rows", self.max_rows, 1, math.inf)
        _check("max_seconds", self.max_seconds, self.min_seconds, math.inf)
        _check("batch_seconds", self.batch_seconds, self.min_seconds, math.inf)
        if not self.speeds:
            raise ConfigError("speeds is empty: use (1.0,) to leave the speed as it is.")
        for speed in self.speeds:
            _check("speeds", speed, 0.25, 4)


def _check(name: str, value: float | int, least: float | int, most: float | int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name}={value} is not within {least} to {most}.")
