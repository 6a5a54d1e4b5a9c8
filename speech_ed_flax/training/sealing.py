"""The last item of a checkpoint: digests of all the others, written before it is published.

Orbax collects the items of a checkpoint in a temporary folder, finalises them one after the other
on process 0, and then renames the folder. Digests that are an item themselves are in it from the
first moment it has its name: a published checkpoint without them is a damaged one.
"""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from speech_ed_flax.training.digests import DIGESTS, write_digests
from speech_ed_flax.training.records import RECORD

STATE = "state"
"""Where the arrays of a checkpoint are, inside its folder."""


class SealHandler(ocp.CheckpointHandler):
    """Writes nothing of its own; when everything else is there, its digests."""

    def save(self, directory: Any, args: "SealSave") -> None:
        """Does nothing: the files are not there yet."""

    def restore(self, directory: Any, args: Any = None) -> None:
        """Does nothing: digests are compared by ``check_digests``."""

    def finalize(self, directory: Any) -> None:
        """Writes the digests of the items finalised before; orbax calls it on process 0 only."""
        write_digests(Path(directory).parent, Path(directory))


@ocp.args.register_with_handler(SealHandler, for_save=True)
class SealSave(ocp.args.CheckpointArgs):
    """Asks for the digests."""


def handlers() -> ocp.DefaultCheckpointHandlerRegistry:
    """Returns who writes what; orbax finalises items in this order."""
    registry = ocp.DefaultCheckpointHandlerRegistry()
    registry.add(STATE, ocp.args.StandardSave, ocp.StandardCheckpointHandler())
    registry.add(RECORD.parent.name, ocp.args.JsonSave, ocp.JsonCheckpointHandler(RECORD.name))
    registry.add(DIGESTS.parent.name, SealSave, SealHandler())
    return registry


def contents(state: dict[str, Any], record: dict[str, Any]) -> ocp.args.Composite:
    """Returns the items of a checkpoint: nested dicts of arrays, and JSON."""
    items: dict[str, Any] = {
        STATE: ocp.args.StandardSave(state),
        RECORD.parent.name: ocp.args.JsonSave(record),
        DIGESTS.parent.name: SealSave(),
    }
    return ocp.args.Composite(**items)
