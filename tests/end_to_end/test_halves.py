"""Checkpoints of every class that a family was published as give that half of a model."""

import re
from copy import deepcopy

import pytest
import transformers
from families import DECODERS, ENCODERS

from speech_ed_flax import FlaxSpeechEncoderDecoderModel

pytest.importorskip("torch")

ENCODER_CLASSES = [
    ("wav2vec2", "Wav2Vec2Model"),
    ("wav2vec2", "Wav2Vec2ForCTC"),
    ("wav2vec2", "Wav2Vec2ForPreTraining"),
    ("hubert", "HubertForCTC"),
    ("whisper", "WhisperForConditionalGeneration"),
    ("wav2vec2-conformer", "Wav2Vec2ConformerModel"),
    ("wav2vec2-conformer", "Wav2Vec2ConformerForCTC"),
    ("wav2vec2-conformer-rotary", "Wav2Vec2ConformerForPreTraining"),
    ("wav2vec2-bert", "Wav2Vec2BertModel"),
    ("wav2vec2-bert", "Wav2Vec2BertForCTC"),
    ("parakeet", "ParakeetEncoder"),
    ("seamless_m4t_v2", "SeamlessM4Tv2ForSpeechToText"),
    ("moonshine", "MoonshineModel"),
    ("moonshine", "MoonshineForConditionalGeneration"),
    ("speech_to_text", "Speech2TextModel"),
    ("speech_to_text", "Speech2TextForConditionalGeneration"),
    ("speecht5", "SpeechT5ForSpeechToText"),
    ("speecht5", "SpeechT5ForSpeechToSpeech"),
    ("data2vec-audio", "Data2VecAudioForCTC"),
    ("unispeech", "UniSpeechForPreTraining"),
    ("unispeech-sat", "UniSpeechSatForPreTraining"),
    ("unispeech-sat", "UniSpeechSatForXVector"),
]

DECODER_CLASSES = [
    ("bert", "BertModel"),
    ("bert", "BertForMaskedLM"),
    ("bert", "BertForPreTraining"),
    ("bert-generation", "BertGenerationEncoder"),
    ("bert-generation", "BertGenerationDecoder"),
    ("electra", "ElectraModel"),
    ("electra", "ElectraForMaskedLM"),
    ("electra", "ElectraForPreTraining"),
    ("ernie", "ErnieModel"),
    ("ernie", "ErnieForMaskedLM"),
    ("ernie", "ErnieForPreTraining"),
    ("megatron-bert", "MegatronBertModel"),
    ("megatron-bert", "MegatronBertForCausalLM"),
    ("megatron-bert", "MegatronBertForPreTraining"),
    ("rembert", "RemBertModel"),
    ("rembert", "RemBertForMaskedLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt_bigcode", "GPTBigCodeModel"),
    ("gpt_bigcode", "GPTBigCodeForCausalLM"),
    ("bart", "BartForConditionalGeneration"),
    ("mbart", "MBartForConditionalGeneration"),
    ("whisper", "WhisperForConditionalGeneration"),
    ("trocr", "TrOCRForCausalLM"),
    ("roberta", "RobertaModel"),
    ("roberta", "RobertaForMaskedLM"),
    ("xlm-roberta", "XLMRobertaForMaskedLM"),
    ("camembert", "CamembertForMaskedLM"),
    ("data2vec-text", "Data2VecTextForMaskedLM"),
    ("xlm-roberta-xl", "XLMRobertaXLForMaskedLM"),
    ("roberta-prelayernorm", "RobertaPreLayerNormForMaskedLM"),
]

FRESH = {
    "encoder": r"/(mask_embedding|adapter)(/|$)",
    "decoder": r"/(cross_attention|cross_attention_norm|head|transform|transform_norm)/",
}
"""What such a checkpoint may lack."""


def saved(name, config, folder):
    """Saves a random PyTorch model of a class of transformers; returns the folder."""
    getattr(transformers, name)(deepcopy(config)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "name"), ENCODER_CLASSES)
def test_an_encoder_is_taken_out_of_any_checkpoint_that_has_it(family, name, tmp_path):
    half = saved(name, ENCODERS[family], tmp_path / "encoder")
    other = saved("BartForCausalLM", DECODERS["bart"], tmp_path / "decoder")
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(half, other)
    lacking = [path for path in model.fresh if path.startswith("encoder/")]
    assert all(re.search(FRESH["encoder"], path) for path in lacking), lacking


@pytest.mark.parametrize(("family", "name"), DECODER_CLASSES)
def test_a_decoder_is_taken_out_of_any_checkpoint_that_has_it(family, name, tmp_path):
    half = saved(name, DECODERS[family], tmp_path / "decoder")
    other = saved("Wav2Vec2Model", ENCODERS["wav2vec2"], tmp_path / "encoder")
    ids = {"pad_token_id": 1, "decoder_start_token_id": 2, "eos_token_id": 2}
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(other, half, **ids)
    lacking = [path for path in model.fresh if path.startswith("decoder/")]
    assert all(re.search(FRESH["decoder"], path) for path in lacking), lacking
