"""Transcribing on a Ray cluster: the same transcriber, in actors that share the recordings.

Ray Data deals blocks of recordings to a pool of actors. A block whose actor dies is done again by
another one; what is done comes back to the process that asked, which alone writes results: each is
there whole or not at all, and once.
"""

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.commands.recognition import Work
from speech_ed_flax.data.extras import require
from speech_ed_flax.data.span import Span
from speech_ed_flax.errors import SpeechError
from speech_ed_flax.transcription import Job, Segment, Transcript

BLOCK = 64
"""Most recordings of a block: so many are done again when an actor dies."""


@dataclass(frozen=True)
class Cluster:
    """What ``transcription.Transcriber`` is, on a Ray cluster.

    Attributes:
        work: what every actor begins with.
        actors: how many there are.
        block: recordings that an actor is given at once.
        resources: that an actor claims, as Ray names them.
    """

    work: Work
    actors: int
    block: int
    resources: dict[str, Any]
    usage: ClassVar[None] = None
    """Of the models, which are elsewhere."""
    lazy: ClassVar[bool] = False
    """Recordings are dealt at once: Ctrl-C cannot let it finish a few."""

    @classmethod
    def join(
        cls, address: str | None, actors: int | None, work: Work, recordings: int
    ) -> "Cluster":
        """Joins a cluster, or starts one on this machine.

        Args:
            address: of the cluster; RAY_ADDRESS, or else a new one, if None.
            actors: how many; one for each GPU, else one for each machine if None.
            work: to be done.
            recordings: how many there are.

        Raises:
            ConfigError: if Ray is not installed.
            UsageError: if there is no such cluster.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
        ray: Any = require("ray", "ray")
        address = address or os.environ.get("RAY_ADDRESS")
        # Left to itself Ray joins the last cluster of this machine, and waits for it if it is dead.
        address, local = (address, {}) if address else ("local", {"include_dashboard": False})
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"--ray-address {address}: no cluster answers, {reason}") from None
        there = ray.cluster_resources()
        count = actors or int(there.get("GPU", 0)) or len(ray.nodes())
        block = min(BLOCK, ceil(recordings / (4 * count)))
        return cls(_absolute(work), count, block, _claims(there, count))

    def follow(self, jobs: Iterable[Job]) -> Iterator[Segment | Transcript]:
        """Yields the segments of each recording, then its transcript, in the order of ``jobs``.

        Raises:
            SpeechError: if the actors cannot use the model.
        """
        ray: Any = require("ray", "ray")
        data: Any = require("ray.data", "ray")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        here = [replace(job, source=_on_every_machine(job.source)) for job in jobs]
        blocks = [here[start : start + self.block] for start in range(0, len(here), self.block)]
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        given = data.from_items(
            [{"block": pickle.dumps(block)} for block in blocks], override_num_blocks=len(blocks)
        )
        found = given.map_batches(
            Actor,
            fn_constructor_args=(self.work,),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=self.actors),
            **self.resources,
        )
        rows = iter(found.iter_rows())
        try:
            for row in rows:
                results = pickle.loads(row["block"])
                if isinstance(results, SpeechError):
                    raise results
                for transcript in results:
                    yield from transcript.segments
                    yield transcript
        finally:
            del rows  # which ends what still runs: Ray ends this process if it is left without it
            ray.shutdown()


class Actor:
    """Transcribes blocks of recordings, with a model that is loaded once."""

    def __init__(self, work: Work):
        try:
            self._transcriber = work.begin(lambda line: None)
        except SpeechError as error:  # raised here, it would be tried again and again
            self._transcriber = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Returns the transcripts of each block, pickled, or what is wrong with the model."""
        return {"block": [pickle.dumps(self._done(block)) for block in batch["block"]]}

    def _done(self, block: bytes) -> list[Transcript] | SpeechError:
        if isinstance(self._transcriber, SpeechError):
            return self._transcriber
        return list(self._transcriber.stream(pickle.loads(block)))


def _claims(there: dict[str, float], actors: int) -> dict[str, Any]:
    """Returns what an actor claims: a GPU, the TPUs of a machine, and its share of processors."""
    share = there.get("CPU", 1) / actors
    claims: dict[str, Any] = {"num_cpus": int(share) if share >= 1 else share}
    if there.get("GPU"):
        claims["num_gpus"] = 1
    if there.get("TPU"):
        claims["resources"] = {"TPU": int(there["TPU"] / actors)}
    return claims


def _absolute(work: Work) -> Work:
    """Returns work whose model is found from any folder."""
    is_folder = os.path.isdir(work.model)
    return replace(work, model=os.path.abspath(work.model)) if is_folder else work


def _on_every_machine(source: Any) -> Any:
    """Returns a source that is found from any folder."""
    if isinstance(source, Span):
        return replace(source, path=os.path.abspath(source.path))
    return os.path.abspath(source) if isinstance(source, str | Path) else source
