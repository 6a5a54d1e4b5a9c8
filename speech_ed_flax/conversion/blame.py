"""Whatever goes wrong while a file is parsed becomes one error that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speech_ed_flax.errors import CheckpointError

__all__ = ["blaming"]

# What parsing damaged bytes raises. Errors that derive from Exception alone (zipfile, safetensors)
# are translated where they arise; MemoryError stands for a size that nobody should have believed.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def blaming(subject: Path | str) -> Iterator[None]:
    """Puts ``subject`` in front of the reason of any error raised inside.

    Blocks nest, so that code which knows only the tensor can sit inside code which knows the file:
    ``pytorch_model.bin: tensor 'a.weight': its storage '3' is missing``.

    Args:
        subject: a path, or words such as ``"tensor 'a.weight'"``.

    Raises:
        CheckpointError: instead of every error that damaged or hostile data can cause.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{subject}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{subject}: {error.strerror or error}") from error
    except _DAMAGE as error:
        reason = f"it is damaged, get it again ({type(error).__name__}: {str(error)[:200]})"
        raise CheckpointError(f"{subject}: {reason}") from error
