"""Logits, states and loss are PyTorch's, for every encoder and every decoder."""

import numpy as np
import pytest
from families import DECODERS, ENCODERS, PAIRS, SHALLOW, VOCAB, speech, text, vary
from pytorch import Pair, build, torch

# Upstream's Whisper decoder reads padding too, whatever the mask of the encoder says: with an
# encoder that has masks it is compared without one.
MASKED = [(e, d) for e, d in PAIRS if d != "whisper" or e == "whisper"]

VARIED_DECODERS = {
    "bert-gelu-new": ("bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5}),
    "bert-started-by-padding": ("bert", {"decoder_start_token_id": 0}),
    "bert-generation-gelu-new": ("bert-generation", {"hidden_act": "gelu_new"}),
    "big_bird-not-scaled": (
        "big_bird",
        {"rescale_embeddings": False, "attention_type": "original_full", "hidden_act": "relu"},
    ),
    "electra-as-wide": ("electra", {"embedding_size": 32, "hidden_act": "relu"}),
    "ernie-no-task": ("ernie", {"use_task_id": False}),
    "megatron-bert-relu": ("megatron-bert", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
    "rembert-as-wide": ("rembert", {"input_embedding_size": 32, "output_embedding_size": 32}),
    "rembert-said-to-be-tied": (
        "rembert",
        {"tie_word_embeddings": True, "input_embedding_size": 28, "hidden_act": "relu"},
    ),
    "roc_bert-tokens-alone": ("roc_bert", {"concat_input": False, "hidden_act": "relu"}),
    "roc_bert-no-shape": ("roc_bert", {"enable_shape": False}),
    "roc_bert-no-pronunciation": ("roc_bert", {"enable_pronunciation": False}),
    "roc_bert-other-padding": ("roc_bert", {"pad_token_id": 3}),
    "roformer-as-wide": (
        "roformer",
        {"embedding_size": 32, "rotary_value": False, "hidden_act": "relu"},
    ),
    "gpt2-scaled-by-depth": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2-not-scaled": ("gpt2", {"scale_attn_weights": False}),
    "gpt2-upcast": (
        "gpt2",
        {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    ),
    "gpt2-inner": ("gpt2", {"n_inner": 20, "activation_function": "relu"}),
    "gpt_bigcode-multi-head": ("gpt_bigcode", {"multi_query": False}),
    "gpt_bigcode-not-scaled": ("gpt_bigcode", {"scale_attn_weights": False}),
    "gpt_bigcode-half-softmax": ("gpt_bigcode", {"attention_softmax_in_fp32": False}),
    "gpt_bigcode-inner": ("gpt_bigcode", {"n_inner": 20, "activation_function": "relu"}),
    "prophetnet-one-prediction": ("prophetnet", {"ngram": 1}),
    "prophetnet-three-predictions": ("prophetnet", {"ngram": 3}),
    "prophetnet-buckets": ("prophetnet", {"num_buckets": 7, "relative_max_distance": 5}),
    "prophetnet-loss": ("prophetnet", {"disable_ngram_loss": True, "eps": 0.1}),
    "prophetnet-relu": ("prophetnet", {"activation_function": "relu"}),
    "prophetnet-other-padding": ("prophetnet", {"pad_token_id": 3}),
    "bart-scaled-embedding": ("bart", {"scale_embedding": True}),
    "bart-relu": ("bart", {"activation_function": "relu"}),
    "mbart-gelu": ("mbart", {"activation_function": "gelu", "scale_embedding": False}),
    "trocr-learned": ("trocr", {"use_learned_position_embeddings": True, "scale_embedding": False}),
    "trocr-no-embedding-norm": ("trocr", {"layernorm_embedding": False}),
    "trocr-reads-states-as-they-are": ("trocr", {"d_model": 16, "cross_attention_hidden_size": 24}),
    "roberta-relu": ("roberta", {"hidden_act": "relu", "pad_token_id": 3}),
    "xmod-second-language": (
        "xmod",
        {"languages": ("en_XX", "de_DE"), "default_language": "de_DE", "pre_norm": True},
    ),
    "xmod-own-norm": ("xmod", {"adapter_layer_norm": True, "adapter_reduction_factor": 4}),
    "xmod-no-norm": ("xmod", {"adapter_reuse_layer_norm": False, "ln_before_adapter": False}),
    "xmod-plain-residual": ("xmod", {"ln_before_adapter": False}),
    "whisper-scaled-embedding": ("whisper", {"scale_embedding": True}),
    "plbart-relu": ("plbart", {"scale_embedding": False, "activation_function": "relu"}),
    "blenderbot-not-scaled": ("blenderbot", {"scale_embedding": False}),
    "blenderbot-small-not-scaled": ("blenderbot-small", {"scale_embedding": False}),
    "pegasus-not-scaled": ("pegasus", {"scale_embedding": False}),
    "marian-not-scaled": ("marian", {"scale_embedding": False}),
    "marian-not-shared": ("marian", {"share_encoder_decoder_embeddings": False}),
    "bigbird-pegasus-bias": ("bigbird_pegasus", {"use_bias": True, "scale_embedding": False}),
    "xglm-blank-position": ("xglm", {"scale_embedding": False, "pad_token_id": 4}),
} | {f"{name}-untied": (name, {"tie_word_embeddings": False}) for name in DECODERS}


def assert_same_outputs(pair: Pair, inputs: np.ndarray, mask: np.ndarray | None, **given) -> None:
    """Asserts that shapes, encoder states, logits and, given labels, the loss are the same."""
    with torch.no_grad():
        theirs = pair.call(inputs, mask, **given)
    ours = pair.ours(inputs, mask, **given)
    for name, tolerance in (("encoder_last_hidden_state", 5e-5), ("logits", 1e-4)):
        found, expected = np.asarray(getattr(ours, name)), getattr(theirs, name).numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)
    if "labels" in given:
        assert float(ours.loss) == pytest.approx(float(theirs.loss), rel=1e-5)


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_outputs_without_a_mask_are_those_of_pytorch(pair, encoder, decoder):
    inputs, _ = speech(ENCODERS[encoder])
    assert_same_outputs(pair(encoder, decoder), inputs, None, labels=text())


@pytest.mark.parametrize(("encoder", "decoder"), MASKED)
def test_outputs_with_a_ragged_mask_are_those_of_pytorch(pair, encoder, decoder):
    inputs, mask = speech(ENCODERS[encoder])
    assert_same_outputs(pair(encoder, decoder), inputs, mask, labels=text())


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_mask_of_decoder_tokens_hides_what_it_hides_in_pytorch(pair, decoder):
    inputs, _ = speech(ENCODERS["whisper"])
    tokens = np.abs(text())
    hole_then_padding = np.array([[1, 1, 0, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0, 0], [1] * 7])
    given = {"decoder_input_ids": tokens % VOCAB, "decoder_attention_mask": hole_then_padding}
    assert_same_outputs(pair("whisper", decoder), inputs, None, **given)


@pytest.mark.parametrize("name", VARIED_DECODERS)
def test_every_setting_of_a_decoder_means_what_it_means_in_pytorch(name, tmp_path):
    base, changes = VARIED_DECODERS[name]
    pair = build(SHALLOW, vary(DECODERS[base], **changes), tmp_path)
    inputs, _ = speech(SHALLOW)
    assert_same_outputs(pair, inputs, None, labels=text())


@pytest.mark.parametrize(
    ("fields", "projected"),
    [
        pytest.param({"output_hidden_size": 32}, True, id="decoder-width-without-adapter"),
        pytest.param({"output_hidden_size": 20, "add_adapter": True}, True, id="adapter-of-20"),
        pytest.param({"output_hidden_size": 32, "add_adapter": True}, False, id="adapter-of-32"),
        pytest.param({"output_hidden_size": 20}, True, id="another-width-without-adapter"),
    ],
)
def test_the_projection_fits_whatever_width_the_encoder_announces(fields, projected, tmp_path):
    """To a BERT of width 32. The first two crash upstream: ``pytorch`` repairs the projection."""
    encoder = vary(SHALLOW, **fields)
    pair = build(encoder, DECODERS["bert"], tmp_path)
    assert pair.ours.module.project == projected
    inputs, mask = speech(encoder)
    assert_same_outputs(pair, inputs, mask, labels=text())
