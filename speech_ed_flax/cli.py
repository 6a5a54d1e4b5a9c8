"""The command line ``speech-ed-flax``: commands, exit codes, and one line for each error.

Results go to stdout and everything else to stderr. Nothing heavy is imported here, so that help and
mistakes in the arguments are answered at once.
"""

import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from speech_ed_flax.commands.checkpoint import checkpoint
from speech_ed_flax.commands.convert import convert
from speech_ed_flax.commands.create import create
from speech_ed_flax.commands.doctor import doctor, versions
from speech_ed_flax.commands.evaluate import evaluate
from speech_ed_flax.commands.export import export
from speech_ed_flax.commands.inspect import inspect
from speech_ed_flax.commands.outcome import Outcome, UsageError, VerificationError
from speech_ed_flax.commands.plan import plan
from speech_ed_flax.commands.prepare import prepare
from speech_ed_flax.commands.train import train
from speech_ed_flax.commands.train_tokenizer import train_tokenizer
from speech_ed_flax.commands.transcribe import transcribe
from speech_ed_flax.errors import SpeechError

app = App(
    name="speech-ed-flax",
    help="Speech encoder-decoders in JAX: any speech encoder joined to any text decoder.",
    version=versions,
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    print_error=False,
    exit_on_error=False,
    result_action="return_value",
)
app.meta.suppress_keyboard_interrupt = False  # the one setting that it does not take over
_COMMANDS = (
    transcribe,
    evaluate,
    prepare,
    train_tokenizer,
    create,
    plan,
    train,
    checkpoint,
    convert,
    export,
    inspect,
    doctor,
)
for _command in _COMMANDS:
    app.command(_command)

_OUTCOMES = {UsageError: Outcome.USAGE_ERROR, VerificationError: Outcome.MISMATCH}
"""What errors end with that are not a model or input that cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; see ``Outcome``.

    Args:
        arguments: without the program's name; those of the process if omitted.
    """
    _speak_utf8()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        # A lone dash would pass for an option that there is not.
        outcome = app.meta(["/dev/stdin" if token == "-" else token for token in given])
        sys.stdout.flush()
        return int(outcome or Outcome.DONE)
    except CycloptsError as error:
        _report(f"{error} See --help.")
        return Outcome.USAGE_ERROR
    except KeyboardInterrupt:
        _report("interrupted")
        return Outcome.INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Outcome.NO_READER


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(env_var="SPEECH_ED_FLAX_DEBUG")] = False,
) -> int:
    """Runs one command, and turns what it raises into one line and an exit code.

    Args:
        tokens: the command and its arguments.
        debug: Show tracebacks, warnings and what libraries log.
    """
    with _hushed(debug):
        try:
            return app(tokens) or Outcome.DONE
        except (CycloptsError, BrokenPipeError):
            raise
        except Exception as error:
            if debug:
                traceback.print_exc()
            return _explain(error)


def _explain(error: Exception) -> Outcome:
    """Says on one line what went wrong, and returns the exit code."""
    if isinstance(error, SpeechError):
        _report(str(error))
        return _OUTCOMES.get(type(error), Outcome.ALL_FAILED)
    if isinstance(error, OSError) and error.strerror:
        _report(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return Outcome.INTERNAL_ERROR
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    _report(f"{type(error).__name__}: {reason} (run with --debug for details)")
    return Outcome.INTERNAL_ERROR


def _report(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr, flush=True)


def _speak_utf8() -> None:
    """Makes results UTF-8 whatever the locale, and file names exactly the bytes that they are."""
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


@contextmanager
def _hushed(debug: bool) -> Iterator[None]:
    """Keeps what libraries log and warn of off stderr; this package's own warnings are shown."""
    if debug:
        logging.basicConfig()
        yield
        return
    for name, value in (
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TF_CPP_MIN_LOG_LEVEL", "2"),
    ):
        os.environ.setdefault(name, value)
    own, rest = logging.StreamHandler(), logging.NullHandler()
    own.setFormatter(logging.Formatter("warning: %(message)s"))
    handlers = ((logging.getLogger("speech_ed_flax"), own), (logging.getLogger(), rest))
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)
