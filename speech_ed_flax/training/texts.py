"""Texts to labels, as the decoder of a model is taught them."""

from collections.abc import Sequence
from typing import Any

from speech_ed_flax.errors import ConfigError


def encode_texts(texts: Sequence[str], tokenizer: Any, config: Any) -> list[list[int]]:
    """Returns the labels of each text: its tokens, then the end token.

    A start token that the tokenizer puts in front is left out where it is the one that the decoder
    reads first anyway (as transformers' example scripts do), and an end token is added where the
    tokenizer has none: a model that never sees one never stops.

    Args:
        texts: transcripts or translations.
        tokenizer: of transformers; None if the model has none.
        config: a ``SpeechEncoderDecoderConfig``.

    Raises:
        ConfigError: if there is no tokenizer.
    """
    if tokenizer is None:
        raise ConfigError("the model has no tokenizer: name one as model.tokenizer.")
    end, start = config.eos_token_id, config.decoder_start_token_id
    if isinstance(end, list):
        end = end[0]
    encoded = tokenizer(list(texts)).input_ids if texts else []
    labels = []
    for tokens in encoded:
        tokens = tokens[1:] if tokens[:1] == [start] and start != end else tokens
        tokens = tokens[1:] if len(tokens) > 1 and tokens[0] == start == end else tokens
        labels.append(tokens if tokens[-1:] == [end] else [*tokens, end])
    return labels


def silent_tokens(tokenizer: Any, blank: int) -> tuple[int, ...]:
    """Returns the special tokens, which nobody speaks and CTC does without, but for its blank."""
    unspoken = set(tokenizer.all_special_ids) - {blank, tokenizer.unk_token_id}
    return tuple(sorted(unspoken))
