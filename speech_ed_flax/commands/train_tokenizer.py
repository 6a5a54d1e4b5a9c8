"""The command ``train-tokenizer``: transcripts in, a vocabulary out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from speech_ed_flax.commands.outcome import Outcome, UsageError, refuse_overwriting


def train_tokenizer(
    paths: list[Path],
    /,
    *,
    kind: Literal["bpe", "unigram", "char", "word"] = "bpe",
    size: int | None = None,
    lower: bool = False,
    force: bool = False,
) -> int:
    """Make a tokenizer of the texts of manifests: MANIFEST... OUT.

    Manifests are .jsonl, .tsv, .csv or .parquet files, folders that prepare wrote, or .txt
    files with a text on each line. Rows that cannot be used are left out and
    counted. The same texts make the same tokenizer.

    Args:
        paths: Manifests, and last the folder to write.
        kind: Pieces of words (bpe, unigram), characters or words.
        size: Most tokens, special ones included; char and word may do without.
        lower: Put all text in lower case.
        force: Write into a folder that is not empty.
    """
    from speech_ed_flax.data.tokenizer import train_tokenizer as train
    from speech_ed_flax.staging import staging

    *manifests, destination = paths
    if not manifests:
        raise UsageError(f"{destination}: name manifests first, and last the folder to write.")
    destination = destination.expanduser().resolve()
    refuse_overwriting(destination, force)
    texts = [text for manifest in manifests for text in _texts(manifest)]
    tokenizer = train(texts, kind, size, lower=lower)
    with staging(destination) as folder:
        tokenizer.save_pretrained(folder)
    tokens = sum(map(len, tokenizer(texts).input_ids))
    print(
        f"{destination}: {kind}, {len(tokenizer)} tokens; {len(texts)} texts of "
        f"{tokens / len(texts):.1f} tokens on average"
    )
    return Outcome.DONE


def _texts(path: Path) -> Iterator[str]:
    """Yields the texts of a manifest, a prepared folder or a file of lines."""
    from speech_ed_flax.commands.utterances import find_utterances

    if path.suffix == ".txt":
        yield from path.read_text("utf-8").splitlines()
        return
    found = find_utterances(path)
    if found.faults:
        left_out = f"{len(found.faults)} rows left out, the first: {found.faults[0]}"
        print(f"warning: {path}: {left_out}", file=sys.stderr)
    yield from (utterance.text for utterance in found.utterances)
