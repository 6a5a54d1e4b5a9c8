"""Checkpoints of every class that a family was published as give that half of a model."""

import re
from copy import deepcopy

import numpy as np
import pytest
import transformers
from families import DECODERS, ENCODERS, joint, vary

from speech_ed_flax import ConfigError, FlaxSpeechEncoderDecoderModel

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
    ("parakeet_encoder", "ParakeetEncoder"),
    ("seamless_m4t_v2", "SeamlessM4Tv2ForSpeechToText"),
    ("moonshine", "MoonshineModel"),
    ("moonshine", "MoonshineForConditionalGeneration"),
    ("speech_to_text", "Speech2TextModel"),
    ("speech_to_text", "Speech2TextForConditionalGeneration"),
    ("speecht5", "SpeechT5ForSpeechToText"),
    ("speecht5", "SpeechT5ForSpeechToSpeech"),
    ("data2vec-audio", "Data2VecAudioForCTC"),
    ("sew", "SEWForCTC"),
    ("sew-d", "SEWDForSequenceClassification"),
    ("unispeech", "UniSpeechForPreTraining"),
    ("unispeech-sat", "UniSpeechSatForPreTraining"),
    ("unispeech-sat", "UniSpeechSatForXVector"),
    ("wavlm", "WavLMForXVector"),
]

DECODER_CLASSES = [
    ("bert", "BertModel"),
    ("bert", "BertForMaskedLM"),
    ("bert", "BertForPreTraining"),
    ("bert-generation", "BertGenerationEncoder"),
    ("bert-generation", "BertGenerationDecoder"),
    ("big_bird", "BigBirdModel"),
    ("big_bird", "BigBirdForMaskedLM"),
    ("big_bird", "BigBirdForPreTraining"),
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
    ("roc_bert", "RoCBertModel"),
    ("roc_bert", "RoCBertForMaskedLM"),
    ("roc_bert", "RoCBertForPreTraining"),
    ("roformer", "RoFormerModel"),
    ("roformer", "RoFormerForMaskedLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt_bigcode", "GPTBigCodeModel"),
    ("gpt_bigcode", "GPTBigCodeForCausalLM"),
    ("prophetnet", "ProphetNetDecoder"),
    ("prophetnet", "ProphetNetForCausalLM"),
    ("prophetnet", "ProphetNetForConditionalGeneration"),
    ("prophetnet", "ProphetNetModel"),
    ("bart", "BartForConditionalGeneration"),
    ("mbart", "MBartForConditionalGeneration"),
    ("whisper", "WhisperForConditionalGeneration"),
    ("mvp", "MvpForConditionalGeneration"),
    ("plbart", "PLBartForConditionalGeneration"),
    ("blenderbot", "BlenderbotForConditionalGeneration"),
    ("blenderbot-small", "BlenderbotSmallModel"),
    ("pegasus", "PegasusModel"),
    ("pegasus", "PegasusForConditionalGeneration"),
    ("marian", "MarianForCausalLM"),
    ("marian", "MarianMTModel"),
    ("bigbird_pegasus", "BigBirdPegasusForConditionalGeneration"),
    ("xglm", "XGLMForCausalLM"),
    ("xglm", "XGLMModel"),
    ("trocr", "TrOCRForCausalLM"),
    ("roberta", "RobertaModel"),
    ("roberta", "RobertaForMaskedLM"),
    ("xlm-roberta", "XLMRobertaForMaskedLM"),
    ("camembert", "CamembertForMaskedLM"),
    ("data2vec-text", "Data2VecTextForMaskedLM"),
    ("xlm-roberta-xl", "XLMRobertaXLForMaskedLM"),
    ("roberta-prelayernorm", "RobertaPreLayerNormForMaskedLM"),
    ("xmod", "XmodForMaskedLM"),
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


@pytest.mark.parametrize("kind", ["CTC", "TDT"])
def test_the_encoder_of_a_whole_recogniser_keeps_its_own_config(kind, tmp_path):
    sizes = {"vocab_size": 9, "decoder_hidden_size": 4} if kind == "TDT" else {"vocab_size": 9}
    config = getattr(transformers, f"Parakeet{kind}Config")(
        encoder_config=ENCODERS["parakeet_encoder"].to_dict(), **sizes
    )
    half = saved(f"ParakeetFor{kind}", config, tmp_path / "encoder")
    other = saved("BartForCausalLM", DECODERS["bart"], tmp_path / "decoder")
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(half, other)
    assert model.config.encoder.model_type == "parakeet_encoder"
    assert not any(path.startswith("encoder/") for path in model.fresh)


@pytest.mark.parametrize(("family", "name"), DECODER_CLASSES)
def test_a_decoder_is_taken_out_of_any_checkpoint_that_has_it(family, name, tmp_path):
    half = saved(name, DECODERS[family], tmp_path / "decoder")
    other = saved("Wav2Vec2Model", ENCODERS["wav2vec2"], tmp_path / "encoder")
    ids = {"pad_token_id": 1, "decoder_start_token_id": 2, "eos_token_id": 2}
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(other, half, **ids)
    lacking = [path for path in model.fresh if path.startswith("decoder/")]
    assert all(re.search(FRESH["decoder"], path) for path in lacking), lacking


@pytest.mark.parametrize("width", [24, 27])
def test_sinusoids_that_a_checkpoint_leaves_out_are_those_of_pytorch(width, tmp_path):
    config = vary(
        DECODERS["marian"], d_model=width, decoder_attention_heads=3, encoder_attention_heads=3
    )
    half = saved("MarianMTModel", config, tmp_path / "decoder")
    other = saved("Wav2Vec2Model", ENCODERS["wav2vec2"], tmp_path / "encoder")
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(other, half)
    theirs = transformers.MarianMTModel(config).model.decoder.embed_positions.weight
    found = model.params["decoder"]["positions"]["sinusoids"]
    np.testing.assert_array_equal(found, theirs.numpy())


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("mvp", {"use_prompt": True}, "use_prompt=True is not supported"),
        ("marian", {"decoder_vocab_size": 40}, "vocab_size=48 is not decoder_vocab_size=40"),
    ],
)
def test_what_upstream_drops_or_trips_over_is_refused_by_name(family, changes, reason):
    config = joint(ENCODERS["wav2vec2"], vary(DECODERS[family], **changes))
    with pytest.raises(ConfigError, match=rf"decoder \({family}\): {reason}"):
        FlaxSpeechEncoderDecoderModel(config)
