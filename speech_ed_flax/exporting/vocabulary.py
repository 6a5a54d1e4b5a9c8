"""The text of every token, for tokenizers whose texts are no more than those in a row."""

from typing import Any

import numpy as np

from speech_ed_flax.generation.stopping import token_texts

_TRIES, _LENGTH = 64, 12


def spelling(tokenizer: Any | None, vocab: int) -> list[str] | None:
    """Returns what each token adds to a text, a character for each of its bytes in UTF-8.

    Special tokens add nothing. The first space of a text is no part of it.

    Args:
        tokenizer: of the decoder, if there is one.
        vocab: tokens that the model scores.

    Returns:
        None if there is no tokenizer, or its texts are not these in a row.
    """
    if tokenizer is None:
        return None
    texts = [*token_texts(tokenizer), *[b""] * vocab][: max(vocab, len(tokenizer))]
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(index for index, token in added if token.special)}
    texts = [b"" if index in special else text for index, text in enumerate(texts)]
    tries = np.random.default_rng(0).integers(0, min(vocab, len(tokenizer)), (_TRIES, _LENGTH))
    for tokens in tries.tolist():
        joined = b"".join(texts[token] for token in tokens).decode(errors="replace")
        if joined.strip() != tokenizer.decode(tokens, skip_special_tokens=True).strip():
            return None
    return [text.decode("latin-1") for text in texts]
