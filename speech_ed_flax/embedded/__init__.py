"""The model that comes with the package: for a first try, and where there is no network.

Its card, beside this file, says what it hears, how often it errs, and what it was trained on.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
"""A checkpoint folder like any other."""

HEARS = "English letters, digits, numbers, dates and a few commands"
"""What it was taught, in words for its users."""
