"""The decoders of BART (Lewis et al., 2019) and of the models built after it.

Behaviour matched: transformers 5.23 ``BartForCausalLM`` and those of ``KINDS``. None of them adds
the ``final_logits_bias`` of a sequence-to-sequence checkpoint, though Marian's is not zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.decoder import Decoder
from speech_ed_flax.layers.decoder_names import bart_names
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Embed, Head
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.layers.positions import FairseqSinusoids, StoredSinusoids, transformer_sinusoids
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Float, Int, State


@dataclass(frozen=True)
class Kind:
    """What sets a model apart from the others of its kin.

    Attributes:
        pre_norm: see ``LayerConfig``.
        normed: what is normalised before the layers: the embeddings of "tokens", their "sum" with
            those of positions, or nothing.
        places: what positions are: "learned", "stored" sinusoids or "computed" ones.
        offset: rows of the position table before the first position (2 in fairseq's).
        scaled: whether ``scale_embedding`` has an effect: in two models upstream only reads it.
        key_bias: see ``LayerConfig``.
        spelling: names of fields that are not BART's.
    """

    pre_norm: bool
    normed: str | None = None
    places: str = "learned"
    offset: int = 0
    scaled: bool = True
    key_bias: bool = True
    spelling: Mapping[str, str] = field(default_factory=dict)


_XGLM_SPELLING = {
    "decoder_layers": "num_layers",
    "decoder_attention_heads": "attention_heads",
    "decoder_ffn_dim": "ffn_dim",
    "decoder_layerdrop": "layerdrop",
}
_WHISPER_SPELLING = {"max_position_embeddings": "max_target_positions"}
_BART = Kind(pre_norm=False, normed="sum", offset=2)

KINDS = {
    "bart": _BART,
    "bigbird_pegasus": Kind(pre_norm=True),
    "blenderbot": Kind(pre_norm=True),
    "blenderbot-small": Kind(pre_norm=False, normed="tokens", scaled=False),
    "marian": Kind(pre_norm=False, places="stored"),
    "mbart": Kind(pre_norm=True, normed="sum", offset=2),
    "mvp": _BART,
    "pegasus": Kind(pre_norm=True, places="stored"),
    "plbart": _BART,
    "whisper": Kind(pre_norm=True, scaled=False, key_bias=False, spelling=_WHISPER_SPELLING),
    "xglm": Kind(pre_norm=True, places="computed", offset=2, spelling=_XGLM_SPELLING),
}
"""By model type."""


@dataclass(frozen=True)
class BartConfig:
    """Shape of a BART-like decoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        vocab: number of tokens.
        padding: token whose embedding learns nothing as an input, if there is one.
        positions: longest sequence.
        position_offset: rows of the position table before the first position.
        places: what positions are; see ``Kind``.
        embedding_scale: factor of the token embeddings.
        normed: what is normalised before the layers; see ``Kind``.
        tied: whether the output layer is the token embedding.
    """

    layer: LayerConfig
    layers: int
    vocab: int
    padding: int | None
    positions: int
    position_offset: int
    places: str
    embedding_scale: float
    normed: str | None
    tied: bool

    @property
    def width(self) -> int:
        """Width of the decoder."""
        return self.layer.width

    @property
    def rows(self) -> int:
        """Rows of the position table."""
        return self.positions + self.position_offset

    @classmethod
    def from_hf(cls, hf: Any) -> "BartConfig":
        """Reads the configuration of any model of ``KINDS``.

        Raises:
            ConfigError: naming a setting that the joint model of upstream drops or trips over.
        """
        _refuse(hf)
        kind = KINDS[hf.model_type]

        def read(name: str) -> Any:
            return getattr(hf, kind.spelling.get(name, name))

        layer = LayerConfig(
            width=hf.d_model,
            heads=read("decoder_attention_heads"),
            up_width=read("decoder_ffn_dim"),
            activation=check_activation("decoder.activation_function", hf.activation_function),
            pre_norm=kind.pre_norm,
            attention_bias=getattr(hf, "use_bias", True),
            key_bias=kind.key_bias,
            dropout=hf.dropout,
            attention_dropout=hf.attention_dropout,
            activation_dropout=hf.activation_dropout,
            layer_drop=read("decoder_layerdrop"),
        )
        return cls(
            layer=layer,
            layers=read("decoder_layers"),
            vocab=hf.vocab_size,
            padding=hf.pad_token_id,
            positions=read("max_position_embeddings"),
            position_offset=kind.offset,
            places=kind.places,
            embedding_scale=hf.d_model**0.5 if hf.scale_embedding and kind.scaled else 1.0,
            normed=kind.normed,
            tied=hf.tie_word_embeddings,
        )


def _refuse(hf: Any) -> None:
    if getattr(hf, "use_prompt", False):  # of MVP
        raise ConfigError(
            "use_prompt=True is not supported: transformers' MvpForCausalLM leaves the prompts "
            "out. With use_prompt=False so does this decoder, which was trained with them."
        )
    vocab = getattr(hf, "decoder_vocab_size", hf.vocab_size)  # of Marian
    if vocab != hf.vocab_size:
        raise ConfigError(
            f"vocab_size={hf.vocab_size} is not decoder_vocab_size={vocab}: transformers' "
            "MarianForCausalLM reads tokens of the one and scores those of the other. Set "
            "both to the number of tokens that the decoder writes."
        )


class Bart(Decoder):
    """Token embeddings with positions, post-norm or pre-norm layers, and an output layer."""

    config: BartConfig

    def setup(self):
        """Creates the modules."""
        config = self.config
        self.tokens = Embed(config.vocab, config.width)
        self.positions = self._make_positions()
        if config.normed:
            self.embedding_norm = LayerNorm(TORCH_EPSILON)
        self.drop = Dropout(config.layer.dropout)
        self.transformer = self.make_transformer()
        self.head = Head(config.vocab, config.tied)

    def _make_positions(self) -> nn.Module:
        config = self.config
        if config.places == "stored":
            return StoredSinusoids(config.rows, config.width)
        if config.places == "computed":
            return FairseqSinusoids(config.rows, config.width, config.padding or 0)
        return Embed(config.rows, config.width)

    def embed(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target width"]:
        """Sums token and position embeddings.

        No gradient reaches the embedding of padding, which in Marian and Pegasus starts the text.
        """
        config = self.config
        x = self.tokens(tokens)
        if config.padding is not None:
            is_padding = (tokens == config.padding)[..., None]
            x = jnp.where(is_padding, jax.lax.stop_gradient(x), x)
        x = x * config.embedding_scale
        if config.normed == "tokens":
            x = self.embedding_norm(x)
        x = x + self.positions(positions + config.position_offset).astype(x.dtype)
        return self.drop(self.embedding_norm(x) if config.normed == "sum" else x)

    def score(self, x: Float[Array, "rows target width"]) -> Float[Array, "rows target vocab"]:
        """Scores every token."""
        return self.head(x, self.tokens.embedding)


_TABLE = "model.decoder.embed_positions.weight"


def with_sinusoids(state: State, config: BartConfig) -> State:
    """Adds the table of positions where it is stored, as Marian's own checkpoints leave it out."""
    if config.places != "stored":
        return state
    return {_TABLE: transformer_sinusoids(config.rows, config.width)} | state


def with_output(state: State, config: BartConfig) -> State:
    """Adds the output layer where it is tied, as upstream's BigBird-Pegasus never ties it."""
    if not config.tied:
        return state
    return state | {"lm_head.weight": state["model.decoder.embed_tokens.weight"]}


def _family(names: Mapping[str, str], alias: tuple[str, str], **conversion: Any) -> Family:
    return Family(
        config=BartConfig,
        module=Bart,
        names=names,
        aliases=((r"^(model\.)?shared\.", "model.decoder.embed_tokens."), alias),
        unused=(
            r"^(model\.)?encoder\.",
            r"^(conv[12]|embed_positions|layer_norm|layers)\.",
            r"^final_logits_bias$",
            r"^(classification_head|qa_outputs)\.",
            r"_attn_prompt\.",
            r"\.embed_positions\.weights$",
        ),
        fresh=(r"/cross_attention(_norm)?/", r"^head/"),
        tied=(f"{names['head']}.weight", f"{names['tokens']}.weight"),
        **conversion,
    )


_INSIDE = (r"^decoder\.", "model.decoder.")

BART = _family(
    bart_names("lm_head") | {"positions/sinusoids": _TABLE}, _INSIDE, regular=with_sinusoids
)
BIGBIRD_PEGASUS = _family(
    bart_names("lm_head", last_norm="layernorm_embedding"), _INSIDE, irregular=with_output
)
WHISPER = _family(bart_names("proj_out"), _INSIDE)
XGLM = _family(bart_names("lm_head", root="model."), (r"^(?!model\.|lm_head\.)", "model."))
