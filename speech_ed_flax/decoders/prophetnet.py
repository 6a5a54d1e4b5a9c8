"""The decoder of ProphetNet (Qi et al., 2020).

Behaviour matched: transformers 5.23 ``ProphetNetForCausalLM`` as it generates, token by token.
Given several tokens at once, upstream takes the relative biases of predicting states from other
heads and positions, later ones among them: a reshape that went wrong after the published models
were trained. Here all tokens at once score what they score one by one.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Embed, Head
from speech_ed_flax.layers.ngram import NgramDecoder, NgramLayerConfig
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.types import Array, Float, Int, State


@dataclass(frozen=True)
class ProphetNetConfig:
    """Shape of a ProphetNet decoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        positions: longest sequence.
        position_offset: rows of the position table before that of the first predicting state.
        ngram: tokens that the checkpoint can predict at once; one is predicted here.
        tied: whether the output layer is the token embedding.
    """

    layer: NgramLayerConfig
    layers: int
    vocab: int
    positions: int
    position_offset: int
    ngram: int
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @classmethod
    def from_hf(cls, hf: Any) -> "ProphetNetConfig":
        """Reads a ``ProphetNetConfig`` of transformers.

        ``disable_ngram_loss`` and ``eps`` need no field: a joint model has the usual loss.

        Raises:
            ConfigError: naming the field that is missing or not supported.
        """
        if hf.pad_token_id is None:
            raise ConfigError("decoder.pad_token_id is not set: positions are counted from it.")
        if not 2 <= hf.num_buckets < 2 * hf.relative_max_distance:
            raise ConfigError(
                f"decoder.num_buckets={hf.num_buckets} is not supported: there must be 2 at least, "
                f"and fewer than twice relative_max_distance={hf.relative_max_distance}."
            )
        layer = NgramLayerConfig(
            width=hf.hidden_size,
            heads=hf.num_decoder_attention_heads,
            up_width=hf.decoder_ffn_dim,
            activation=check_activation("decoder.activation_function", hf.activation_function),
            pre_norm=False,
            dropout=hf.dropout,
            attention_dropout=hf.attention_dropout,
            activation_dropout=hf.activation_dropout,
            buckets=hf.num_buckets,
            farthest=hf.relative_max_distance,
        )
        offset = hf.pad_token_id + 2
        return cls(
            layer=layer,
            layers=hf.num_decoder_layers,
            vocab=hf.vocab_size,
            positions=hf.max_position_embeddings - offset,
            position_offset=offset,
            ngram=hf.ngram,
            tied=hf.tie_word_embeddings,
        )


class ProphetNet(Decoder):
    """Post-norm layers of two states a token; the one that stands a position ahead is scored."""

    config: ProphetNetConfig

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.width)
        self.positions = Embed(config.positions + config.position_offset, config.width)
        self.predictions = Embed(config.ngram, config.width)
        self.embedding_norm = LayerNorm(TORCH_EPSILON)
        self.drop = Dropout(config.layer.dropout)
        self.transformer = self.make_transformer()
        self.head = Head(config.vocab, config.tied)

    def make_transformer(self) -> NgramDecoder:
        """Returns the stack that ``config`` describes."""
        return NgramDecoder(self.config.layer, self.config.layers)

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target states"]:
        """Embeds each token where it stands, and a prediction one position ahead of it."""
        ahead = positions + self.config.position_offset
        main = self.tokens(tokens) + self.positions(ahead - 1)
        # The row of the next token is the last one, behind those of later tokens.
        predicting = self.positions(ahead) + self.predictions.embedding[-1]
        x = jnp.stack([main, jnp.broadcast_to(predicting, main.shape)], axis=2)
        return self.drop(self.embedding_norm(x)).reshape(*tokens.shape, -1)

    def score(self, x: Float[Array, "rows target states"]) -> Float[Array, "rows target vocab"]:
        """Scores every token by the predicting states."""
        return self.head(x[..., self.config.width :], self.tokens.embedding)


_DECODER = "prophetnet.decoder."
_LAYER = _DECODER + "layers.{}."
_TOKENS, _OWN_TOKENS = "prophetnet.word_embeddings.weight", _DECODER + "word_embeddings.weight"

NAMES = {
    "tokens": "prophetnet.word_embeddings",
    "positions": _DECODER + "position_embeddings",
    "predictions": _DECODER + "ngram_embeddings",
    "embedding_norm": _DECODER + "embeddings_layer_norm",
    "transformer/layers_{}/self_attention/query": _LAYER + "self_attn.query_proj",
    "transformer/layers_{}/self_attention/key": _LAYER + "self_attn.key_proj",
    "transformer/layers_{}/self_attention/value": _LAYER + "self_attn.value_proj",
    "transformer/layers_{}/self_attention/out": _LAYER + "self_attn.out_proj",
    "transformer/layers_{}/self_attention/relative": _LAYER + "self_attn.relative_pos_embeddings",
    "transformer/layers_{}/self_attention_norm": _LAYER + "self_attn_layer_norm",
    "transformer/layers_{}/cross_attention/query": _LAYER + "cross_attn.query_proj",
    "transformer/layers_{}/cross_attention/key": _LAYER + "cross_attn.key_proj",
    "transformer/layers_{}/cross_attention/value": _LAYER + "cross_attn.value_proj",
    "transformer/layers_{}/cross_attention/out": _LAYER + "cross_attn.out_proj",
    "transformer/layers_{}/cross_attention_norm": _LAYER + "cross_attn_layer_norm",
    "transformer/layers_{}/feed_forward/up": _LAYER + "feed_forward.intermediate",
    "transformer/layers_{}/feed_forward/down": _LAYER + "feed_forward.output",
    "transformer/layers_{}/feed_forward_norm": _LAYER + "feed_forward_layer_norm",
    "head": "lm_head",
}


def regular(state: State, config: ProphetNetConfig) -> State:
    """Keeps one of the two token embeddings: the decoder's, which is the one that is read."""
    del config
    rest = {name: tensor for name, tensor in state.items() if name != _OWN_TOKENS}
    return rest | {_TOKENS: state[_OWN_TOKENS]} if _OWN_TOKENS in state else rest


def irregular(state: State, config: ProphetNetConfig) -> State:
    """Writes the token embedding as PyTorch does: twice if nothing is tied."""
    return state if config.tied else state | {_OWN_TOKENS: state[_TOKENS]}


PROPHETNET = Family(
    config=ProphetNetConfig,
    module=ProphetNet,
    names=NAMES,
    aliases=(
        (r"^(layers|(position|ngram)_embeddings|embeddings_layer_norm)\.", r"decoder.\g<0>"),
        (r"^(?!prophetnet\.|lm_head\.)", "prophetnet."),
    ),
    unused=(r"^prophetnet\.encoder\.",),
    fresh=(r"/cross_attention(_norm)?/", r"^head/"),
    tied=("lm_head.weight", _TOKENS),
    regular=regular,
    irregular=irregular,
)
