"""The driver's end of a contender: starts its process, asks, and hears when it is gone."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("worker.py")


class ContenderError(Exception):
    """A contender that could not start, or not do what it was asked."""


class Process:
    """One warm contender.

    Attributes:
        versions: of its packages.
    """

    def __init__(
        self,
        python: str,
        module: str,
        options: dict[str, Any],
        log: Path,
        environment: dict[str, str] | None = None,
    ):
        """Starts the process and waits until its imports are done.

        Args:
            python: interpreter of the environment that has the contender's packages.
            module: a file of this folder.
            options: of that module's ``load``.
            log: file that receives what the contender writes to stderr.
            environment: variables set for it besides the driver's own.

        Raises:
            ContenderError: if there is no such interpreter or it lacks a package.
        """
        self._log = log
        with log.open("w") as stderr:
            try:
                self._process = subprocess.Popen(
                    [python, "-P", str(_WORKER), module, json.dumps(options)],
                    env=os.environ | (environment or {}),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            except OSError as error:
                raise ContenderError(f"{python} does not start ({error.strerror})") from None
        self.versions: dict[str, str] = self._answer()["versions"]

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        """Sends a request of ``worker`` and waits for its answer.

        Raises:
            ContenderError: with what the contender raised, or its last words.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps({"command": command} | request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self._log.read_text().strip().splitlines()
        return f"ended with {code}: {lines[-1] if lines else 'no message'}"
