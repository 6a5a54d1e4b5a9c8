"""BERT (Devlin et al., 2018) as a causal decoder.

Behaviour matched: transformers 5.23 ``BertLMHeadModel`` with ``is_decoder`` and
``add_cross_attention``.
"""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.family import Family
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import ACTIVATIONS, check_activation
from speech_ed_flax.layers.linear import Dense, Embed, Head
from speech_ed_flax.layers.norm import LayerNorm
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Float, Int, State


@dataclass(frozen=True)
class BertConfig:
    """Shape of a BERT decoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        positions: longest sequence.
        token_types: rows of the token type table; a decoder uses the first.
        tied: whether the output layer is the token embedding.
    """

    layer: LayerConfig
    layers: int
    vocab: int
    positions: int
    token_types: int
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @classmethod
    def from_hf(cls, hf: Any) -> "BertConfig":
        """Reads a ``BertConfig`` of transformers."""
        layer = LayerConfig(
            width=hf.hidden_size,
            heads=hf.num_attention_heads,
            up_width=hf.intermediate_size,
            activation=check_activation("decoder.hidden_act", hf.hidden_act),
            pre_norm=False,
            epsilon=hf.layer_norm_eps,
            dropout=hf.hidden_dropout_prob,
            attention_dropout=hf.attention_probs_dropout_prob,
        )
        return cls(
            layer=layer,
            layers=hf.num_hidden_layers,
            vocab=hf.vocab_size,
            positions=hf.max_position_embeddings,
            token_types=hf.type_vocab_size,
            tied=hf.tie_word_embeddings,
        )


class Bert(Decoder):
    """Post-norm layers, learned absolute positions, and a transform before the output layer."""

    config: BertConfig

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.width)
        self.positions = Embed(config.positions, config.width)
        self.token_types = Embed(config.token_types, config.width)
        self.embedding_norm = LayerNorm(config.layer.epsilon)
        self.drop = Dropout(config.layer.dropout)
        self.transformer = self.make_transformer()
        self.transform = Dense(config.width)
        self.transform_norm = LayerNorm(config.layer.epsilon)
        self.head = Head(config.vocab, config.tied, use_bias=True)

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target width"]:
        """Sums token, position and (first) token type embeddings."""
        x = self.tokens(tokens) + self.positions(positions) + self.token_types.embedding[0]
        return self.drop(self.embedding_norm(x))

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token."""
        x = ACTIVATIONS[self.config.layer.activation](self.transform(x))
        return self.head(self.transform_norm(x), self.tokens.embedding)


_LAYER = "bert.encoder.layer.{}."

NAMES = {
    "tokens": "bert.embeddings.word_embeddings",
    "positions": "bert.embeddings.position_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "transformer/layers_{}/self_attention/query": _LAYER + "attention.self.query",
    "transformer/layers_{}/self_attention/key": _LAYER + "attention.self.key",
    "transformer/layers_{}/self_attention/value": _LAYER + "attention.self.value",
    "transformer/layers_{}/self_attention/out": _LAYER + "attention.output.dense",
    "transformer/layers_{}/self_attention_norm": _LAYER + "attention.output.LayerNorm",
    "transformer/layers_{}/cross_attention/query": _LAYER + "crossattention.self.query",
    "transformer/layers_{}/cross_attention/key": _LAYER + "crossattention.self.key",
    "transformer/layers_{}/cross_attention/value": _LAYER + "crossattention.self.value",
    "transformer/layers_{}/cross_attention/out": _LAYER + "crossattention.output.dense",
    "transformer/layers_{}/cross_attention_norm": _LAYER + "crossattention.output.LayerNorm",
    "transformer/layers_{}/feed_forward/up": _LAYER + "intermediate.dense",
    "transformer/layers_{}/feed_forward/down": _LAYER + "output.dense",
    "transformer/layers_{}/feed_forward_norm": _LAYER + "output.LayerNorm",
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "head": "cls.predictions.decoder",
}

_BIAS, _TIED_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"


def regular(state: State, config: BertConfig) -> State:
    """Keeps one of the two names of the output bias."""
    del config
    bias = state.get(_TIED_BIAS, state.get(_BIAS))
    rest = {name: tensor for name, tensor in state.items() if name not in (_BIAS, _TIED_BIAS)}
    return rest if bias is None else rest | {_TIED_BIAS: bias}


def irregular(state: State, config: BertConfig) -> State:
    """Writes the output bias as PyTorch does: twice if the output layer is not tied."""
    bias = {_BIAS: state[_TIED_BIAS]}
    if config.tied:
        state = {name: tensor for name, tensor in state.items() if name != _TIED_BIAS}
    return state | bias


BERT = Family(
    config=BertConfig,
    module=Bert,
    names=NAMES,
    aliases=((r"^(?!bert\.|cls\.)", "bert."),),
    unused=(
        r"^bert\.pooler\.",
        r"^cls\.seq_relationship\.",
        r"\.position_ids$",
        r"^bert\.(classifier|qa_outputs)\.",
    ),
    fresh=(r"/cross_attention(_norm)?/", r"^(transform|transform_norm|head)/"),
    tied=("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    regular=regular,
    irregular=irregular,
)
