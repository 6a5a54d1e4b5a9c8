"""The contenders that can be had on this machine."""

import re
import sys
from pathlib import Path

from contenders.process import ContenderError, Process
from contenders.workloads import ENTRIES, Entry


def say(text: str) -> None:
    """Tells the user how far it is."""
    print(text, file=sys.stderr, flush=True)


class Crew:
    """Starts contenders, and says of each that does not start why, once.

    Attributes:
        versions: of the packages of everyone who started, by name.
    """

    def __init__(self, pythons: dict[str, str], logs: Path, wanted: re.Pattern[str]):
        """Starts nobody yet.

        Args:
            pythons: interpreters by module of ``contenders``; modules without one are left out.
            logs: folder for what contenders write to stderr.
            wanted: pattern of the names in ``ENTRIES`` to start; others always may.
        """
        self.versions: dict[str, dict[str, str]] = {}
        self._pythons = pythons
        self._logs = logs
        self._wanted = wanted
        self._absent: set[str] = set()

    def start(
        self, name: str, entry: Entry, environment: dict[str, str] | None = None
    ) -> Process | None:
        """Returns the process of a contender; None if it is not wanted or not to be had."""
        unwanted = name in ENTRIES and not self._wanted.search(name)
        if unwanted or name in self._absent:
            return None
        try:
            if entry.module not in self._pythons:
                raise ContenderError(f"--python {entry.module}=PATH is not given")
            python, log = self._pythons[entry.module], self._logs / f"{name}.log"
            process = Process(python, entry.module, entry.options, log, environment)
        except ContenderError as error:
            say(f"{name} is left out: {error}.")
            self._absent.add(name)
            return None
        self.versions[name] = process.versions
        return process
