"""Settings of a training step, checked where they are made."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from speech_ed_flax.errors import ConfigError

OPTIMIZERS = ("adamw", "adafactor", "lion", "sgd")
SCHEDULES = ("constant", "linear", "cosine", "inverse-sqrt", "tri-stage")
PRECISIONS = ("float32", "bfloat16")

Rules = tuple[tuple[str, float], ...]
"""``(pattern, factor)`` over parameter paths; the first pattern that is found decides."""


@dataclass(frozen=True)
class LossSettings:
    """What is minimised, per label that counts.

    Attributes:
        label_smoothing: share of the target that is spread over the vocabulary, as PyTorch does.
        z_loss: weight of the squared log-partition function, which keeps scores small.
        ctc_weight: share of the loss that is CTC on the encoder's states (Watanabe et al., 2017);
            the rest is cross-entropy.
        ctc_blank: token that CTC reads as "nothing": one that is never a label, such as padding.
        ctc_silent: labels that are not heard, such as the end of the text: CTC does without them.
        token_noise: share of the tokens read by the decoder that are random ones while it trains.
            One that cannot trust the words before must listen: on little data it would else learn
            the texts by heart.
        guide: weight of a penalty on cross-attention that is far from the diagonal, which is where
            speech is read; not for translations. A new decoder soon listens to the right place.

    Raises:
        ConfigError: naming the setting that is out of range or missing.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    ctc_weight: float = 0.0
    ctc_blank: int | None = None
    ctc_silent: tuple[int, ...] = ()
    token_noise: float = 0.0
    guide: float = 0.0

    def __post_init__(self):
        check_range(self, ("label_smoothing", "ctc_weight", "token_noise"), 0, 1)
        check_range(self, ("z_loss", "guide"), 0, math.inf)


@dataclass(frozen=True)
class OptimizerSettings:
    """How parameters follow their gradients.

    Attributes:
        name: one of ``OPTIMIZERS``.
        learning_rate: the highest one of the schedule.
        schedule: one of ``SCHEDULES``; what follows the warm-up.
        warmup_steps: updates over which the learning rate rises from 0 in a line.
        hold_steps: updates at the highest rate before a tri-stage schedule falls.
        steps: updates of the whole training, at the end of which ``linear``, ``cosine`` and
            ``tri-stage`` arrive at ``final``.
        final: last learning rate as a share of the highest.
        beta1: decay of the first moment, and the momentum of SGD (0 for none).
        beta2: decay of the second moment, or of Lion's momentum.
        epsilon: added to the root of Adam's second moment.
        weight_decay: decoupled, times the learning rate, as in AdamW.
        clip: largest global norm of the gradient; None for no clipping.
        learning_rates: factors of the learning rate by path.
        weight_decays: factors of the weight decay by path; biases and norms have none.
        frozen: patterns of paths that are not trained at all.
        encoder_frozen_steps: updates before the encoder is trained. It then starts with moments of
            its own, as parameters do that PyTorch unfreezes.
        state_dtype: ``"float32"`` or ``"bfloat16"``: what the first moment is kept in. The second
            one stays float32: in bfloat16 its small increments would be rounded away.

    Raises:
        ConfigError: naming the setting that is not known, out of range or missing.
    """

    name: str = "adamw"
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_steps: int = 0
    hold_steps: int = 0
    steps: int | None = None
    final: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip: float | None = 1.0
    learning_rates: Rules = ()
    weight_decays: Rules = ((r"/(bias|scale)$", 0.0),)
    frozen: tuple[str, ...] = ()
    encoder_frozen_steps: int = 0
    state_dtype: str = "float32"

    def __post_init__(self):
        check_name("optimizer name", self.name, OPTIMIZERS)
        check_name("schedule", self.schedule, SCHEDULES)
        check_name("state_dtype", self.state_dtype, PRECISIONS)
        check_range(self, ("learning_rate", "weight_decay", "epsilon"), 0, math.inf)
        check_range(self, ("warmup_steps", "hold_steps", "encoder_frozen_steps"), 0, math.inf)
        check_range(self, ("final", "beta1", "beta2"), 0, 1)
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip={self.clip} must be positive: use None for no clipping.")
        if self.name == "adafactor" and self.state_dtype != "float32":
            raise ConfigError("state_dtype='bfloat16' is of no use: adafactor has no first moment.")
        self._check_lengths()
        rules = (*self.learning_rates, *self.weight_decays)
        for pattern in (*self.frozen, *(pattern for pattern, _ in rules)):
            _check_pattern(pattern)

    def _check_lengths(self):
        if self.schedule in ("constant", "inverse-sqrt"):
            return
        begun = self.warmup_steps + (self.hold_steps if self.schedule == "tri-stage" else 0)
        if self.steps is None or self.steps <= begun:
            raise ConfigError(
                f"steps={self.steps} must be more than the {begun} steps with which "
                f"schedule={self.schedule!r} begins."
            )
        if self.schedule == "tri-stage" and self.final == 0:
            raise ConfigError(
                "final=0 is no end of a tri-stage schedule: use a share such as 0.05."
            )


@dataclass(frozen=True)
class StepSettings:
    """Everything that one training step is compiled for; hashable.

    Attributes:
        pad_token_id: what the decoder reads in place of a label that does not count.
        decoder_start_token_id: what the decoder reads first.
        loss: what is minimised.
        optimizer: how.
        accumulate: micro-batches that a batch is split into; they are computed in turn.
        precision: ``"float32"`` or ``"bfloat16"``, of the computation. Parameters, gradients' sums,
            the arithmetic of norms and softmax, scores and the loss are float32 in either.
        dropout: whether dropout and layer drop are on, at the rates of the model's config.
        augment: whether SpecAugment is on, as the model's config has it.
        average: decay of the moving average of the parameters; None for no average.

    Raises:
        ConfigError: naming the setting that is not known or out of range.
    """

    pad_token_id: int
    decoder_start_token_id: int
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    accumulate: int = 1
    precision: str = "float32"
    dropout: bool = True
    augment: bool = True
    average: float | None = None

    def __post_init__(self):
        check_name("precision", self.precision, PRECISIONS)
        check_range(self, ("accumulate",), 1, math.inf)
        if self.loss.ctc_weight and self.loss.ctc_blank is None:
            raise ConfigError(
                f"ctc_weight={self.loss.ctc_weight} needs ctc_blank: name a token that is never a "
                "label."
            )


def check_name(what: str, found: str, known: tuple[str, ...]) -> None:
    """Raises ConfigError if ``found`` is none of the ``known`` names."""
    if found not in known:
        raise ConfigError(f"{what}={found!r} is not known: use one of {', '.join(known)}.")


def check_range(settings: Any, names: tuple[str, ...], least: int, most: float | int) -> None:
    """Raises ConfigError naming the first of some fields that is out of range."""
    for name in names:
        value = getattr(settings, name)
        if not least <= value <= most:
            raise ConfigError(f"{name}={value} is not within {least} to {most}.")


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"the path rule {pattern!r} is no regular expression: {error}.") from None
