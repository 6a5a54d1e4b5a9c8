"""A contender as a process of its own: JSON lines in, JSON lines out.

    python -P benchmarks/contenders/worker.py MODULE OPTIONS

``MODULE`` is a file of this folder with ``PACKAGES`` and ``load(request, **options)``. That returns
a function that does the work once, waits for it and returns rows of tokens, a loss, or None. The
requests are ``{"command": ...}``: "load" (with ``folder``, ``inputs`` and what else that module
reads), "run", "tokens", "loss", "result" and "memory". Runs with nothing but the packages of its
contender, and with ``-P``: files of ``benchmarks`` are named like packages that contenders import.
"""

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Worker:
    """Answers requests about one module.

    Attributes:
        module: of the contender.
        options: of the contender.
    """

    def __init__(self, module: Any, options: dict[str, Any]):
        self.module = module
        self.options = options
        self._work: Callable[[], Any] | None = None
        self._result: Any = None

    def load(self, **request: Any) -> dict[str, Any]:
        """Loads the model, if it is not the last one, and the inputs."""
        self._work = self._result = None
        forget_peak()
        start = time.perf_counter()
        self._work = self.module.load(request, **self.options)
        return {"seconds": time.perf_counter() - start}

    def run(self) -> dict[str, Any]:
        """Does the work once; the first time it may compile."""
        assert self._work is not None, "load comes before run"
        start = time.perf_counter()
        self._result = self._work()
        return {"seconds": time.perf_counter() - start}

    def tokens(self) -> dict[str, Any]:
        """Returns what the last run found; None for an encoder."""
        rows = self._result
        return {"tokens": rows and [[int(token) for token in row] for row in rows]}

    def loss(self) -> dict[str, Any]:
        """Returns the loss of the last run, for one that is a step of training."""
        return {"loss": self._result}

    def result(self) -> dict[str, Any]:
        """Returns the result of the last run, for one that is JSON itself."""
        return {"result": self._result}

    def memory(self) -> dict[str, Any]:
        """Returns the most bytes that were resident since the last ``load``."""
        return {"bytes": peak()}


def forget_peak() -> None:
    """Starts the peak of resident memory anew, where the system can (Linux)."""
    marks = Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")


def peak() -> int:
    """Returns the peak of resident memory in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def contender(name: str) -> Any:
    """Imports a file of this folder."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"contender_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Answers until the end of the input."""
    # What libraries print must not mix with the answers: from here on it goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = contender(sys.argv[1])
    worker = Worker(module, json.loads(sys.argv[2]))
    answer: dict[str, Any] = {"versions": {name: version(name) for name in module.PACKAGES}}
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        try:
            answer = getattr(worker, command)(**request)
        except Exception as error:  # whatever it is, the other contenders go on
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            answer = {"error": f"{type(error).__name__}: {reason}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
