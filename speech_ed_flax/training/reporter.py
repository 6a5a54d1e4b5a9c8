"""What a training tells: on stderr, in its folder, to TensorBoard and to wandb."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from speech_ed_flax.training.config import TrainConfig
from speech_ed_flax.training.display import Display
from speech_ed_flax.training.evaluation import Judgement
from speech_ed_flax.training.journal import Journal, JsonLines, TensorBoard, WeightsAndBiases
from speech_ed_flax.training.meter import finite
from speech_ed_flax.training.run import RunFolder


class Silence:
    """Tells nothing: one process of a training speaks for all."""

    def shown(self, step: int) -> AbstractContextManager[object]:
        """Returns the context in which the progress from ``step`` on is shown."""
        return nullcontext()

    def say(self, line: str) -> None:
        """Says a line."""

    def measured(self, step: int, values: Mapping[str, Any]) -> None:
        """Tells what was measured of the steps up to ``step``."""

    def skipped(self, step: int, ids: Sequence[str], metrics: Any) -> None:
        """Tells that a step changed nothing, and of which recordings."""

    def judged(self, step: int, found: Mapping[str, Judgement]) -> None:
        """Tells what an evaluation found, by the names of the sets."""

    def close(self) -> None:
        """Tells what is left."""


class Reporter(Silence):
    """Tells it all."""

    def __init__(self, config: TrainConfig, run: RunFolder, step: int):
        """Goes on after ``step``; what was told of later ones is forgotten."""
        self._run, self._display = run, Display(config.optimizer.steps or 0)
        self._predictions = JsonLines(run.predictions, step)
        writers: list[Any] = [JsonLines(run.metrics, step)]
        if config.log.tensorboard:
            writers.append(TensorBoard(run.tensorboard, step))
        if config.log.wandb:
            writers.append(WeightsAndBiases(config.log.wandb, run.path, asdict(config)))
        self._journal = Journal(*writers)

    def shown(self, step: int) -> AbstractContextManager[object]:
        """Shows the progress on stderr."""
        return self._display.shown(step)

    def say(self, line: str) -> None:
        """Prints a line on stderr."""
        self._display.say(line)

    def measured(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes it down, and shows the most important."""
        self._journal.numbers(step, values)
        self._display.numbers(step, values)

    def skipped(self, step: int, ids: Sequence[str], metrics: Any) -> None:
        """Warns, and writes a line of ``skipped.jsonl``."""
        self.say(f"warning: step {step} changed nothing: its loss or gradient was not finite")
        reason = {"loss": finite(metrics.loss), "gradient_norm": finite(metrics.gradient_norm)}
        lines = JsonLines(self._run.skipped, step - 1)
        lines.numbers(step, {"ids": [name for name in ids if name], **reason})
        lines.close()

    def judged(self, step: int, found: Mapping[str, Judgement]) -> None:
        """Writes down numbers and predictions."""
        for name, judgement in found.items():
            numbers = {f"{name}/{m}": finite(value) for m, value in judgement.numbers.items()}
            self._journal.numbers(step, numbers)
            scores = "  ".join(f"{m} {v:.4f}" for m, v in judgement.numbers.items())
            self.say(f"step {step}  {name}: {scores}")
            for one in judgement.predictions:
                line = {"set": name, **asdict(one), "alignment": one.lines()}
                self._predictions.numbers(step, line)
            lines = [line for one in judgement.predictions for line in (*one.lines(), "")]
            self._journal.text(step, name, "\n".join(f"    {line}" for line in lines))

    def close(self) -> None:
        """Closes the files."""
        self._journal.close()
        self._predictions.close()
