"""Makes the README's table of families out of the registry and of what the tests found.

pytest tests/parity --junitxml results.xml
python tests/matrix.py results.xml           # fails if the README says something else
python tests/matrix.py results.xml --write   # lets the README say it
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from families import DECODERS, ENCODERS, PAIRS

from speech_ed_flax.decoders import DECODERS as DECODER_FAMILIES
from speech_ed_flax.encoders import ENCODERS as ENCODER_FAMILIES

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- families: tests/matrix.py -->", "<!-- end of families -->"

COLUMNS = {
    "logits, loss": r"outputs|logits_and_loss",
    "gradients": r"gradient",
    "greedy": r"greedy|generated_tokens",
    "beams": r"beams|generated_tokens",
    "export": r"no_bit_has_changed|to_the_bit",
}
"""What the table shows, and the names of the tests that show it."""

PAIR_NAMES = {f"{encoder}-{decoder}": (encoder, decoder) for encoder, decoder in PAIRS}

Found = dict[tuple[str, str, str], list[bool]]
"""Whether the tests passed, by part, model type and column."""


def main() -> int:
    """Checks or writes the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, help="what pytest --junitxml wrote")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    options = parser.parse_args()
    table = render(collect(options.results))
    page = README.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n{table}{END}{after}"
    if options.write:
        README.write_text(new)
    elif new != page:
        print(f"README.md: its table of families is not this one (--write puts it there):\n{table}")
        return 1
    return 0


def collect(path: Path) -> Found:
    """Reads what pytest found."""
    found: Found = defaultdict(list)
    for case in ElementTree.parse(path).iter("testcase"):
        if not case.attrib["classname"].startswith("tests.parity."):
            continue
        passed = not [child for child in case if child.tag in ("failure", "error", "skipped")]
        test, _, parameters = case.attrib["name"].partition("[")
        for part, kind in _halves(case.attrib["classname"], parameters.rstrip("]")):
            for column, pattern in COLUMNS.items():
                if re.search(pattern, test):
                    found[part, kind, column].append(passed)
    return found


def _halves(file: str, parameters: str) -> Iterator[tuple[str, str]]:
    """Yields what halves a test is about: those of its pair, or that its file is named by."""
    for name, (encoder, decoder) in PAIR_NAMES.items():
        if parameters == name or parameters.startswith(f"{name}-"):
            yield "encoder", ENCODERS[encoder].model_type
            yield "decoder", DECODERS[decoder].model_type
    named = file.rpartition(".test_")[2]
    if named in DECODER_FAMILIES:
        yield "decoder", named


def render(found: Found) -> str:
    """Returns the table: a row for every model type of the registry."""
    lines = []
    for part, families in (("encoder", ENCODER_FAMILIES), ("decoder", DECODER_FAMILIES)):
        lines += ["", f"| {part} | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
        for kind in sorted(families):
            cells = [_mark(found.get((part, kind, column), [])) for column in COLUMNS]
            lines.append(f"| `{kind}` | {' | '.join(cells)} |")
    return "\n".join([*lines[1:], "", ""]).removesuffix("\n")


def _mark(passed: list[bool]) -> str:
    return "✓" if passed and all(passed) else "failed" if passed else "untested"


if __name__ == "__main__":
    sys.exit(main())
