"""The decoders of BART (Lewis et al., 2019), mBART (Liu et al., 2020) and Whisper.

Behaviour matched: transformers 5.23 ``BartForCausalLM``, ``MBartForCausalLM`` and
``WhisperForCausalLM``.
"""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.family import Family
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Embed, Head
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Float, Int


@dataclass(frozen=True)
class BartConfig:
    """Shape of a BART-like decoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        positions: longest sequence.
        position_offset: rows of the position table before the first position (2 in fairseq's).
        embedding_scale: factor of the token embeddings.
        embedding_norm: whether the sum of the embeddings is normalised.
        tied: whether the output layer is the token embedding.
    """

    layer: LayerConfig
    layers: int
    vocab: int
    positions: int
    position_offset: int
    embedding_scale: float
    embedding_norm: bool
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @classmethod
    def from_hf(cls, hf: Any) -> "BartConfig":
        """Reads a ``BartConfig`` (post-norm), ``MBartConfig`` or ``WhisperConfig`` (pre-norm)."""
        whisper = hf.model_type == "whisper"
        layer = LayerConfig(
            width=hf.d_model,
            heads=hf.decoder_attention_heads,
            up_width=hf.decoder_ffn_dim,
            activation=check_activation("decoder.activation_function", hf.activation_function),
            pre_norm=hf.model_type != "bart",
            key_bias=not whisper,
            dropout=hf.dropout,
            attention_dropout=hf.attention_dropout,
            activation_dropout=hf.activation_dropout,
            layer_drop=hf.decoder_layerdrop,
        )
        return cls(
            layer=layer,
            layers=hf.decoder_layers,
            vocab=hf.vocab_size,
            positions=hf.max_target_positions if whisper else hf.max_position_embeddings,
            position_offset=0 if whisper else 2,
            # Upstream reads Whisper's scale_embedding and never applies it.
            embedding_scale=hf.d_model**0.5 if hf.scale_embedding and not whisper else 1.0,
            embedding_norm=not whisper,
            tied=hf.tie_word_embeddings,
        )


class Bart(Decoder):
    """Learned absolute positions, post-norm (BART) or pre-norm (mBART, Whisper) layers."""

    config: BartConfig

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.width)
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
        x = self.tokens(tokens) * self.config.embedding_scale
        x = x + self.positions(positions + self.config.position_offset)
        return self.drop(self.embedding_norm(x) if self.config.embedding_norm else x)

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token."""
        return self.head(x, self.tokens.embedding)


def _family(output: str) -> Family:
    names = {
        "tokens": "model.decoder.embed_tokens",
        "positions": "model.decoder.embed_positions",
        "embedding_norm": "model.decoder.layernorm_embedding",
        "transformer/norm": "model.decoder.layer_norm",
        "transformer/layers_{}/self_attention_norm": "model.decoder.layers.{}.self_attn_layer_norm",
        "transformer/layers_{}/cross_attention_norm": (
            "model.decoder.layers.{}.encoder_attn_layer_norm"
        ),
        "transformer/layers_{}/feed_forward/up": "model.decoder.layers.{}.fc1",
        "transformer/layers_{}/feed_forward/down": "model.decoder.layers.{}.fc2",
        "transformer/layers_{}/feed_forward_norm": "model.decoder.layers.{}.final_layer_norm",
        "head": output,
    }
    for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        for part in ("query", "key", "value", "out"):
            row = f"transformer/layers_{{}}/{ours}/{part}"
            leaf = "out_proj" if part == "out" else f"{part[0]}_proj"
            names[row] = f"model.decoder.layers.{{}}.{theirs}.{leaf}"
    return Family(
        config=BartConfig,
        module=Bart,
        names=names,
        aliases=(
            (r"^(model\.)?shared\.", "model.decoder.embed_tokens."),
            (r"^decoder\.", "model.decoder."),
        ),
        unused=(
            r"^(model\.)?encoder\.",
            r"^(conv[12]|embed_positions|layer_norm|layers)\.",
            r"^final_logits_bias$",
            r"^(classification_head|qa_outputs)\.",
            r"\.embed_positions\.weights$",
        ),
        fresh=(r"/cross_attention(_norm)?/", r"^head/"),
        tied=(f"{output}.weight", "model.decoder.embed_tokens.weight"),
    )


BART = MBART = _family("lm_head")
WHISPER = _family("proj_out")
