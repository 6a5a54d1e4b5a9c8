"""Published checkpoints convert and generate as their authors meant: every flag of their configs.

``data/published`` holds configs as they were published, one of each kind; what is said here of the
others is how they differ. Only widths, heads and depths are smaller than published, so that PyTorch
can write a checkpoint of random weights: the vocabularies, and the languages in them, are whole.
"""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, SpeechEncoderDecoderConfig

from speech_ed_flax import FlaxSpeechEncoderDecoderModel

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from transformers import SpeechEncoderDecoderModel  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "published"
SPEECH = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
MASK = (np.arange(4000) < np.array([[4000], [3000]])).astype(np.int64)
TOKENS = np.array([[2, 9, 30, 7, 8], [2, 11, 12, 2, 1]])


def published(name, encoder=None, decoder=None, **fields):
    """Returns the published files of ``name``, with other values of some fields."""
    files = json.loads((DATA / f"{name}.json").read_text())
    for config in files.values():
        config.update({key: value for key, value in fields.items() if key in config})
    files["config"]["encoder"] |= encoder or {}
    if decoder is not None:
        files["config"]["decoder"] = decoder
    return files


BART_LARGE = {
    "d_model": 1024, "decoder_layers": 12, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
}  # fmt: skip
BERT_LARGE = {
    "model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "type_vocab_size": 2, "vocab_size": 30522, "pad_token_id": 0, "is_decoder": True,
    "position_embedding_type": "absolute", "add_cross_attention": True,
}  # fmt: skip
ROBERTA_LARGE = BERT_LARGE | {
    "model_type": "roberta", "layer_norm_eps": 1e-5, "max_position_embeddings": 514,
    "type_vocab_size": 1, "vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2,
}  # fmt: skip
GPT2_MEDIUM = {
    "model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024,
    "n_ctx": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, "vocab_size": 50257,
    "bos_token_id": 50256, "eos_token_id": 50256, "predict_special_tokens": True,
    "is_decoder": True, "add_cross_attention": True,
}  # fmt: skip

XLS_R, BASE = "wav2vec2-xls-r-300m-en-to-15", "wav2vec2-2-bart-base"
XLS_R_1B = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 48}
XLS_R_2B = {"hidden_size": 1920, "intermediate_size": 7680, "num_hidden_layers": 48}
LV60 = published("asr-voxrex-bart-base")["config"]["encoder"] | {"add_adapter": False}
BART = published(BASE)["config"]["decoder"]

TO_GERMAN = {
    "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "num_beams": 5,
    "forced_bos_token_id": 250003, "forced_eos_token_id": 2, "max_length": 200,
    "early_stopping": True,
}  # fmt: skip
TO_ENGLISH = TO_GERMAN | {"forced_bos_token_id": 250004}
LEAKED = {
    "decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "num_beams": 5,
    "max_length": 200, "no_repeat_ngram_size": 3, "forced_eos_token_id": 2, "early_stopping": True,
}  # fmt: skip

VOXREX = {
    "decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "max_length": 40,
    "forced_eos_token_id": 2,
}  # fmt: skip

CHECKPOINTS = {
    "facebook/wav2vec2-xls-r-300m-en-to-15": published(XLS_R),
    "facebook/wav2vec2-xls-r-1b-21-to-en": published(XLS_R, XLS_R_1B, forced_bos_token_id=250004),
    "facebook/wav2vec2-xls-r-2b-en-to-15": published(XLS_R, XLS_R_2B),
    "patrickvonplaten/wav2vec2-2-bart-base": published(BASE),
    "patrickvonplaten/wav2vec2-2-bart-large": published(BASE, LV60, BART | BART_LARGE),
    "KBLab/asr-voxrex-bart-base": published("asr-voxrex-bart-base"),
    "BUT-FIT/wav2vec2-base_bart-base_voxpopuli-en": published(BASE, {"add_adapter": True}),
    "hf-internal-testing/tiny-random": published("tiny-random-speech-encoder-decoder"),
    "speech-seq2seq/wav2vec2-2-bert-large": published(BASE, LV60, BERT_LARGE),
    "speech-seq2seq/wav2vec2-2-gpt2-medium": published(BASE, LV60, GPT2_MEDIUM),
    "speech-seq2seq/wav2vec2-2-roberta-large": published(BASE, LV60, ROBERTA_LARGE),
}

GENERATION = {
    "facebook/wav2vec2-xls-r-300m-en-to-15": TO_GERMAN,
    "facebook/wav2vec2-xls-r-1b-21-to-en": TO_ENGLISH,
    "patrickvonplaten/wav2vec2-2-bart-base": LEAKED,
    "KBLab/asr-voxrex-bart-base": VOXREX,
    "hf-internal-testing/tiny-random": {"pad_token_id": 1, "decoder_start_token_id": 1},
}
"""What decides about their texts; BART's decoder config gives what the joint config leaves open."""

PROJECTED = {"KBLab/asr-voxrex-bart-base", "hf-internal-testing/tiny-random"}


def shrunk(half):
    """Returns the config of a half with the proportions of its own, and the size of a toy."""
    smaller = deepcopy(half)
    for name, value in half.items():
        if name in ("hidden_size", "output_hidden_size", "d_model", "n_embd") and value > 64:
            smaller[name] = value // 32
        elif name.endswith(("intermediate_size", "ffn_dim")):
            smaller[name] = 48
        elif name.endswith(("attention_heads", "n_head")) and value > 4:
            smaller[name] = value // 4
        elif name.endswith(("hidden_layers", "decoder_layers", "encoder_layers", "n_layer")):
            smaller[name] = 1
        elif name == "conv_dim":
            smaller[name] = [8] * len(value)
        elif name.startswith("num_conv_pos") and value > 8:
            smaller[name] = value // 8 * 2
    return smaller


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Returns the folder of a published checkpoint, and the PyTorch model that is in it."""

    @cache
    def write(name):
        files, folder = CHECKPOINTS[name], tmp_path_factory.mktemp("published")
        halves = {part: shrunk(files["config"][part]) for part in ("encoder", "decoder")}
        files = files | {"config": files["config"] | halves}
        twin = SpeechEncoderDecoderModel(SpeechEncoderDecoderConfig.from_dict(files["config"]))
        torch.manual_seed(0)
        for tensor in twin.state_dict().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape))
        twin.eval().save_pretrained(folder)
        (folder / "generation_config.json").unlink()  # which PyTorch writes whatever there was
        for file, fields in files.items():
            (folder / f"{file}.json").write_text(json.dumps(fields))
        return folder, twin

    return write


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_published_checkpoint_scores_as_in_pytorch(name, checkpoint):
    folder, twin = checkpoint(name)
    ours = FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    assert ours.module.project == (name in PROJECTED)
    given = {"attention_mask": MASK, "decoder_input_ids": TOKENS}
    with torch.no_grad():
        theirs = twin(
            torch.from_numpy(SPEECH), **{n: torch.from_numpy(a) for n, a in given.items()}
        )
    np.testing.assert_allclose(ours(SPEECH, **given).logits, theirs.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GENERATION)
def test_a_published_checkpoint_generates_with_its_own_settings(name, checkpoint):
    folder, _ = checkpoint(name)
    ours = FlaxSpeechEncoderDecoderModel.from_pretrained(folder).generation_config
    theirs = SpeechEncoderDecoderModel.from_pretrained(folder).generation_config
    for setting, value in GENERATION[name].items():
        assert getattr(ours, setting) == getattr(theirs, setting) == value, setting


CODES = {"ar_AR": 250001, "de_DE": 250003, "et_EE": 250006, "tr_TR": 250023, "sl_SI": 250052}


def test_xls_r_writes_the_language_that_it_is_asked_for(checkpoint):
    """By its code; or by its token, as the languages must that borrow that of another."""
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | CODES
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    folder, _ = checkpoint("facebook/wav2vec2-xls-r-300m-en-to-15")
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>").save_pretrained(folder)
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    quick = {"max_length": 4, "num_beams": 1}
    asked = [({}, 250003), ({"forced_bos_token_id": 250005}, 250005)]
    asked += [({"target_language": "3"}, 3)]
    asked += [({"target_language": code}, token) for code, token in CODES.items()]
    asked += [({"target_language": code.split("_")[0]}, token) for code, token in CODES.items()]
    for request, token in asked:
        found = model.generate(SPEECH, MASK, **request, **quick).sequences
        assert found[:, :2].tolist() == [[2, token]] * 2
