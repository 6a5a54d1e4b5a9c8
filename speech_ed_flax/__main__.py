"""Runs the command line: ``python -m speech_ed_flax``."""

import sys

from speech_ed_flax.cli import main

if __name__ == "__main__":
    sys.exit(main())
