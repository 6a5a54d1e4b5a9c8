"""Every shape of batches compiled before the first of them, with as many rows as fit the memory."""

from collections.abc import Callable

import numpy as np

from speech_ed_flax.transcription.transcriber import Transcriber, out_of_memory

Report = Callable[[str], None]


def prepare(transcriber: Transcriber, room: int | None, report: Report) -> None:
    """Compiles all that a transcriber will run, and halves its batches until they fit.

    From then on clips are repeated where a batch is not full, so that nothing is compiled later.

    Args:
        transcriber: whose recogniser has ``needed``.
        room: bytes that a batch may take beside the weights; None if nobody knows.
        report: is told each shape before it is compiled, and how large batches become.
    """
    lengths = sorted(transcriber.listening.lengths, reverse=True)  # the longest needs most
    for number, seconds in enumerate(lengths, 1):
        rows = transcriber.rows(transcriber.batch_size)
        report(f"compiling {number} of {len(lengths)}: {rows} x {seconds:g} s")
        while not _fits(transcriber, seconds, room) and rows > transcriber.row_multiple:
            report(transcriber.halve(rows))
            rows //= 2
    transcriber.least_rows = transcriber.rows(transcriber.batch_size)


def _fits(transcriber: Transcriber, seconds: float, room: int | None) -> bool:
    """Compiles for full batches of clips of one length; tells whether they fit."""
    silence = transcriber.listening.features.features(
        [np.zeros(1, np.float32)], transcriber.listening.samples(seconds)
    )
    rows = transcriber.rows(transcriber.batch_size)
    values, mask = (np.repeat(array, rows, axis=0) for array in silence)
    try:
        needed = transcriber.recognise.needed(values, mask)
    except RuntimeError as error:
        if out_of_memory(error):
            return False
        raise
    return room is None or needed <= room
