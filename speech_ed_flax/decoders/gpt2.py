"""GPT-2 (Radford et al., 2019) and GPT-BigCode (Ben Allal et al., 2023) with cross-attention.

Behaviour matched: transformers 5.23 ``GPT2LMHeadModel`` with ``add_cross_attention``, and
``GPTBigCodeForCausalLM``. The latter's cross-attention raises there in any setting. Here it does
what its parameters are for: it has all heads, and the keys and values of a head follow each other.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    """Shape of a GPT-2 or GPT-BigCode decoder.

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
        """Reads a ``GPT2Config`` or a ``GPTBigCodeConfig`` of transformers.

        ``reorder_and_upcast_attn``, ``attention_softmax_in_fp32`` and
        ``scale_attention_softmax_in_fp32`` need no field: scores are always in float32 here.
        """
        bigcode = hf.model_type == "gpt_bigcode"
        layer = LayerConfig(
            width=hf.n_embd,
            heads=hf.n_head,
            up_width=hf.n_inner if hf.n_inner is not None else 4 * hf.n_embd,
            activation=check_activation("decoder.activation_function", hf.activation_function),
            pre_norm=True,
            epsilon=hf.layer_norm_epsilon,
            scaled=hf.scale_attn_weights,
            scaled_by_depth=not bigcode and hf.scale_attn_by_inverse_layer_idx,
            dropout=hf.resid_pdrop,
            attention_dropout=hf.attn_pdrop,
            kv_heads=1 if bigcode and hf.multi_query else None,
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

Layout = Callable[[str, GPT2Config], tuple[int, tuple[int, ...]]]
"""Tells of a fused projection, a key of ``_PARTS``, in how many blocks of which parts it lies."""


def _one_block(fused: str, config: GPT2Config) -> tuple[int, tuple[int, ...]]:
    """Lays out GPT-2's fused projections: all queries, all keys, all values."""
    return 1, (config.width,) * len(_PARTS[fused])


def _block_of_each_head(fused: str, config: GPT2Config) -> tuple[int, tuple[int, ...]]:
    """Lays out GPT-BigCode's: head by head, unless all heads of queries share one of keys."""
    heads = config.layer.heads
    size = config.width // heads
    if config.layer.kv_heads == 1 and fused == ".attn.c_attn.":
        return 1, (config.width, size, size)
    return heads, (size,) * len(_PARTS[fused])


def _split(state: State, config: GPT2Config, layout: Layout) -> State:
    """Splits the fused projections; one that does not fit the config stays as it is."""
    result: State = {}
    for name, tensor in state.items():
        fused = next((key for key in _PARTS if key in name), None)
        blocks, sizes = layout(fused, config) if fused else (0, ())
        if fused is None or len(tensor) != blocks * sum(sizes):
            result[name] = tensor
            continue
        pieces = np.split(tensor.reshape(blocks, sum(sizes), -1), np.cumsum(sizes)[:-1], axis=1)
        for part, piece in zip(_PARTS[fused], pieces, strict=True):
            result[name.replace("c_attn", part)] = piece.reshape(-1, *tensor.shape[1:])
    return result


def _fuse(state: State, config: GPT2Config, layout: Layout) -> State:
    """Undoes ``_split``."""
    result = dict(state)
    for fused, parts in _PARTS.items():
        blocks, _ = layout(fused, config)
        first = fused.replace("c_attn", parts[0])
        for name in [name for name in state if first in name]:
            pieces = [result.pop(name.replace(first, fused.replace("c_attn", p))) for p in parts]
            inner = pieces[0].shape[1:]
            whole = np.concatenate([piece.reshape(blocks, -1, *inner) for piece in pieces], axis=1)
            result[name.replace(first, fused)] = whole.reshape(-1, *inner)
    return result


def _turn(state: State) -> State:
    """Turns ``Conv1D`` weights ``[in, out]`` into ``Linear``'s, and back."""
    return {name: t.T if _CONV1D.search(name) else t for name, t in state.items()}


GPT2_FAMILY = Family(
    config=GPT2Config,
    module=GPT2,
    names=NAMES,
    aliases=((r"^(?!transformer\.|lm_head\.)", "transformer."),),
    unused=(r"\.(attn|crossattention)\.(bias|masked_bias)$", r"^(score|multiple_choice_head)\."),
    fresh=(r"/cross_attention(_norm)?/",),
    tied=("lm_head.weight", "transformer.wte.weight"),
    regular=lambda state, config: _split(_turn(state), config, _one_block),
    irregular=lambda state, config: _turn(_fuse(state, config, _one_block)),
)

GPT_BIGCODE = replace(
    GPT2_FAMILY,
    regular=lambda state, config: _split(state, config, _block_of_each_head),
    irregular=lambda state, config: _fuse(state, config, _block_of_each_head),
)
