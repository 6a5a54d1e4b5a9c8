"""The decoder that BERT, RoBERTa and their kin have in common, by what sets them apart."""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import ACTIVATIONS, check_activation
from speech_ed_flax.layers.linear import Dense, Embed, Head, embed_tokens
from speech_ed_flax.layers.norm import LayerNorm
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Float, Int


@dataclass(frozen=True, kw_only=True)
class BertLikeConfig:
    """Shape of a decoder of BERT's kind.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        padding: token whose embedding learns nothing as an input, if there is one.
        positions: longest sequence.
        position_offset: rows of the position table before the first position.
        learned_positions: whether there is a position table.
        token_types: rows of the token type table; a decoder uses the first. None: no table.
        embedding_width: of all embeddings.
        embedding_scale: factor of the token embeddings.
        embedding_norm: whether the sum of the embeddings is normalised.
        embedding_projection: whether a dense layer turns it into the width of the layers.
        transform: activation of the dense layer, with a norm, before the output layer; None: the
            output layer reads the last states.
        output_width: of what the output layer reads.
        tied: whether the output layer is the token embedding.
    """

    layer: LayerConfig
    layers: int
    vocab: int
    padding: int | None
    positions: int
    position_offset: int = 0
    learned_positions: bool = True
    token_types: int | None = None
    embedding_width: int
    embedding_scale: float = 1.0
    embedding_norm: bool = True
    embedding_projection: bool = False
    transform: str | None
    output_width: int
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @staticmethod
    def shared(hf: Any, pre_norm: bool = False) -> dict[str, Any]:
        """Reads the names that the configs of all these families share, as our fields.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        positions = getattr(hf, "position_embedding_type", "absolute")
        if positions != "absolute":
            raise ConfigError(
                f"position_embedding_type={positions!r} is not supported, and transformers 5 "
                "ignores it: use 'absolute'."
            )
        activation = check_activation("decoder.hidden_act", hf.hidden_act)
        layer = LayerConfig(
            width=hf.hidden_size,
            heads=hf.num_attention_heads,
            up_width=hf.intermediate_size,
            activation=activation,
            pre_norm=pre_norm,
            epsilon=hf.layer_norm_eps,
            dropout=hf.hidden_dropout_prob,
            attention_dropout=hf.attention_probs_dropout_prob,
        )
        return {
            "layer": layer,
            "layers": hf.num_hidden_layers,
            "vocab": hf.vocab_size,
            "padding": hf.pad_token_id,
            "positions": hf.max_position_embeddings,
            "token_types": getattr(hf, "type_vocab_size", None),
            "embedding_width": hf.hidden_size,
            "transform": activation,
            "output_width": hf.hidden_size,
            "tied": hf.tie_word_embeddings,
        }


class BertLike(Decoder):
    """Embeddings, post-norm or pre-norm layers, and a transform before the output layer."""

    config: BertLikeConfig

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.embedding_width)
        if config.learned_positions:
            rows = config.positions + config.position_offset
            self.positions = Embed(rows, config.embedding_width)
        if config.token_types is not None:
            self.token_types = Embed(config.token_types, config.embedding_width)
        if config.embedding_norm:
            self.embedding_norm = LayerNorm(config.layer.epsilon)
        if config.embedding_projection:
            self.embedding_projection = Dense(config.width)
        self.drop = Dropout(config.layer.dropout)
        self.transformer = self.make_transformer()
        if config.transform is not None:
            self.transform = Dense(config.output_width)
            self.transform_norm = LayerNorm(config.layer.epsilon)
        self.head = Head(config.vocab, config.tied, use_bias=True)

    def look_up(self, tokens: Int[Array, "rows target"]) -> Float[Array, "rows target any"]:
        """Returns the embeddings of tokens."""
        config = self.config
        return embed_tokens(self.tokens, tokens, config.padding) * config.embedding_scale

    def locate(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "#rows target any"]:
        """Returns the embeddings of the positions of ``tokens``."""
        del tokens
        return self.positions(positions + self.config.position_offset)

    def add_up(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target any"]:
        """Sums token, position and (first) token type embeddings."""
        x = self.look_up(tokens)
        if self.config.token_types is not None:
            x = x + self.token_types.embedding[0]
        if self.config.learned_positions:
            x = x + self.locate(tokens, positions)
        return x

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target width"]:
        """Embeds tokens at their positions, in the width of the layers."""
        x = self.add_up(tokens, positions)
        x = self.drop(self.embedding_norm(x) if self.config.embedding_norm else x)
        return self.embedding_projection(x) if self.config.embedding_projection else x

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token."""
        if self.config.transform is not None:
            x = self.transform_norm(ACTIVATIONS[self.config.transform](self.transform(x)))
        return self.head(x, self.tokens.embedding)
