"""PyTorch halves that upstream's joint model cannot call, given the interface that it calls."""

import pytest
from transformers import MegatronBertForCausalLM, WhisperForCausalLM
from transformers.models.rembert.modeling_rembert import RemBertSelfAttention
from transformers.models.whisper.modeling_whisper import WhisperEncoder

torch = pytest.importorskip("torch")


class HearingWhisper(WhisperEncoder):
    """Whisper's encoder as an encoder of upstream's joint model: all of its states are real."""

    def forward(self, input_features, attention_mask=None, return_dict=True, **unread):
        return super().forward(input_features)

    def _get_feature_vector_attention_mask(self, frames, mask):
        return torch.ones(mask.shape[0], frames, dtype=torch.long)


class WritingWhisper(WhisperForCausalLM):
    """Whisper's decoder called as upstream calls the others; it reads every encoder state."""

    def forward(
        self, input_ids=None, encoder_hidden_states=None, encoder_attention_mask=None, **given
    ):
        given = {name: value for name, value in given.items() if value is not None}
        return super().forward(input_ids, encoder_outputs=encoder_hidden_states, **given)


class WritingMegatronBert(MegatronBertForCausalLM):
    """Megatron's BERT that reads any number of states: upstream's only as many as it has tokens."""

    def __init__(self, config):
        super().__init__(config)
        for number, layer in enumerate(self.bert.encoder.layer):
            # The same attention, whose keys are counted apart from the queries.
            layer.crossattention.self = RemBertSelfAttention(config, number)


HEARING = {"whisper": HearingWhisper}
"""Encoders by model type."""

WRITING = {
    "megatron-bert": WritingMegatronBert,
    "whisper": WritingWhisper,
}
"""Decoders by model type."""
