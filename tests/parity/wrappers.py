"""PyTorch halves that upstream's joint model cannot call, given the interface that it calls."""

import pytest
from transformers import WhisperForCausalLM
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder
from transformers.models.speecht5.modeling_speecht5 import SpeechT5EncoderWithSpeechPrenet
from transformers.models.whisper.modeling_whisper import WhisperEncoder

torch = pytest.importorskip("torch")


class HearingWhisper(WhisperEncoder):
    """Whisper's encoder as an encoder of upstream's joint model: all of its states are real."""

    def forward(self, input_features, attention_mask=None, return_dict=True, **unread):
        return super().forward(input_features)

    def _get_feature_vector_attention_mask(self, frames, mask):
        return torch.ones(mask.shape[0], frames, dtype=torch.long)


class HearingMoonshine(MoonshineEncoder):
    """Moonshine's encoder with the method that tells its real states, as its own model has them."""

    def _get_feature_vector_attention_mask(self, frames, mask):
        return mask[:, ::384][:, :frames]


class HearingSpeechT5(SpeechT5EncoderWithSpeechPrenet):
    """SpeechT5's encoder with the method that tells its real states; they are in its prenet."""

    def _get_feature_vector_attention_mask(self, frames, mask):
        return self.prenet._get_feature_vector_attention_mask(frames, mask)


class WritingWhisper(WhisperForCausalLM):
    """Whisper's decoder called as upstream calls the others; it reads every encoder state."""

    def forward(
        self, input_ids=None, encoder_hidden_states=None, encoder_attention_mask=None, **given
    ):
        given = {name: value for name, value in given.items() if value is not None}
        return super().forward(input_ids, encoder_outputs=encoder_hidden_states, **given)


HEARING = {
    "moonshine": HearingMoonshine,
    "speech_to_text": Speech2TextEncoder,  # for which upstream's AutoModel takes a decoder too
    "speecht5": HearingSpeechT5,
    "whisper": HearingWhisper,
}
"""Encoders by model type."""

WRITING = {"whisper": WritingWhisper}
"""Decoders by model type."""
