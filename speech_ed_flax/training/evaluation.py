"""Judging a model while it trains: its loss, and what it makes of speech that it did not hear."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from speech_ed_flax.metrics import align, score
from speech_ed_flax.partition import gather_params
from speech_ed_flax.training.config import EvaluationSettings
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.training.state import TrainState, judged, without_head
from speech_ed_flax.training.step import Batch, forward
from speech_ed_flax.types import Params


@dataclass(frozen=True)
class Prediction:
    """What the model made of one recording."""

    id: str
    reference: str
    hypothesis: str

    def lines(self) -> list[str]:
        """Returns reference and hypothesis above each other, and what differs."""
        return align(self.reference, self.hypothesis)


@dataclass(frozen=True)
class Judgement:
    """What an evaluation found.

    Attributes:
        numbers: the loss and every metric, by name.
        predictions: of the recordings that are shown.
    """

    numbers: dict[str, float]
    predictions: Sequence[Prediction]


class EvaluationInterrupted(Exception):  # noqa: N818 - a way out, not an error
    """An evaluation was asked to stop before it was done."""


class Evaluator:
    """Evaluates states of one training; compiles once for each shape of batch."""

    def __init__(
        self,
        model: Any,
        step: StepSettings,
        settings: EvaluationSettings,
        mesh: Mesh,
        place: Callable[[Any], Any],
    ):
        """Prepares evaluations.

        Args:
            model: a ``FlaxSpeechEncoderDecoderModel``; its own parameters are not used.
            step: of the training; dropout and SpecAugment are off here.
            settings: what is generated and computed.
            mesh: of the training.
            place: puts this process's rows of a batch on the devices.
        """
        self._model, self._settings, self._mesh, self._place = model, settings, mesh, place
        quiet = replace(step, dropout=False, augment=False)
        self._loss = jax.jit(partial(forward, model.module, quiet))

    def judge(
        self,
        state: TrainState,
        batches: Iterable[Any],
        references: Mapping[str, str],
        interrupted: Callable[[], bool],
    ) -> Judgement:
        """Evaluates a state on one set.

        Args:
            state: of the training.
            batches: the set, every row once, as the data's loader gives it.
            references: what was said, by the ids of rows.
            interrupted: asked after each batch whether to stop.

        Raises:
            EvaluationInterrupted: because it was.
        """
        # Once, where a search over sharded parameters would gather them for every token.
        params = gather_params(self._mesh, judged(state))
        totals, hypotheses = np.zeros(2), dict[str, str]()
        for loaded in batches:
            loss, labels, texts = self._batch(params, loaded)
            totals += (loss, labels)
            known = zip(loaded.ids, texts, strict=True)
            hypotheses |= {name: text for name, text in known if name in references}
            if interrupted():
                raise EvaluationInterrupted
        names = sorted(hypotheses)
        said, heard = [references[name] for name in names], [hypotheses[name] for name in names]
        settings = self._settings
        scores = score(said, heard, settings.metrics, normalizer=settings.normalizer).metrics
        numbers = {"loss": float(totals[0] / max(totals[1], 1))}
        numbers |= {name: found.value for name, found in scores.items()}
        shown = zip(names, said, heard, strict=True)
        predictions = [Prediction(*one) for one in shown][: settings.samples]
        return Judgement(numbers, predictions)

    def _batch(self, params: Params, loaded: Any) -> tuple[float, int, list[str]]:
        """Returns the sum of the losses of a batch, how many labels it has, and its texts."""
        placed: Batch = self._place(loaded)
        sums = self._loss(params, placed, jax.random.key(0))
        speech = (placed.inputs, placed.mask)
        found = self._model.generate(
            *speech, params=without_head(params), **self._settings.generation
        )
        tokens = found.sequences
        first = tokens[:: max(1, len(tokens) // placed.inputs.shape[0])]  # the best of several
        return float(sums.cross_entropy), int(sums.labels), self._model.processor.text(first)
