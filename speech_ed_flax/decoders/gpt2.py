"""GPT-2 (Radford et al., 2019) with cross-attention.

Behaviour matched: transformers 5.23 ``GPT2LMHeadModel`` with ``add_cross_attention``.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from speech_ed_flax.family import Family
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Embed, Head
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Float, Int, State


@dataclass(frozen=True)
class GPT2Config:
    """Shape of a GPT-2 decoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        positions: longest sequence.
        embedding_dropout: rate after the embeddings.
        tied: whether the output layer is the token embedding.
    """

    layer: LayerConfig
    layers: int
    vocab: int
    positions: int
    embedding_dropout: float
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @classmethod
    def from_hf(cls, hf: Any) -> "GPT2Config":
        """Reads a ``GPT2Config`` of transformers.

        ``reorder_and_upcast_attn`` needs no field: scores are always computed in float32 here.
        """
        layer = LayerConfig(
            width=hf.n_embd,
            heads=hf.n_head,
            up_width=hf.n_inner if hf.n_inner is not None else 4 * hf.n_embd,
            activation=check_activation("decoder.activation_function", hf.activation_function),
            pre_norm=True,
            epsilon=hf.layer_norm_epsilon,
            scaled=hf.scale_attn_weights,
            scaled_by_depth=hf.scale_attn_by_inverse_layer_idx,
            dropout=hf.resid_pdrop,
            attention_dropout=hf.attn_pdrop,
        )
        return cls(
            layer=layer,
            layers=hf.n_layer,
            vocab=hf.vocab_size,
            positions=hf.n_positions,
            embedding_dropout=hf.embd_pdrop,
            tied=hf.tie_word_embeddings,
        )


class GPT2(Decoder):
    """Pre-norm layers and learned absolute positions."""

    config: GPT2Config

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.width)
        self.positions = Embed(config.positions, config.width)
        self.drop = Dropout(config.embedding_dropout)
        self.transformer = self.make_transformer()
        self.head = Head(config.vocab, config.tied)

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target width"]:
        """Sums token and position embeddings."""
        return self.drop(self.tokens(tokens) + self.positions(positions))

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token."""
        return self.head(x, self.tokens.embedding)


_LAYER = "transformer.h.{}."

NAMES = {
    "tokens": "transformer.wte",
    "positions": "transformer.wpe",
    "transformer/norm": "transformer.ln_f",
    "transformer/layers_{}/self_attention/query": _LAYER + "attn.query",
    "transformer/layers_{}/self_attention/key": _LAYER + "attn.key",
    "transformer/layers_{}/self_attention/value": _LAYER + "attn.value",
    "transformer/layers_{}/self_attention/out": _LAYER + "attn.c_proj",
    "transformer/layers_{}/self_attention_norm": _LAYER + "ln_1",
    "transformer/layers_{}/cross_attention/query": _LAYER + "crossattention.q_attn",
    "transformer/layers_{}/cross_attention/key": _LAYER + "crossattention.key",
    "transformer/layers_{}/cross_attention/value": _LAYER + "crossattention.value",
    "transformer/layers_{}/cross_attention/out": _LAYER + "crossattention.c_proj",
    "transformer/layers_{}/cross_attention_norm": _LAYER + "ln_cross_attn",
    "transformer/layers_{}/feed_forward/up": _LAYER + "mlp.c_fc",
    "transformer/layers_{}/feed_forward/down": _LAYER + "mlp.c_proj",
    "transformer/layers_{}/feed_forward_norm": _LAYER + "ln_2",
    "head": "lm_head",
}

_PARTS = {".attn.c_attn.": ("query", "key", "value"), ".crossattention.c_attn.": ("key", "value")}
_CONV1D = re.compile(r"\.(c_attn|q_attn|c_proj|c_fc)\.weight$")


def regular(state: State, config: GPT2Config) -> State:
    """Splits the fused projections and turns ``Conv1D`` weights ``[in, out]`` into ``Linear``'s."""
    del config
    result: State = {}
    for name, tensor in state.items():
        fused = next((key for key in _PARTS if key in name), None)
        tensor = tensor.T if _CONV1D.search(name) else tensor
        if fused is None:
            result[name] = tensor
            continue
        for part, piece in zip(_PARTS[fused], np.split(tensor, len(_PARTS[fused])), strict=True):
            result[name.replace("c_attn", part)] = piece
    return result


def irregular(state: State, config: GPT2Config) -> State:
    """Fuses what ``regular`` split, and turns the weights back."""
    del config
    result = dict(state)
    for fused, parts in _PARTS.items():
        first = fused.replace("c_attn", parts[0])
        for name in [name for name in state if first in name]:
            pieces = [result.pop(name.replace(first, fused.replace("c_attn", p))) for p in parts]
            result[name.replace(first, fused)] = np.concatenate(pieces)
    return {name: t.T if _CONV1D.search(name) else t for name, t in result.items()}


GPT2_FAMILY = Family(
    config=GPT2Config,
    module=GPT2,
    names=NAMES,
    aliases=((r"^(?!transformer\.|lm_head\.)", "transformer."),),
    unused=(r"\.(attn|crossattention)\.(bias|masked_bias)$", r"^(score|multiple_choice_head)\."),
    fresh=(r"/cross_attention(_norm)?/",),
    tied=("lm_head.weight", "transformer.wte.weight"),
    regular=regular,
    irregular=irregular,
)
