"""PyTorch halves that upstream's joint model cannot call, given the interface that it calls."""

import pytest
from families import vary
from transformers import (
    BigBirdForCausalLM,
    GPTBigCodeForCausalLM,
    MegatronBertForCausalLM,
    ProphetNetForCausalLM,
    WhisperForCausalLM,
)
from transformers.models.big_bird.modeling_big_bird import BigBirdLayer
from transformers.models.gpt_bigcode.modeling_gpt_bigcode import GPTBigCodeAttention
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoder
from transformers.models.prophetnet.modeling_prophetnet import ProphetNetNgramSelfAttention
from transformers.models.rembert.modeling_rembert import RemBertSelfAttention
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2SpeechEncoder
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


class HearingParakeet(ParakeetEncoder):
    """Parakeet's encoder with the method that tells its real states; the others are silenced.

    What they are nobody reads: each is a mean over everything, padding included.
    """

    def forward(self, input_features, attention_mask=None, **given):
        outputs = super().forward(input_features, attention_mask, **given)
        if attention_mask is not None:
            outputs.last_hidden_state = (
                outputs.last_hidden_state * outputs.attention_mask[..., None]
            )
        return outputs

    def _get_feature_vector_attention_mask(self, frames, mask):
        return self._get_output_attention_mask(mask, target_length=frames).long()


class HearingSeamless(SeamlessM4Tv2SpeechEncoder):
    """SeamlessM4T's speech encoder with the method that tells its real states."""

    def _get_feature_vector_attention_mask(self, frames, mask):
        lengths = mask.sum(-1)
        if self.adapter is not None:
            lengths = self._compute_sub_sample_lengths_from_attention_mask(mask)
        return (torch.arange(frames) < lengths[:, None]).long()


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


class WritingMegatronBert(MegatronBertForCausalLM):
    """Megatron's BERT that reads any number of states: upstream's only as many as it has tokens."""

    _can_set_attn_implementation_cached_value = False  # as upstream finds by reading its source

    def __init__(self, config):
        super().__init__(config)
        for number, layer in enumerate(self.bert.encoder.layer):
            # The same attention, whose keys are counted apart from the queries.
            layer.crossattention.self = RemBertSelfAttention(config, number)


class BigCodeCrossAttention(GPTBigCodeAttention):
    """GPT-BigCode's cross-attention, with the parameters that upstream makes and cannot call.

    It splits the keys and values of all heads as if they were those of one head.
    """

    def forward(self, hidden_states, encoder_hidden_states=None, **unread):
        query = self.q_attn(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        heard = self.c_attn(encoder_hidden_states).unflatten(-1, (self.num_heads, -1))
        key, value = heard.transpose(1, 2).chunk(2, dim=-1)
        scores = query @ key.mT * self.scaling
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        return self.c_proj((weights @ value).transpose(1, 2).flatten(2)), weights


class WritingGPTBigCode(GPTBigCodeForCausalLM):
    """GPT-BigCode with cross-attention, which upstream refuses to make beside shared keys."""

    def __init__(self, config):
        super().__init__(vary(config, add_cross_attention=False))
        for block in self.transformer.h:
            of_all_heads = vary(config, multi_query=False)
            block.crossattention = BigCodeCrossAttention(of_all_heads, is_cross_attention=True)
            block.ln_cross_attn = torch.nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)

    def forward(self, *arguments, encoder_attention_mask=None, **given):
        mask = encoder_attention_mask
        for block in self.transformer.h:
            block.crossattention.mask = None if mask is None else mask[:, None, None].bool()
        return super().forward(*arguments, **given)


class CausalBigBirdLayer(BigBirdLayer):
    """BigBird's layer whose self-attention reads the text: upstream's reads the encoder twice."""

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        encoder_hidden_states=None,
        encoder_attention_mask=None,
        past_key_values=None,
        **unread,
    ):
        cache = getattr(past_key_values, "self_attention_cache", past_key_values)
        states, _ = self.attention(hidden_states, attention_mask, past_key_values=cache)
        states, _ = self.crossattention(
            states,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )
        return self.feed_forward_chunk(states)


class WritingBigBird(BigBirdForCausalLM):
    """BigBird made of such layers."""

    _can_set_attn_implementation_cached_value = False  # as upstream finds by reading its source

    def __init__(self, config):
        super().__init__(config)
        for layer in self.bert.encoder.layer:
            layer.__class__ = CausalBigBirdLayer


class NgramAttention(ProphetNetNgramSelfAttention):
    """ProphetNet's self-attention with the relative biases that it has where it generates.

    Asked for several positions at once, upstream takes them from other heads, predicting states
    and positions, later ones among them; so it is asked for one at a time.
    """

    def get_predict_relative_pos_embeddings(self, states, weights, positions, buckets):
        one = super().get_predict_relative_pos_embeddings
        if buckets is None:  # there is one
            return one(states, weights, positions, buckets)
        found = [
            one(states[:, at, None], weights[..., at, None, :], positions, buckets[:, at, None])
            for at in range(states.shape[1])
        ]
        return torch.cat(found, dim=3)


class WritingProphetNet(ProphetNetForCausalLM):
    """ProphetNet that knows boolean masks, and reports what its next token heard as weights."""

    def __init__(self, config):
        super().__init__(config)
        for layer in self.prophetnet.decoder.layers:
            layer.self_attn.__class__ = NgramAttention

    def forward(self, input_ids=None, encoder_attention_mask=None, **given):
        mask = None if encoder_attention_mask is None else encoder_attention_mask.float()
        found = super().forward(input_ids, encoder_attention_mask=mask, **given)
        if found.cross_attentions is not None:  # scores of all states of each token
            found.cross_attentions = tuple(
                scores.softmax(-1).chunk(1 + self.config.ngram, dim=2)[1]
                for scores in found.cross_attentions
            )
        return found


HEARING = {
    "moonshine": HearingMoonshine,
    "parakeet_encoder": HearingParakeet,
    "seamless_m4t_v2": HearingSeamless,
    "speech_to_text": Speech2TextEncoder,  # for which upstream's AutoModel takes a decoder too
    "speecht5": HearingSpeechT5,
    "whisper": HearingWhisper,
}
"""Encoders by model type."""

WRITING = {
    "big_bird": WritingBigBird,
    "gpt_bigcode": WritingGPTBigCode,
    "megatron-bert": WritingMegatronBert,
    "prophetnet": WritingProphetNet,
    "whisper": WritingWhisper,
}
"""Decoders by model type."""
