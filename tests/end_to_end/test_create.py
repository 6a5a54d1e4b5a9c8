"""New models of two halves: what they take from checkpoints, what is new, and that they work."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import assert_same_tree, make_model
from families import BART, SHALLOW, WHISPER
from flax.traverse_util import flatten_dict
from sounds import speech_like
from transformers import WhisperConfig

from speech_ed_flax import ConfigError, FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.features import LogMelFeatures, WaveformFeatures
from speech_ed_flax.cli import main
from speech_ed_flax.conversion.processor import Processor, fit_features
from speech_ed_flax.creation import create
from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.encoders.wav2vec2 import Wav2Vec2Config
from speech_ed_flax.transcription import Thresholds

SIZES = WHISPER | {"max_source_positions": 100, "vocab_size": 12}
OF_WAV2VEC2 = {
    name: value
    for name, value in SHALLOW.to_diff_dict().items()
    if name not in ("transformers_version", "dtype")
}
OF_BART = {"model_type": "bart", **BART, "decoder_layers": 1, "max_position_embeddings": 32}
OF_BART.pop("vocab_size")
IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


@pytest.fixture(scope="module")
def letters():
    return train_tokenizer(["one two three"], "char")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory, letters):
    """A Whisper of two layers and 2 s, in a folder; and the same one in memory."""
    model = make_model(WhisperConfig(**SIZES), WhisperConfig(**SIZES))
    model.processor = Processor(LogMelFeatures(feature_size=8, chunk_length=2), letters)
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def cut(whisper):
    """That Whisper with one encoder layer and half the time."""
    folder, _ = whisper
    return create(
        {"from": folder, "max_source_positions": 50, "encoder_layers": 1}, {"from": folder}
    )


@pytest.fixture(scope="module")
def mixed(whisper, letters):
    """Half of that Whisper's encoder, and a new decoder for letters."""
    folder, _ = whisper
    changes = {"max_source_positions": 50, "mask_time_prob": 0.25, "dropout": 0.125}
    changes |= {"apply_spec_augment": True}
    fields = OF_BART | {"d_model": 16, "tie_word_embeddings": False}
    return create({"from": folder, **changes}, fields, letters)


# ------------------------------------------------------------------ what is taken


def test_a_shorter_whisper_has_the_first_layers_and_positions_and_says_so(cut, whisper):
    _, whole = whisper
    assert cut.shortened == (
        "encoder: the first 1 of 2 layers",
        "encoder: the first 50 of 100 positions",
    )
    assert cut.fresh == ()
    theirs, ours = (flatten_dict(model.params, sep="/") for model in (whole, cut))
    assert not [path for path in ours if path.startswith("encoder/transformer/layers_1/")]
    for path, leaf in ours.items():
        expected = theirs[path][:50] if path == "encoder/positions/embedding" else theirs[path]
        np.testing.assert_array_equal(leaf, expected)


def test_its_features_have_its_length_and_long_recordings_are_cut_to_it(cut):
    assert cut.processor.features == LogMelFeatures(feature_size=8, chunk_length=1)
    assert cut.processor.features.to_hf()["nb_max_frames"] == 100
    speech = speech_like(2.5, 16_000)
    only_letters = {"suppress_tokens": [0, 1, 2, 3, 4, 5], "min_new_tokens": 2, "max_new_tokens": 2}
    unbounded = Thresholds(None, None)
    transcript = cut.transcribe((speech, 16_000), thresholds=unbounded, **only_letters)
    assert len(transcript.segments) >= 3
    assert max(part.end - part.start for part in transcript.segments) <= 1
    assert transcript.segments[-1].end == 2.5


def test_it_is_saved_and_loaded_as_it_is(cut, tmp_path):
    cut.save_pretrained(tmp_path)
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert again.module == cut.module
    assert again.processor.features == cut.processor.features
    assert_same_tree(again.params, cut.params)
    files = [
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("config", "preprocessor_config")
    ]
    assert files[0]["architectures"] == ["WhisperForConditionalGeneration"]
    assert (files[0]["max_source_positions"], files[1]["nb_max_frames"]) == (50, 100)


def test_a_new_decoder_is_new_and_the_encoder_keeps_its_weights(mixed, whisper):
    _, whole = whisper
    paths = flatten_dict(mixed.params, sep="/")
    assert set(mixed.fresh) == {path for path in paths if not path.startswith("encoder/")}
    np.testing.assert_array_equal(
        mixed.params["encoder"]["transformer"]["norm"]["scale"],
        whole.params["encoder"]["transformer"]["norm"]["scale"],
    )
    assert mixed.params["projection"]["weight"].shape == (16, 24)


def test_fields_of_training_are_fields_like_others(mixed):
    encoder = mixed.module.encoder.config
    assert (encoder.layer.dropout, encoder.augment.time.share) == (0.125, 0.25)


# ------------------------------------------------------------------ vocabulary


def assert_speaks(model, tokenizer):
    """Asserts that sizes, ids and the end of generation are the tokenizer's."""
    expected = dict(zip(IDS, (0, 1, 2, 1), strict=True))
    assert model.module.decoder.config.vocab == len(tokenizer)
    for config in (model.config, model.config.decoder, model.generation_config):
        known = {name: getattr(config, name) for name in IDS if hasattr(config, name)}
        assert {name: value for name, value in known.items() if value is not None} == {
            name: expected[name] for name in known if known[name] is not None
        }
    assert model.config.eos_token_id == 2
    assert getattr(model.generation_config, "forced_eos_token_id", None) is None
    assert not model.generation_config.suppress_tokens
    assert model.generation_config.max_length == model.module.decoder.config.positions
    assert model.processor.tokenizer is tokenizer


def test_a_new_decoder_has_the_size_and_ids_of_the_tokenizer(mixed, letters):
    assert_speaks(mixed, letters)


def test_a_new_vocabulary_gives_a_pretrained_decoder_new_embeddings_only(whisper):
    folder, whole = whisper
    words = train_tokenizer(["one two three four"], "word")
    model = create({"from": folder}, {"from": folder}, words)
    assert_speaks(model, words)
    assert model.fresh == ("decoder/tokens/embedding",)
    np.testing.assert_array_equal(
        model.params["decoder"]["positions"]["embedding"],
        whole.params["decoder"]["positions"]["embedding"],
    )


def test_the_vocabulary_that_a_decoder_has_already_changes_nothing(whisper, letters, tmp_path):
    folder, whole = whisper
    letters.save_pretrained(tmp_path)
    model = create({"from": folder}, {"from": folder}, tmp_path)
    assert model.fresh == model.shortened == ()
    assert_same_tree(model.params, whole.params)
    assert model.config.decoder_start_token_id == WHISPER["decoder_start_token_id"]


def test_two_configs_and_a_tokenizer_make_a_model_by_their_seed(letters):
    model = create(OF_WAV2VEC2, OF_BART, letters, seed=1)
    assert_speaks(model, letters)
    assert set(model.fresh) == set(flatten_dict(model.params, sep="/"))
    other, same = (FlaxSpeechEncoderDecoderModel(model.config, seed=seed) for seed in (0, 1))
    assert_same_tree(same.params, model.params)
    weights = [m.params["encoder"]["feature_projection"]["weight"] for m in (model, other)]
    assert jnp.abs(weights[0] - weights[1]).max() > 0


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_new_encoders_hear_waveforms_with_a_mask_where_their_norm_needs_one(norm):
    config = Wav2Vec2Config.from_hf(type(SHALLOW)(**OF_WAV2VEC2 | {"feat_extract_norm": norm}))
    expected = WaveformFeatures(do_normalize=True, return_attention_mask=norm == "layer")
    assert fit_features(None, config) == expected


# ------------------------------------------------------------------ in PyTorch


def test_pytorch_loads_a_shorter_whisper_and_scores_the_same(cut, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import WhisperForConditionalGeneration

    cut.save_pretrained(tmp_path)
    theirs, info = WhisperForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, 9_000).astype(np.float32)
    features, _ = cut.processor.features.features([clip])
    tokens = np.array([[1, 5, 6, 7]])
    with torch.no_grad():
        given = torch.from_numpy(features), torch.from_numpy(tokens)
        expected = theirs.eval()(given[0], decoder_input_ids=given[1]).logits.numpy()
    found = cut(features, decoder_input_ids=tokens).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pytorch_finds_and_uses_every_tensor_of_half_a_whisper_and_a_new_decoder(mixed, tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load_file
    from transformers import SpeechEncoderDecoderModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    mixed.save_pretrained(tmp_path)
    config = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path).config
    theirs = SpeechEncoderDecoderModel(config, encoder=WhisperEncoder(config.encoder))
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("of_encoder", "of_decoder", "message"),
    [
        ({"encoder_layers": 3}, OF_BART, "encoder: the config asks for 3 layers, the checkpoint"),
        ({"max_source_positions": 40}, OF_BART, "80 frames, which are no whole number of seconds"),
        ({"encoder_layer": 1}, OF_BART, r"no 'encoder_layer' \(did you mean 'encoder_layers'\?\)"),
        ({"encoder_layers": "1"}, OF_BART, "encoder_encoder_layers: .*expected int, got str"),
        ({}, {"d_model": 16}, "decoder.model_type is missing"),
        ({}, {"model_type": "brat"}, "decoder.model_type='brat' is not known"),
        ({}, {"model_type": "wav2vec2"}, "'wav2vec2' is not supported: use one of bart, bert"),
        ({}, {"model_type": "llama", "n_layer": 2}, "it has no cross-attention, so it would"),
        (
            {},
            {"model_type": "bart", "num_hidden_layers": 1},
            "it is encoder_layers; name decoder_layers",
        ),
        ({}, OF_BART | {"vocab_size": 5}, "decoder_vocab_size=5: the tokenizer has 12 tokens"),
        ({}, OF_BART | {"decoder_start_token_id": 99}, "decoder_start_token_id=99 is outside"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(
    whisper, letters, of_encoder, of_decoder, message
):
    with pytest.raises(ConfigError, match=message):
        create({"from": whisper[0], **of_encoder}, of_decoder, letters)


# ------------------------------------------------------------------ the command


def test_the_command_makes_a_folder_and_says_what_is_new(whisper, tmp_path, capsys):
    folder, _ = whisper
    config, target = tmp_path / "decoder.json", tmp_path / "model"
    config.write_text(json.dumps(OF_BART))
    command = ["create", str(target), "--encoder", str(folder), "--decoder", str(config)]
    command += ["--tokenizer", str(folder), "--encoder-config", "encoder_layers=1"]
    command += ["max_source_positions=50", "--decoder-config", "decoder_ffn_dim=48", "--seed", "3"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"encoder: whisper from {folder}, ")
    assert lines[1:3] == ["  the first 1 of 2 layers", "  the first 50 of 100 positions"]
    assert lines[3].startswith("decoder: bart, ")
    assert lines[3].endswith(" parameters, all at random")
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(target)
    assert model.module.decoder.config.layer.up_width == 48
    assert main(command) == 2
    assert "it is not empty; name another folder, or use --force" in capsys.readouterr().err


def test_the_command_lists_the_new_modules_of_a_pretrained_half(whisper, tmp_path, capsys):
    folder, _ = whisper
    train_tokenizer(["one two"], "word").save_pretrained(tmp_path / "words")
    halves = ["--encoder", str(folder), "--decoder", str(folder)]
    target = tmp_path / "model"
    assert main(["create", str(target), *halves, "--tokenizer", str(tmp_path / "words")]) == 0
    assert "  at random: decoder/tokens" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--decoder", "none.yaml"], 2, "none.yaml: there is no such file"),
        (["--decoder", "{folder}", "--decoder-config", "dropout"], 2, "write it as name=value"),
        (["--decoder", "{folder}", "--decoder-config", "model_type=vits"], 4, "vits"),
        (["--decoder", "{folder}", "--tokenizer", "{empty}"], 4, "it holds no tokenizer"),
    ],
)
def test_the_command_writes_nothing_where_a_half_is_unusable(
    whisper, tmp_path, capsys, options, code, message
):
    (tmp_path / "empty").mkdir()
    places = {"folder": whisper[0], "empty": tmp_path / "empty"}
    options = [option.format(**places) for option in options]
    target = tmp_path / "model"
    assert main(["create", str(target), "--encoder", str(whisper[0]), *options]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert {path.name for path in tmp_path.iterdir()} == {"empty"}
