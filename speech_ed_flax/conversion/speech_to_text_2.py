"""What transformers 5 dropped of Speech2Text2: its configuration and its tokenizer.

``register`` gives them back to ``AutoConfig`` and ``AutoTokenizer``, so that the folders of
``facebook/s2t-wav2vec2-large-en-*`` are read as any other. Behaviour matched: transformers 4.57.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, no_type_check

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizer

_CONTINUES = "@@"
"""Ends a token that is not the last of its word."""

_WORD_END = "</w>"
"""Ends a word in the rules by which characters are merged."""


@no_type_check  # it takes more fields than its signature says, and checks those itself
@strict
class Speech2Text2Config(PreTrainedConfig):
    """The decoder's settings, with the defaults of the class that transformers had."""

    model_type = "speech_to_text_2"
    attribute_map = {  # noqa: RUF012 (declared so by the class above)
        "num_attention_heads": "decoder_attention_heads",
        "hidden_size": "d_model",
    }

    vocab_size: int = 10000
    d_model: int = 256
    decoder_layers: int = 6
    decoder_attention_heads: int = 4
    decoder_ffn_dim: int = 2048
    decoder_layerdrop: float | int = 0.0
    activation_function: str = "relu"
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    init_std: float = 0.02
    scale_embedding: bool = True
    max_target_positions: int = 1024
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 2


class Speech2Text2Tokenizer(PreTrainedTokenizer):
    """Byte-pair encoding of fastBPE (Sennrich et al., 2016): pieces within a word end in ``@@``.

    A piece that the vocabulary lacks is unknown: rare ones were dropped from it, though the merges
    still make them. ``tokenizers`` has no such model.
    """

    vocab_files_names = {  # noqa: RUF012 (declared so by the class above)
        "vocab_file": "vocab.json",
        "merges_file": "merges.txt",
    }
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str,
        merges_file: str | None = None,
        do_lower_case: bool = False,
        bos_token: Any = "<s>",
        pad_token: Any = "<pad>",
        eos_token: Any = "</s>",
        unk_token: Any = "<unk>",
        **fields: Any,
    ):
        self.vocab: dict[str, int] = json.loads(Path(vocab_file).read_text("utf-8"))
        self.words = {index: token for token, index in self.vocab.items()}
        self.merges = None if merges_file is None else _read_merges(Path(merges_file))
        self.do_lower_case = do_lower_case
        self._split: dict[str, list[str]] = {}
        super().__init__(
            do_lower_case=do_lower_case,
            bos_token=bos_token,
            pad_token=pad_token,
            eos_token=eos_token,
            unk_token=unk_token,
            **fields,
        )

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, added ones excluded."""
        return len(self.vocab)

    def get_vocab(self) -> dict[str, int]:
        """Returns the ids of all tokens."""
        return self.vocab | self.added_tokens_encoder

    def _tokenize(self, text: str, **unread: Any) -> list[str]:
        if self.merges is None:
            raise ValueError("the folder has no merges.txt: its tokenizer reads tokens, not text.")
        words = (text.lower() if self.do_lower_case else text).split()
        for word in words:
            if word not in self._split:
                *inner, last = _merged([*word[:-1], word[-1] + _WORD_END], self.merges)
                pieces = [piece + _CONTINUES for piece in inner]
                self._split[word] = [*pieces, last.removesuffix(_WORD_END)]
        return [piece for word in words for piece in self._split[word]]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.vocab.get(token, self.vocab.get(str(self.unk_token)))

    def _convert_id_to_token(self, index: int) -> str:
        return self.words.get(index, str(self.unk_token))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Joins the pieces of each word, and words by spaces."""
        return " ".join(tokens).replace(_CONTINUES + " ", "")

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Writes ``vocab.json`` and ``merges.txt``; returns their paths."""
        vocab, merges = (
            Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}{name}"
            for name in self.vocab_files_names.values()
        )
        vocab.write_text(json.dumps(self.vocab, ensure_ascii=False), "utf-8")
        if self.merges is None:
            return (str(vocab),)
        merges.write_text("".join(f"{left} {right}\n" for left, right in self.merges), "utf-8")
        return str(vocab), str(merges)


def _read_merges(path: Path) -> dict[tuple[str, str], int]:
    """Returns the rank of each pair that is merged; what follows a pair is how often it was met."""
    lines = path.read_text("utf-8").split("\n")
    pairs = [tuple(line.split()[:2]) for line in lines if line.strip()]
    return {(left, right): rank for rank, (left, right) in enumerate(pairs)}


def _merged(pieces: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """Merges neighbours, those of the lowest rank first, until no two of them can be."""
    while known := [pair for pair in pairwise(pieces) if pair in merges]:
        best = min(known, key=lambda pair: merges[pair])
        merged: list[str] = []
        index = 0
        while index < len(pieces):
            size = 2 if tuple(pieces[index : index + 2]) == best else 1
            merged.append("".join(pieces[index : index + size]))
            index += size
        pieces = merged
    return pieces


def register() -> None:
    """Makes ``AutoConfig`` and ``AutoTokenizer`` know Speech2Text2."""
    AutoConfig.register(Speech2Text2Config.model_type, Speech2Text2Config, exist_ok=True)
    AutoTokenizer.register(Speech2Text2Config, Speech2Text2Tokenizer, exist_ok=True)
