"""The decoders of TrOCR (Li et al., 2021) and of speech translation with wav2vec 2.0.

The latter (Wang et al., 2021) are published as Speech2Text2. Behaviour matched: transformers 5.23
``TrOCRForCausalLM``, and ``Speech2Text2ForCausalLM`` of 4.36, the last releases that ran it.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.decoder_names import bart_names
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Embed, Head, embed_tokens
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.layers.positions import fairseq_sinusoids, unpadded_positions
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Float, Int, State

_FAIRSEQ_OFFSET = 2
"""Rows before the first position of every table of fairseq, whose padding is token 1."""


@dataclass(frozen=True)
class TrOCRConfig:
    """Shape of a TrOCR or Speech2Text2 decoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        padding: token whose embedding learns nothing as an input, if there is one.
        positions: longest sequence.
        position_offset: rows of the position table before the first position. The last of them is
            that of padding, where positions are sinusoids.
        learned: whether positions are learned, and padding takes one; else they are sinusoids, and
            it takes none.
        embedding_scale: factor of the token embeddings.
        embedding_norm: whether the sum of the embeddings is normalised.
        context_width: of the encoder's states, where they are read without a projection though
            they are not as wide as the decoder.
        tied: whether the output layer is the token embedding.
    """

    layer: LayerConfig
    layers: int
    vocab: int
    padding: int | None
    positions: int
    position_offset: int
    learned: bool
    embedding_scale: float
    embedding_norm: bool
    context_width: int | None
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @classmethod
    def from_hf(cls, hf: Any) -> "TrOCRConfig":
        """Reads a ``TrOCRConfig``, or a ``Speech2Text2Config`` (sinusoids, no embedding norm).

        Raises:
            ConfigError: if positions depend on the padding token, and there is none.
        """
        trocr = hf.model_type == "trocr"
        learned = trocr and hf.use_learned_position_embeddings
        if not learned and hf.pad_token_id is None:
            raise ConfigError("pad_token_id is not set: positions are counted without padding.")
        layer = LayerConfig(
            width=hf.d_model,
            heads=hf.decoder_attention_heads,
            up_width=hf.decoder_ffn_dim,
            activation=check_activation("decoder.activation_function", hf.activation_function),
            pre_norm=False,
            dropout=hf.dropout,
            attention_dropout=hf.attention_dropout,
            activation_dropout=hf.activation_dropout,
            layer_drop=hf.decoder_layerdrop,
        )
        return cls(
            layer=layer,
            layers=hf.decoder_layers,
            vocab=hf.vocab_size,
            padding=hf.pad_token_id,
            positions=hf.max_position_embeddings if trocr else hf.max_target_positions,
            position_offset=_FAIRSEQ_OFFSET if learned else hf.pad_token_id + 1,
            learned=learned,
            embedding_scale=hf.d_model**0.5 if hf.scale_embedding else 1.0,
            embedding_norm=trocr and hf.layernorm_embedding,
            context_width=hf.cross_attention_hidden_size if trocr else None,
            tied=hf.tie_word_embeddings,
        )


class TrOCR(Decoder):
    """Post-norm layers behind learned positions, or behind sinusoids that padding does not take."""

    config: TrOCRConfig

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.width)
        if config.learned:
            self.positions = Embed(config.positions + config.position_offset, config.width)
        if config.embedding_norm:
            self.embedding_norm = LayerNorm(TORCH_EPSILON)
        self.drop = Dropout(config.layer.dropout)
        self.transformer = self.make_transformer()
        self.head = Head(config.vocab, config.tied)

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target width"]:
        """Sums token and position embeddings."""
        config = self.config
        x = embed_tokens(self.tokens, tokens, config.padding) * config.embedding_scale
        x = x + self._positions(tokens, positions).astype(x.dtype)
        return self.drop(self.embedding_norm(x) if config.embedding_norm else x)

    def _positions(self, tokens, positions):
        config, offset = self.config, self.config.position_offset
        if config.learned:
            return self.positions(positions + offset)
        table = fairseq_sinusoids(config.positions + offset, config.width, padding=offset - 1)
        return jnp.asarray(table)[unpadded_positions(tokens, positions, padding=offset - 1)]

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token."""
        return self.head(x, self.tokens.embedding)


def with_sinusoids(state: State, config: TrOCRConfig) -> State:
    """Adds the table of positions, which Speech2Text2 keeps among its parameters."""
    rows = config.positions + _FAIRSEQ_OFFSET
    table = fairseq_sinusoids(rows, config.width, padding=config.position_offset - 1)
    return state | {"model.decoder.embed_positions.weights": table}


def _family(output: str, **conversion: Any) -> Family:
    return Family(
        config=TrOCRConfig,
        module=TrOCR,
        names=bart_names(output),
        aliases=((r"^decoder\.", "model.decoder."),),
        unused=(r"\.embed_positions\.(weights|_float_tensor)$",),
        fresh=(r"/cross_attention(_norm)?/", r"^head/"),
        tied=(f"{output}.weight", "model.decoder.embed_tokens.weight"),
        **conversion,
    )


TROCR = _family("output_projection")
SPEECH_TO_TEXT_2 = _family("lm_head", irregular=with_sinusoids)
