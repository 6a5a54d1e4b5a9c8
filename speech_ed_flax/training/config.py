"""The configuration of a whole training: what ``speech-ed-flax train --config`` reads."""

from dataclasses import dataclass, field
from typing import Any, Literal

from speech_ed_flax.data.settings import DataSettings
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.remat import check_policy
from speech_ed_flax.mesh import PRESETS, MeshSettings
from speech_ed_flax.training.settings import (
    PRECISIONS,
    LossSettings,
    OptimizerSettings,
    check_name,
    check_range,
)

LOWER_IS_BETTER = {"wer": True, "cer": True, "bleu": False, "chrf": False, "loss": True}
"""What a training can be judged by."""


@dataclass(frozen=True)
class TokenizerSettings:
    """A tokenizer that is trained on the texts before the model is.

    Attributes:
        kind: of its pieces.
        size: of its vocabulary; characters and words need none.
        lower: whether it writes everything in lower case.
    """

    kind: Literal["bpe", "unigram", "char", "word"] = "bpe"
    size: int | None = None
    lower: bool = False


@dataclass(frozen=True)
class ModelSettings:
    """What is trained: a checkpoint, or two halves.

    Attributes:
        checkpoint: folder or Hub name of a whole model; instead of the rest.
        encoder: ``{from: NAME, ...}`` for pretrained weights with changes of their config, or
            ``{model_type: wav2vec2, ...}`` for random ones.
        decoder: likewise.
        tokenizer: folder or Hub name; a tokenizer to train; or that of the decoder's checkpoint.
        padding: "invariant" trains what ``transcribe`` computes; "exact" trains as PyTorch does.
        remat: what a layer keeps for the backward pass: "none" keeps all, "dots" the products with
            weights, "full" its input only.
        scan: whether layers are compiled once and looped over: quicker to compile.
    """

    checkpoint: str | None = None
    encoder: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    tokenizer: str | TokenizerSettings | None = None
    padding: Literal["exact", "invariant"] = "invariant"
    remat: str = "none"
    scan: bool = False

    def __post_init__(self):
        check_policy(self.remat)
        halves = (self.encoder is None) + (self.decoder is None)
        if halves != (2 if self.checkpoint else 0):
            raise ConfigError("name either checkpoint, or both encoder and decoder.")
        if self.checkpoint and self.tokenizer:
            raise ConfigError("tokenizer and checkpoint exclude each other: a checkpoint has one.")


@dataclass(frozen=True)
class EvaluationSettings:
    """When and how the model is judged while it trains.

    Attributes:
        every: steps between evaluations; the last step is always evaluated.
        generation: settings of ``generate``, such as ``{num_beams: 4}``.
        metrics: what is computed of each set.
        best_by: by which the best checkpoint is chosen, on the first set.
        normalizer: of texts before they are compared.
        patience: evaluations without a new best one after which the training ends; None for never.
        samples: predictions of each set that are shown, the same ones every time.
    """

    every: int = 1000
    generation: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[Literal["wer", "cer", "bleu", "chrf"], ...] = ("wer", "cer")
    best_by: Literal["wer", "cer", "bleu", "chrf", "loss"] = "wer"
    normalizer: Literal["none", "basic", "english"] = "none"
    patience: int | None = None
    samples: int = 4

    def __post_init__(self):
        check_range(self, ("every",), 1, float("inf"))
        if self.best_by not in (*self.metrics, "loss"):
            raise ConfigError(f"best_by={self.best_by!r} is not among metrics: add it there.")


@dataclass(frozen=True)
class CheckpointSettings:
    """Which checkpoints there are.

    Attributes:
        every: steps between checkpoints; every evaluated step has one.
        keep_best: how many of the best are kept; the latest one always is.
    """

    every: int = 1000
    keep_best: int = 1

    def __post_init__(self):
        check_range(self, ("every", "keep_best"), 1, float("inf"))


@dataclass(frozen=True)
class LogSettings:
    """Where the training reports.

    Attributes:
        every: steps between lines of ``metrics.jsonl``.
        tensorboard: whether they go to TensorBoard too.
        wandb: project on Weights & Biases, if any.
    """

    every: int = 10
    tensorboard: bool = True
    wandb: str | None = None

    def __post_init__(self):
        check_range(self, ("every",), 1, float("inf"))


@dataclass(frozen=True)
class TrainConfig:
    """A whole training.

    Attributes:
        model: what is trained.
        train: manifests or prepared folders.
        evaluate: manifests or prepared folders to evaluate on, by name.
        data: batches.
        loss: what is minimised; the blank and the silent labels of CTC are the tokenizer's.
        optimizer: how; its ``steps`` are the length of the training.
        evaluation: when and how the model is judged.
        checkpoints: which ones are kept.
        log: where the training reports.
        mesh: how it is spread over devices: sizes of the axes, or "single" (one device), "data"
            (all parameters on every device), "host" (split over all devices of one host) or "pod"
            (split over the chips of each host).
        accumulate: micro-batches of one step.
        precision: "float32" or "bfloat16", of the computation.
        average: decay of the moving average of the parameters that is evaluated and exported, such
            as 0.999; None for none.
        seed: of everything random.
        profile: ``"10:15"`` traces steps 10 to 15 for TensorBoard.
    """

    model: ModelSettings
    train: tuple[str, ...]
    evaluate: dict[str, str] = field(default_factory=dict)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    log: LogSettings = field(default_factory=LogSettings)
    mesh: MeshSettings | Literal["single", "data", "host", "pod"] = "data"
    accumulate: int = 1
    precision: str = "float32"
    average: float | None = None
    seed: int = 0
    profile: str | None = None

    def __post_init__(self):
        check_name("precision", self.precision, PRECISIONS)
        check_range(self, ("accumulate",), 1, float("inf"))
        if not self.train:
            raise ConfigError("train names no data: add a manifest or a prepared folder.")
        if self.optimizer.steps is None:
            raise ConfigError("optimizer.steps is missing: how long is the training?")
        if self.average is not None and not 0 < self.average < 1:
            raise ConfigError(f"average={self.average} must lie between 0 and 1.")
        if self.profile is not None:
            self.profiled()

    @property
    def layout(self) -> MeshSettings:
        """How the training is spread over devices, as sizes of the axes."""
        return PRESETS[self.mesh] if isinstance(self.mesh, str) else self.mesh

    def profiled(self) -> range:
        """Returns the steps that are traced."""
        first, _, last = (self.profile or "0:-1").partition(":")
        try:
            return range(int(first), int(last) + 1)
        except ValueError:
            raise ConfigError(
                f"profile={self.profile!r} is no range of steps: write 10:15."
            ) from None
