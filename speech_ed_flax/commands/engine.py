"""Where ``transcribe`` does its work: in this process, or on a cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cyclopts import Parameter

from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.commands.recognition import Count, Work


@Parameter(name="*", group="Engine")
@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where the work is done.

    Attributes:
        engine: local is this process, with all its devices; ray is a cluster whose machines see
            the same files and have this package.
        actors: Processes of a Ray cluster that share the recordings; one for each GPU, or for each
            machine without any, if omitted.
        ray_address: Of a cluster that runs already; RAY_ADDRESS, or else a new one on this machine,
            if omitted.
    """

    engine: Literal["local", "ray"] = "local"
    actors: Count | None = None
    ray_address: str | None = None

    def begin(self, work: Work, recordings: int, report: Callable[[str], None]) -> Any:
        """Returns what transcribes: a ``Transcriber``, or what does as one.

        Args:
            work: to be done.
            recordings: how many there are.
            report: is told what takes time.

        Raises:
            UsageError: if an option is of no use, or there is no Ray.
        """
        if self.engine == "ray":
            from speech_ed_flax.commands.cluster import Cluster

            return Cluster.join(self.ray_address, self.actors, work, recordings)
        for option, given in (("--actors", self.actors), ("--ray-address", self.ray_address)):
            if given is not None:
                raise UsageError(f"{option} is for --engine ray: one process does the work.")
        return work.begin(report)
