"""The command ``train``: a configuration and data in, a model out."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from speech_ed_flax.commands.outcome import Outcome


def train(
    *changes: Annotated[str, Parameter(allow_leading_hyphen=True)],
    config: Annotated[Path, Parameter(alias="-c")],
    output_dir: Annotated[Path, Parameter(alias="-o")],
    resume: Literal["auto", "never", "must"] = "auto",
    print_config: bool = False,
) -> int:
    """Train a model, or go on with a training that was interrupted.

    Any setting of the configuration can be changed on the command line, as in
    --optimizer.learning-rate 3e-4 or --data.workers=2.
    SIGTERM and Ctrl-C save a checkpoint first and end with 75; the same command goes on from it.

    Args:
        changes: Settings of the configuration, by their dotted names.
        config: YAML file; configs/ has examples, and --print-config shows every setting.
        output_dir: Folder of the training; the model comes to be in its folder "best".
        resume: Whether to go on with a training that is in the folder.
        print_config: Only print the whole configuration, defaults included.
    """
    from speech_ed_flax.settings import read_settings, to_yaml
    from speech_ed_flax.training.config import TrainConfig

    settings = read_settings(TrainConfig, config, changes)
    if print_config:
        print(to_yaml(settings), end="")
        return Outcome.DONE
    from speech_ed_flax.commands.process import settle
    from speech_ed_flax.training.distributed import initialise_distributed
    from speech_ed_flax.training.loop import Ending
    from speech_ed_flax.training.loop import train as run

    initialise_distributed()
    settle()
    ending = run(settings, output_dir, resume)
    return Outcome.PREEMPTED if ending is Ending.PREEMPTED else Outcome.DONE
