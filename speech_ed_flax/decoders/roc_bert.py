"""RoCBert (Su et al., 2022) as a causal decoder.

Behaviour matched: transformers 5.23 ``RoCBertForCausalLM`` with ``is_decoder`` and
``add_cross_attention``, given tokens alone: every token then has the first shape and the first
pronunciation of their tables, padding's.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from speech_ed_flax.layers.bert import BertLike, BertLikeConfig
from speech_ed_flax.layers.bert_family import PREDICTIONS, bert_family, bert_names
from speech_ed_flax.layers.linear import Dense, Embed, embed_tokens


@dataclass(frozen=True, kw_only=True)
class RoCBertConfig(BertLikeConfig):
    """Shape of a RoCBert decoder.

    Attributes:
        shapes: rows and width of the table of what characters look like.
        pronunciations: rows and width of the table of what they sound like.
        merged: which of the two, by the names above, a dense layer merges into the tokens; None:
            no such layer, and tokens stand alone.
    """

    shapes: tuple[int, ...]
    pronunciations: tuple[int, ...]
    merged: tuple[str, ...] | None

    @classmethod
    def from_hf(cls, hf: Any) -> "RoCBertConfig":
        """Reads a ``RoCBertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        enabled = {"shapes": hf.enable_shape, "pronunciations": hf.enable_pronunciation}
        merged = tuple(name for name in enabled if enabled[name])
        return cls(
            **cls.shared(hf),
            shapes=(hf.shape_vocab_size, hf.shape_embed_dim),
            pronunciations=(hf.pronunciation_vocab_size, hf.pronunciation_embed_dim),
            merged=merged if hf.concat_input else None,
        )


class RoCBert(BertLike):
    """BERT that could be told how characters look and sound.

    Both tables are in every checkpoint, whether or not anything reads them.
    """

    config: RoCBertConfig

    def setup(self):
        """Creates the modules."""
        super().setup()
        rows, width = self.config.shapes
        self.shapes = Embed(rows, width)
        rows, width = self.config.pronunciations
        self.pronunciations = Embed(rows, width)
        if self.config.merged is not None:
            self.merge = Dense(self.config.width)

    def look_up(self, tokens):
        """Returns the embeddings of tokens of no particular shape and pronunciation."""
        first = jnp.zeros_like(tokens)
        tables = {"shapes": self.shapes, "pronunciations": self.pronunciations}
        found = {n: embed_tokens(t, first, self.config.padding) for n, t in tables.items()}
        x = super().look_up(tokens)
        if self.config.merged is None:
            return x
        return self.merge(jnp.concatenate([x, *(found[n] for n in self.config.merged)], axis=-1))


_EMBEDDINGS = "roc_bert.embeddings."
_MERGED = {
    "shapes": _EMBEDDINGS + "shape_embed",
    "pronunciations": _EMBEDDINGS + "pronunciation_embed",
    "merge": _EMBEDDINGS + "map_inputs_layer",
}

ROC_BERT = bert_family(
    "roc_bert",
    RoCBertConfig,
    bert_names("roc_bert") | PREDICTIONS | _MERGED,
    module=RoCBert,
    bias="cls.predictions.bias",
)
