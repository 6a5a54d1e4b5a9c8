"""Libraries that the core installation does without."""

from importlib import import_module
from types import ModuleType

from speech_ed_flax.errors import ConfigError


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional dependency.

    Args:
        module: its full name.
        extra: of this package, which installs it.

    Raises:
        ConfigError: it is not installed; the message names the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is installed, and lacks something itself
        library = module.partition(".")[0]
        raise ConfigError(
            f"{library} is not installed: run pip install 'speech_ed_flax[{extra}]'."
        ) from error
