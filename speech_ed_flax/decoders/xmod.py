"""X-MOD (Pfeiffer et al., 2022) as a causal decoder: RoBERTa with adapters for each language.

Behaviour matched: transformers 5.23 ``XmodForCausalLM`` with ``is_decoder`` and
``add_cross_attention``, called as the joint model does: in the config's default language. The
adapters of the other languages are kept, for export and for another default.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.bert_family import bert_family, bert_names
from speech_ed_flax.layers.feed_forward import FeedForward
from speech_ed_flax.layers.norm import LayerNorm
from speech_ed_flax.layers.placement import split_rows
from speech_ed_flax.layers.roberta import BIAS, OUTPUT, RobertaLike, RobertaLikeConfig
from speech_ed_flax.layers.transformer import DecoderLayer, LayerConfig, TransformerDecoder
from speech_ed_flax.types import Array, Float, State


@dataclass(frozen=True, kw_only=True)
class XmodLayerConfig(LayerConfig):
    """Shape of one layer.

    Attributes:
        languages: one adapter each.
        language: whose adapter is used.
        adapter_width: inside an adapter.
        adapter_norm: what an adapter's input is normalised by: the layer's "last" norm, a norm of
            its "own", or nothing.
        normed_residual: whether an adapter's output is added to its normalised input.
    """

    languages: tuple[str, ...]
    language: str
    adapter_width: int
    adapter_norm: str | None
    normed_residual: bool


class XmodConfig(RobertaLikeConfig):
    """Shape of an X-MOD decoder."""

    layer: XmodLayerConfig

    @classmethod
    def from_hf(cls, hf: Any) -> "XmodConfig":
        """Reads an ``XmodConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is missing or not supported.
        """
        languages = tuple(map(str, hf.languages))
        if hf.default_language not in languages:
            raise ConfigError(
                f"default_language={hf.default_language!r} has no adapters: set it to one of "
                f"{', '.join(languages)}."
            )
        norm = "own" if hf.adapter_layer_norm else "last" if hf.adapter_reuse_layer_norm else None
        fields = cls.shared(hf, hf.pre_norm)
        fields["layer"] = XmodLayerConfig(
            **vars(fields["layer"]),
            languages=languages,
            language=hf.default_language,
            adapter_width=hf.hidden_size // hf.adapter_reduction_factor,
            adapter_norm=norm,
            normed_residual=hf.ln_before_adapter,
        )
        return cls(**fields)


class XmodLayer(DecoderLayer):
    """A decoder layer with a language's adapter behind its feed-forward network."""

    config: XmodLayerConfig

    def setup(self):
        """Creates the sublayers."""
        super().setup()
        config = self.config
        self.adapters = [
            FeedForward(config.width, config.adapter_width, config.activation)
            for _ in config.languages
        ]
        if config.adapter_norm == "own":
            self.adapter_norm = LayerNorm(config.epsilon)

    def feed(self, x: Float[Array, "batch queries width"]) -> Float[Array, "batch queries width"]:
        """Applies the feed-forward network and the adapter, in front of a post-norm."""
        norm, pre_norm = self.feed_forward_norm, self.config.pre_norm
        x = split_rows(x + self.drop(self.feed_forward(norm(x) if pre_norm else x)))
        x = self._adapt(x)
        return x if pre_norm else norm(x)

    def _adapt(self, x):
        config, normed = self.config, x
        if config.adapter_norm == "own":
            normed = self.adapter_norm(x)
        elif config.adapter_norm == "last":
            normed = self.feed_forward_norm(x)
        if self.is_initializing():  # what is never called has no parameters
            for adapter in self.adapters:
                adapter(normed)
        adapter = self.adapters[config.languages.index(config.language)]
        return (normed if config.normed_residual else x) + self.drop(adapter(normed))


class Xmod(RobertaLike):
    """RoBERTa's embeddings and output around ``XmodLayer``."""

    config: XmodConfig

    def make_transformer(self) -> TransformerDecoder:
        """Returns the stack that ``config`` describes."""
        return TransformerDecoder(self.config.layer, self.config.layers, XmodLayer)


_ADAPTER = "roberta.encoder.layer.{}.output.adapter_modules.{}."

NAMES = (
    bert_names("roberta")
    | OUTPUT
    | {
        "transformer/norm": "roberta.encoder.LayerNorm",
        "transformer/layers_{}/adapter_norm": "roberta.encoder.layer.{}.output.adapter_layer_norm",
        "transformer/layers_{}/adapters_{}/up": _ADAPTER + "dense1",
        "transformer/layers_{}/adapters_{}/down": _ADAPTER + "dense2",
    }
)

_ROBERTA = bert_family("roberta", XmodConfig, NAMES, module=Xmod, bias=BIAS)


def _rename_adapters(state: State, names: dict[str, str]) -> State:
    """Gives adapters the names that ``names`` says; those of others stay."""

    def renamed(match: re.Match) -> str:
        return f"{match[1]}{names.get(match[2], match[2])}{match[3]}"

    pattern = re.compile(r"(\.adapter_modules\.)([^.]+)(\.)")
    return {pattern.sub(renamed, name): tensor for name, tensor in state.items()}


def regular(state: State, config: XmodConfig) -> State:
    """Names adapters by their number, and keeps one of the names of the output bias."""
    numbers = {language: str(i) for i, language in enumerate(config.layer.languages)}
    return _rename_adapters(_ROBERTA.regular(state, config), numbers)


def irregular(state: State, config: XmodConfig) -> State:
    """Undoes ``regular``."""
    languages = {str(i): language for i, language in enumerate(config.layer.languages)}
    return _ROBERTA.irregular(_rename_adapters(state, languages), config)


XMOD = replace(_ROBERTA, regular=regular, irregular=irregular)
