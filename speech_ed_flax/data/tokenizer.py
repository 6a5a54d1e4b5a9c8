"""Vocabularies made from transcripts, as tokenizers that transformers loads."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from speech_ed_flax.errors import ConfigError

Kind = Literal["bpe", "unigram", "char", "word"]

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""Padding (and the blank of CTC), start, end and what is not known: ids 0, 1, 2 and 3."""


_LETTER_STEP = 1e-4
"""Between the scores that the trainer of unigrams gives to such characters."""


def train_tokenizer(
    texts: Iterable[str], kind: str, size: int | None = None, *, lower: bool = False
) -> Any:
    """Makes a tokenizer of transcripts; the same one for the same transcripts.

    What it encodes ends with ``</s>``, as labels must, and has no start: the model puts that there.
    What it decodes is the text that was encoded, with single spaces between words.

    Args:
        texts: the transcripts.
        kind: "bpe" or "unigram" for pieces of words, "char" for characters, "word" for words.
        size: most tokens, special ones included; "char" and "word" may do without.
        lower: whether text is put in lower case.

    Returns:
        A ``PreTrainedTokenizerFast`` of transformers.

    Raises:
        ConfigError: naming the argument that is wrong, or that there is no text.
    """
    if kind not in _TRAINERS:
        raise ConfigError(f"kind={kind!r} is not known: use one of {', '.join(_TRAINERS)}.")
    normalizer = _normalizer(lower)
    lines = [line for line in map(normalizer.normalize_str, texts) if line]
    if not lines:
        raise ConfigError("there is no text to make a tokenizer of: give transcripts with words.")
    tokenizer = _TRAINERS[kind](lines, _checked_size(lines, kind, size))
    tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    end = SPECIAL[2]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, SPECIAL.index(end))]
    )
    return _wrap(tokenizer)


def _normalizer(lower: bool) -> Any:
    """Composes letters with their accents, and leaves single spaces between words."""
    steps: list[Any] = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " ")]
    steps += [normalizers.Strip(), *([normalizers.Lowercase()] if lower else [])]
    return normalizers.Sequence(steps)


def _checked_size(lines: Sequence[str], kind: str, size: int | None) -> int | None:
    if size is None:
        if kind in ("bpe", "unigram"):
            raise ConfigError(f"size: a tokenizer of kind {kind!r} needs one, such as 1000.")
        return None
    # Pieces need every character, the mark of a space among them, to write all of the text.
    letters = set("".join(lines)) if kind in ("bpe", "unigram") else set("-")
    fewest = len(SPECIAL) + len(letters | {" "})
    if size < fewest:
        raise ConfigError(
            f"size={size} is too small: {len(SPECIAL)} special tokens and {len(letters | {' '})} "
            f"characters need {fewest} at least."
        )
    return size


def _wrap(tokenizer: Tokenizer) -> Any:
    from transformers import PreTrainedTokenizerFast

    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )


def _bpe(lines: Sequence[str], size: int | None) -> Tokenizer:
    tokenizer = _of_pieces(models.BPE(unk_token=SPECIAL[3]))
    return _train(tokenizer, trainers.BpeTrainer, lines, size)


def _unigram(lines: Sequence[str], size: int | None) -> Tokenizer:
    tokenizer = _of_pieces(models.Unigram())
    _train(tokenizer, trainers.UnigramTrainer, lines, size, unk_token=SPECIAL[3])
    trained = json.loads(tokenizer.to_str())["model"]
    tokenizer.model = models.Unigram(_settled(trained["vocab"]), trained["unk_id"])
    return tokenizer


def _settled(vocab: list[list[Any]]) -> list[tuple[str, float]]:
    """Returns the pieces of a unigram model as they would be, had its trainer one order of words.

    The trainer walks through a hash table: its sums differ in the last digits, and characters that
    did not become pieces by themselves are given the lowest scores in any order.
    """
    entries: list[tuple[str, float]] = [(piece, score) for piece, score in vocab]
    special, pieces = entries[: len(SPECIAL)], dict(entries[len(SPECIAL) :])
    letters = sorted(piece for piece in pieces if len(piece) == 1)
    highest = min(pieces.values()) + _LETTER_STEP * len(letters)
    last = [letter for letter in letters if pieces[letter] <= highest]
    pieces |= zip(last, sorted(pieces[letter] for letter in last), strict=True)
    rounded = ((piece, round(score, 6)) for piece, score in pieces.items())
    return special + sorted(rounded, key=lambda entry: (-entry[1], entry[0]))


def _of_pieces(model: Any) -> Tokenizer:
    """Returns an untrained tokenizer whose pieces carry the space before them."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def _train(
    tokenizer: Tokenizer, trainer: Callable, lines: Sequence[str], size: int | None, **fields: Any
) -> Tokenizer:
    with _one_thread():
        made = trainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False, **fields)
        tokenizer.train_from_iterator(lines, made)
    return tokenizer


@contextmanager
def _one_thread() -> Iterator[None]:
    """Trains on one thread: sums of floats depend on the order in which threads end."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _char(lines: Sequence[str], size: int | None) -> Tokenizer:
    tokenizer = Tokenizer(_most_frequent(Counter("".join(lines)), size))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _word(lines: Sequence[str], size: int | None) -> Tokenizer:
    counts = Counter(word for line in lines for word in line.split())
    tokenizer = Tokenizer(_most_frequent(counts, size))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _most_frequent(counts: Counter[str], size: int | None) -> models.WordLevel:
    """Returns a model of the most frequent units; of equally frequent ones the first by name."""
    ranked = sorted(counts, key=lambda unit: (-counts[unit], unit))
    kept = (*SPECIAL, *(unit for unit in ranked if unit not in SPECIAL))[:size]
    return models.WordLevel({unit: at for at, unit in enumerate(kept)}, unk_token=SPECIAL[3])


_TRAINERS: dict[str, Callable[[Sequence[str], int | None], Tokenizer]] = {
    "bpe": _bpe,
    "unigram": _unigram,
    "char": _char,
    "word": _word,
}
