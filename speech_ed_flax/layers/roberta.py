"""What RoBERTa (Liu et al., 2019) and its kin have in common, on top of BERT."""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.bert import BertLike, BertLikeConfig
from speech_ed_flax.layers.linear import embed_tokens
from speech_ed_flax.layers.positions import unpadded_positions
from speech_ed_flax.types import Array, Float, Int

OUTPUT = {
    "transform": "lm_head.dense",
    "transform_norm": "lm_head.layer_norm",
    "head": "lm_head.decoder",
}
"""Rows of the output."""

BIAS = "lm_head.bias"
"""The other name of the bias of the output layer."""


@dataclass(frozen=True, kw_only=True)
class RobertaLikeConfig(BertLikeConfig):
    """Shape of a decoder of RoBERTa's kind: BERT, but for what ``shared`` reads otherwise."""

    @staticmethod
    def shared(hf: Any, pre_norm: bool = False) -> dict[str, Any]:
        """Reads the names that the configs of all these families share, as our fields.

        The position table begins with a row for every token up to padding, which read none of
        them; the transform before the output layer knows no activation but GELU.

        Raises:
            ConfigError: naming the field that is missing or not supported.
        """
        fields = BertLikeConfig.shared(hf, pre_norm)
        if hf.pad_token_id is None:
            raise ConfigError("pad_token_id is not set: positions are counted without padding.")
        offset = hf.pad_token_id + 1
        positions = hf.max_position_embeddings - offset
        return fields | {"positions": positions, "position_offset": offset, "transform": "gelu"}


class RobertaLike(BertLike):
    """BERT with positions that padding does not take."""

    config: RobertaLikeConfig

    def locate(
        self, tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"]
    ) -> Float[Array, "rows target any"]:
        """Returns the embeddings of the positions; that of padding learns nothing."""
        padding = self.config.position_offset - 1
        rows = unpadded_positions(tokens, positions, padding)
        return embed_tokens(self.positions, rows, padding)
