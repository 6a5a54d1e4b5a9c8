"""How the commands turn speech into text, and the model that does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

MANY = 16
"""Recordings beyond which a process of its own reads them, and every shape is compiled first."""

Count = Annotated[int, Parameter(validator=Number(gte=1))]


@Parameter(name="*", group="Recognition")
@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How speech becomes text.

    Attributes:
        batch_size: Clips recognised at once; 8 on a CPU and 32 for each accelerator if omitted, and
            fewer where the memory does not suffice.
        memory: Gigabytes that a batch may take beside the weights; all that are free if omitted.
        tensor: Devices that hold the weights together; as few as can if omitted.
        longest: Most seconds of one clip.
        max_shapes: Lengths of clips that the model is compiled for, at most: with the least padding
            where a manifest says how long its recordings last.
        detector: Of speech: energy, or the name of one that an installed package has.
        beam_size: Beams of the search; what the model says if omitted.
        max_new_tokens: Most tokens of one clip of up to 30 seconds.
        language: Of the speech, for multilingual Whisper; detected if omitted.
        task: For multilingual Whisper.
        target_language: Of the text, for mBART: de, de_DE, or the id of its token.
        dtype: In which the model computes, where the processor can.
        weights: Keep the weights in int8, a quarter of the memory; the text may differ a little.
        allow_truncated: Transcribe a file that is cut short as far as it goes.
    """

    batch_size: Count | None = None
    memory: Annotated[float, Parameter(validator=Number(gt=0))] | None = None
    tensor: Count | None = None
    longest: Annotated[float, Parameter(validator=Number(gte=1, lte=30))] = 30.0
    max_shapes: Count = 7
    detector: str = "energy"
    beam_size: Count | None = None
    max_new_tokens: Count | None = None
    language: str | None = None
    task: Literal["transcribe", "translate"] | None = None
    target_language: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights: Literal["int8"] | None = None
    allow_truncated: bool = False

    def settings(self, seconds: Sequence[float | None] = ()) -> dict[str, Any]:
        """Returns the settings of ``FlaxSpeechEncoderDecoderModel.transcriber``.

        Args:
            seconds: that the recordings last, as far as that is known.
        """
        from speech_ed_flax.transcription.listening import BUCKETS, plan_buckets

        known = [one for one in seconds if one is not None]
        lengths = known if known and len(known) == len(seconds) else BUCKETS
        settings = {
            "buckets": plan_buckets(lengths, self.longest, self.max_shapes),
            "batch_size": self.batch_size,
            "tensor": self.tensor,
            "longest": self.longest,
            "detector": self.detector,
            "allow_truncated": self.allow_truncated,
            "num_beams": self.beam_size,
            "max_new_tokens": self.max_new_tokens,
            "language": self.language,
            "task": self.task,
            "target_language": self.target_language,
        }
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def room(self) -> int | None:
        """Returns the bytes that a batch may take beside the weights; None if nobody knows."""
        import jax

        from speech_ed_flax.memory import free_memory

        if self.memory is not None:
            return int(self.memory * 1e9)
        return free_memory(jax.local_devices()[0])


def embedded(report: Callable[[str], None]) -> str:
    """Returns the folder of the model that comes with the package, and reports that it is used."""
    from speech_ed_flax.embedded import FOLDER, HEARS

    report(f"no --model: the one of this package hears {HEARS}, no more")
    return str(FOLDER)


def load_recogniser(name: str, recognition: Recognition, local_files_only: bool) -> Any:
    """Loads the model of a command that turns recordings into text."""
    from speech_ed_flax.commands.process import settle
    from speech_ed_flax.devices import on_host
    from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

    settle()
    with on_host():  # from where as many devices as it takes have them
        return FlaxSpeechEncoderDecoderModel.from_pretrained(
            name,
            dtype=recognition.dtype,
            weights=recognition.weights,
            local_files_only=local_files_only,
        )


@dataclass(frozen=True)
class Work:
    """All that a process must know to transcribe; it can be sent to another one.

    Attributes:
        model: folder or name of the checkpoint.
        recognition: how speech becomes text.
        settings: of ``FlaxSpeechEncoderDecoderModel.transcriber``.
        local_files_only: whether to stay off the network.
        many: whether it is worth while to compile every shape of batches first.
    """

    model: str
    recognition: Recognition
    settings: dict[str, Any]
    local_files_only: bool
    many: bool

    def begin(self, report: Callable[[str], None]) -> Any:
        """Loads the model and returns its transcriber.

        Args:
            report: is told what takes time.
        """
        model = load_recogniser(self.model, self.recognition, self.local_files_only)
        return begin(model, self.recognition, self.settings, self.many, report)


def begin(
    model: Any,
    recognition: Recognition,
    settings: dict[str, Any],
    many: bool,
    report: Callable[[str], None],
) -> Any:
    """Returns the transcriber of a model; with a limit of memory its batches keep within it.

    Args:
        model: a ``FlaxSpeechEncoderDecoderModel``.
        recognition: how speech becomes text.
        settings: of ``model.transcriber``.
        many: whether it is worth while to compile every shape of batches first.
        report: is told what takes time.
    """
    from speech_ed_flax.transcription import prepare

    transcriber = model.transcriber(**settings)
    if many or recognition.memory is not None:
        prepare(transcriber, recognition.room, report)
    return transcriber
