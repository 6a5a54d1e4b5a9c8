"""The front door: random, joined, loaded and saved models, and what each refuses."""

import json
from copy import deepcopy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import DECODERS, ENCODERS, assert_same_tree, shallow_model, tiny_model
from flax.traverse_util import flatten_dict
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast, SpeechEncoderDecoderConfig

from speech_ed_flax import CheckpointError, ConfigError, FlaxSpeechEncoderDecoderModel
from speech_ed_flax.conversion.processor import Processor
from speech_ed_flax.conversion.save import save_weights

SPEECH = np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32)
TOKENS = np.array([[3, 9, 30, 7], [3, 11, 12, 2]])


def tokenizer_of(*words, **special):
    """Returns a tokenizer of whole words, whose ids are their positions."""
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **special)


# ------------------------------------------------------------------ random, from two configs


@pytest.fixture(scope="module")
def joint():
    return SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        deepcopy(ENCODERS["wav2vec2"]), deepcopy(DECODERS["bert"])
    )


def test_a_model_of_two_configs_is_random_by_its_seed(joint):
    first, again, other = (
        FlaxSpeechEncoderDecoderModel(deepcopy(joint), seed=seed) for seed in (0, 0, 1)
    )
    assert_same_tree(again.params, first.params)
    weight = first.params["decoder"]["transform"]["weight"]
    assert weight.dtype == jnp.float32
    assert jnp.abs(weight - other.params["decoder"]["transform"]["weight"]).max() > 0
    assert 0.01 < weight.std() < 0.03


def test_a_random_model_takes_its_token_ids_from_the_decoder(joint):
    model = FlaxSpeechEncoderDecoderModel(deepcopy(joint), params={"not": {"looked": "at"}})
    decoder = DECODERS["bert"]
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        assert getattr(model.config, name) == getattr(decoder, name)
        assert getattr(model.generation_config, name) == getattr(decoder, name)


def test_random_weights_can_be_halves(joint):
    params = FlaxSpeechEncoderDecoderModel(deepcopy(joint), dtype=jnp.bfloat16).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", ["decoder_start_token_id", "eos_token_id"])
def test_a_token_id_outside_the_vocabulary_is_refused(joint, name):
    config = deepcopy(joint)
    setattr(config, name, 48)
    with pytest.raises(ConfigError, match=f"{name}=48 is outside the decoder's vocabulary of 48"):
        FlaxSpeechEncoderDecoderModel(config, params={"not": {"looked": "at"}})


def test_what_cannot_be_derived_is_named_when_it_is_needed(joint):
    config = deepcopy(joint)
    config.decoder = BertConfig(
        **DECODERS["bert"].to_dict()
        | {"bos_token_id": None, "eos_token_id": None, "decoder_start_token_id": None}
    )
    params = tiny_model("wav2vec2", "bert").params
    model = FlaxSpeechEncoderDecoderModel(config, params=params)
    for call in (lambda: model(SPEECH, labels=TOKENS), lambda: model.generate(SPEECH)):
        with pytest.raises(ConfigError, match=r"set config\.decoder_start_token_id, or pass"):
            call()


# ------------------------------------------------------------------ two pretrained checkpoints


def ids_of(decoder):
    names = ("pad_token_id", "decoder_start_token_id", "eos_token_id")
    return {name: getattr(DECODERS[decoder], name) for name in names}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Saves a randomly initialised PyTorch model; returns its folder and its tensors."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    import transformers

    made = {}

    def make(kind, hf, **fields):
        key = (kind, hf.model_type, *fields.items())
        if key not in made:
            torch.manual_seed(len(made))
            config = type(hf)(**hf.to_dict() | fields)
            model = getattr(transformers, kind)(config)
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.randn(tensor.shape) * 0.3 + 0.1)
            folder = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            made[key] = folder, {n: t.numpy() for n, t in model.state_dict().items()}
        return made[key]

    return make


def contents(array):
    """Returns what is the same for a tensor however its axes are ordered."""
    return np.sort(np.asarray(array, np.float32), axis=None).tobytes()


def assert_pretrained(params, fresh, prefix, *states):
    """Asserts that every parameter that is not fresh holds the numbers of some tensor."""
    known = set()
    for tensor in (tensor for state in states for tensor in state.values()):
        known.add(contents(tensor))
        for parts in (2, 3):  # GPT-2 keeps query, key and value in one
            if tensor.ndim and tensor.shape[-1] % parts == 0:
                known |= {contents(piece) for piece in np.split(tensor, parts, axis=-1)}
    checked = 0
    for path, leaf in flatten_dict(params, sep="/").items():
        if path.startswith(prefix) and path not in fresh:
            assert contents(leaf) in known, path
            checked += 1
    assert checked > 20


def is_cross(path):
    return "/cross_attention" in path


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [
        ("Wav2Vec2Model", "wav2vec2"),
        ("Wav2Vec2ForCTC", "wav2vec2-adapter"),
        ("Wav2Vec2ForPreTraining", "wav2vec2"),
        ("HubertModel", "hubert"),
        ("HubertForCTC", "hubert-batch-norm"),
        ("WhisperModel", "whisper"),
        ("WhisperForConditionalGeneration", "whisper"),
    ],
)
def test_an_encoder_keeps_its_pretrained_weights(checkpoint, kind, encoder):
    fields = {} if encoder == "whisper" else {"vocab_size": 40}
    folder, state = checkpoint(kind, ENCODERS[encoder], **fields)
    decoder, _ = checkpoint("BartForCausalLM", DECODERS["bart"])
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        folder, decoder, **ids_of("bart")
    )
    assert_pretrained(model.params, model.fresh, "encoder/", state)
    assert not [path for path in model.fresh if path.startswith("encoder/")]
    assert not [path for path in model.fresh if path.startswith("decoder/")]
    assert model.config.encoder.model_type == ENCODERS[encoder].model_type


@pytest.mark.parametrize(
    ("kind", "decoder", "fields", "fresh"),
    [
        ("BertModel", "bert", {}, ("transform", "cross")),
        ("BertForMaskedLM", "bert", {}, ("cross",)),
        ("BertForPreTraining", "bert", {}, ("cross",)),
        ("BertLMHeadModel", "bert", {"is_decoder": True}, ("cross",)),
        ("BertLMHeadModel", "bert", {"is_decoder": True, "add_cross_attention": True}, ()),
        ("GPT2Model", "gpt2", {}, ("cross",)),
        ("GPT2LMHeadModel", "gpt2", {}, ("cross",)),
        ("GPT2LMHeadModel", "gpt2", {"add_cross_attention": True}, ()),
        ("BartModel", "bart", {}, ()),
        ("BartForConditionalGeneration", "bart", {}, ()),
        ("MBartModel", "mbart", {}, ()),
        ("MBartForConditionalGeneration", "mbart", {}, ()),
        ("WhisperForConditionalGeneration", "whisper", {}, ()),
    ],
)
def test_a_decoder_keeps_its_pretrained_weights_and_only_what_it_lacks_is_fresh(
    checkpoint, kind, decoder, fields, fresh
):
    encoder, _ = checkpoint("Wav2Vec2Model", ENCODERS["wav2vec2"])
    folder, state = checkpoint(kind, DECODERS[decoder], **fields)
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        encoder, folder, **ids_of(decoder)
    )
    assert_pretrained(model.params, model.fresh, "decoder/", state)
    of_decoder = {path for path in model.fresh if path.startswith("decoder/")}
    crossing = {p for p in flatten_dict(model.params, sep="/") if is_cross(p)}
    rest = of_decoder - crossing
    assert of_decoder >= crossing if "cross" in fresh else not of_decoder & crossing
    expected = {"transform/weight", "transform/bias", "transform_norm/scale"}
    expected |= {"transform_norm/bias", "head/bias"}
    assert rest == ({f"decoder/{p}" for p in expected} if "transform" in fresh else set())
    of_projection = {path for path in model.fresh if path.startswith("projection/")}
    assert bool(of_projection) == (model.config.decoder.hidden_size != 24)
    assert model.config.decoder.is_decoder
    assert model.config.decoder.add_cross_attention


def test_fields_reach_the_half_that_they_name_and_generation_keeps_its_settings(
    checkpoint, tmp_path
):
    encoder, _ = checkpoint("Wav2Vec2Model", ENCODERS["wav2vec2"])
    decoder, _ = checkpoint("BertForMaskedLM", DECODERS["bert"])
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        encoder,
        decoder,
        encoder_add_adapter=True,
        encoder_num_adapter_layers=1,
        encoder_layerdrop=0.25,
        decoder_hidden_dropout_prob=0.125,
        max_length=17,
        num_beams=3,
        **ids_of("bert"),
    )
    assert model.module.encoder.config.layer.layer_drop == 0.25
    assert model.module.decoder.config.layer.dropout == 0.125
    assert model.module.encoder.config.adapter.layers == 1
    assert {path for path in model.fresh if path.startswith("encoder/")} == {
        "encoder/adapter/layers_0/kernel",
        "encoder/adapter/layers_0/bias",
    }
    model.save_pretrained(tmp_path)
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    for kept in (model.generation_config, again.generation_config):
        assert (kept.max_length, kept.num_beams) == (17, 3)
    assert again.module == model.module
    assert_same_tree(again.params, model.params)


def test_one_whisper_given_twice_is_that_whisper(checkpoint):
    folder, _ = checkpoint("WhisperForConditionalGeneration", ENCODERS["whisper"])
    joined = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder)
    whole = FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    assert joined.fresh == whole.fresh == ()
    assert_same_tree(joined.params, whole.params)


def test_ids_that_nothing_gives_are_asked_for(checkpoint):
    nothing = dict.fromkeys(("bos_token_id", "eos_token_id", "decoder_start_token_id"))
    encoder, _ = checkpoint("Wav2Vec2Model", ENCODERS["wav2vec2"])
    decoder, _ = checkpoint("BertForMaskedLM", DECODERS["bert"], **nothing)
    join = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained
    with pytest.raises(ConfigError, match="pass decoder_start_token_id="):
        join(encoder, decoder)
    with pytest.raises(ConfigError, match="pass eos_token_id="):
        join(encoder, decoder, decoder_start_token_id=5)
    with pytest.raises(ConfigError, match="decoder_start_token_id=48 is outside"):
        join(encoder, decoder, decoder_start_token_id=48, eos_token_id=6)
    model = join(encoder, decoder, decoder_start_token_id=5, eos_token_id=6)
    assert (model.config.decoder_start_token_id, model.config.eos_token_id) == (5, 6)


def test_ids_come_from_the_tokenizer_if_the_config_has_none(checkpoint, tmp_path):
    nothing = dict.fromkeys(
        ("bos_token_id", "eos_token_id", "decoder_start_token_id", "pad_token_id")
    )
    encoder, _ = checkpoint("Wav2Vec2Model", ENCODERS["wav2vec2"])
    decoder, _ = checkpoint("BertForMaskedLM", DECODERS["bert"], **nothing)
    for path in decoder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    words = ("<unk>", "[PAD]", "[CLS]", "[SEP]", "yes")
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer_of(*words, **special).save_pretrained(tmp_path)
    model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(encoder, tmp_path)
    for config in (model.config, model.generation_config):
        ids = config.pad_token_id, config.decoder_start_token_id, config.eos_token_id
        assert ids == (1, 2, 3)


def test_unknown_fields_and_wrong_checkpoints_are_refused_in_a_sentence(checkpoint, tmp_path):
    encoder, _ = checkpoint("Wav2Vec2Model", ENCODERS["wav2vec2"])
    decoder, _ = checkpoint("BertForMaskedLM", DECODERS["bert"])
    tiny_model("wav2vec2", "bert").save_pretrained(tmp_path)
    front = FlaxSpeechEncoderDecoderModel
    join = front.from_encoder_decoder_pretrained
    with pytest.raises(ConfigError, match="encoder_add_adaptor: a wav2vec2 config has no"):
        join(encoder, decoder, encoder_add_adaptor=True)
    with pytest.raises(CheckpointError, match="joint model already: use from_pretrained"):
        join(tmp_path, decoder)
    with pytest.raises(CheckpointError, match="from_encoder_decoder_pretrained"):
        front.from_pretrained(decoder)
    with pytest.raises(ConfigError, match=r"encoder\.model_type='bert' is not supported: use one"):
        join(decoder, decoder)
    with pytest.raises(ConfigError, match=r"decoder\.model_type='wav2vec2' is not supported"):
        join(encoder, encoder)
    with pytest.raises(CheckpointError, match="missing: it is not a folder"):
        front.from_pretrained(tmp_path / "missing")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        ConfigError, match="it has no cross-attention, so it would silently be deaf"
    ):
        join(encoder, tmp_path)


# ------------------------------------------------------------------ calls


def test_labels_give_a_loss_to_differentiate_and_compile():
    model = shallow_model("bert")
    labels = np.where(TOKENS == 2, -100, TOKENS)

    @jax.jit
    def step(params):
        return jax.value_and_grad(lambda p: model(SPEECH, labels=labels, params=p).loss)(params)

    loss, gradient = step(model.params)
    output = model(SPEECH, labels=labels)
    np.testing.assert_allclose(loss, output.loss, rtol=1e-6)
    likelihood = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(output.logits)), np.maximum(labels, 0)[..., None], -1
    )[..., 0]
    np.testing.assert_allclose(loss, -likelihood[labels >= 0].mean(), rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
    assert np.abs(gradient["encoder"]["feature_projection"]["weight"]).max() > 0
    assert np.abs(gradient["decoder"]["tokens"]["embedding"]).max() > 0


def test_the_names_of_the_inputs_mean_the_same():
    model = shallow_model("bert")
    expected = model.encode(SPEECH).last_hidden_state
    for name in ("input_values", "input_features"):
        assert (model.encode(**{name: SPEECH}).last_hidden_state == expected).all()


def test_encode_and_decode_are_the_call_in_two_parts():
    model = shallow_model("bert")
    mask = np.arange(400) < np.array([[400], [300]])
    expected = model(SPEECH, mask, TOKENS)
    encoded = model.encode(SPEECH, mask)
    decoded = model.decode(TOKENS, encoded)
    np.testing.assert_allclose(decoded.logits, expected.logits, rtol=0, atol=1e-5)
    cache = model.init_cache(2, 6)
    for at in range(TOKENS.shape[1]):
        step = model.decode(
            TOKENS[:, at : at + 1],
            encoded,
            past_key_values=cache,
            decoder_position_ids=np.full((2, 1), at),
        )
        cache = step.past_key_values
        np.testing.assert_allclose(step.logits[:, 0], expected.logits[:, at], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(decoder_input_ids=TOKENS), "exactly one of inputs, input_values"),
        (lambda m: m(SPEECH, input_values=SPEECH, labels=TOKENS), "exactly one of inputs"),
        (lambda m: m(SPEECH), "give decoder_input_ids or labels"),
        (lambda m: m(SPEECH, labels=TOKENS, train=True), "train=True needs dropout_rng"),
        (lambda m: m.encode(SPEECH, train=True), "train=True needs dropout_rng"),
        (
            lambda m: m.decode(TOKENS, m.encode(SPEECH), train=True),
            "train=True needs dropout_rng",
        ),
        (
            lambda m: m.decode(TOKENS, m.encode(SPEECH), past_key_values=m.init_cache(2, 4)),
            "need decoder_position_ids",
        ),
        (lambda m: m.generate(SPEECH, num_beans=2), "num_beans: no such setting"),
        (lambda m: m(SPEECH[0], labels=TOKENS), "inputs"),
        (lambda m: m(SPEECH, np.ones((2, 300)), TOKENS), "attention_mask"),
        (lambda m: m(SPEECH, decoder_input_ids=TOKENS[:1]), "decoder_input_ids"),
        (lambda m: m(SPEECH, decoder_input_ids=np.ones((2, 33), int)), "32 positions"),
        (lambda m: m(SPEECH, labels=np.ones((2, 33), int)), "32 positions"),
        (lambda m: m.generate(SPEECH, max_length=33), "the decoder has 32 positions"),
        (lambda m: m.generate(SPEECH, max_length="long"), "max_length"),
        (lambda m: m.generate(SPEECH, max_length=1), "max_length is 1 but the prompt has 1"),
        (lambda m: m.generate(SPEECH, num_beams=0), "num_beams is 0: set it to 1 or more"),
        (lambda m: m.generate(SPEECH, bad_words_ids=[[48]]), "the vocabulary ends at 47"),
        (lambda m: m.generate(SPEECH, guidance_scale=2.0), "guidance_scale is set to 2.0"),
        (lambda m: m.generate(SPEECH, language="de"), "for mBART pass target_language"),
        (lambda m: m.generate(SPEECH, target_language="de"), "only mBART decoders choose"),
        (
            lambda m: m.generate(SPEECH, decoder_input_ids=np.ones((3, 2), int)),
            r"decoder_input_ids has shape \[3, 2\]: it must be \[2, prompt\]",
        ),
        (lambda m: m.with_padding("zero"), "padding='zero' is not known"),
        (lambda m: m.transcribe((np.zeros(800, np.float32), 16_000)), "preprocessor_config"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_do(call, message):
    with pytest.raises(ConfigError, match=message) as caught:
        call(shallow_model("bert"))
    assert str(caught.value).endswith((".", "?"))


def test_a_spectrogram_of_another_shape_is_refused():
    model = tiny_model("whisper", "whisper")
    with pytest.raises(ConfigError, match=r"input_features has shape \[80, 3000\]"):
        model.encode(np.zeros((1, 80, 3000), np.float32))


def test_a_language_chooses_the_first_token_of_mbart():
    words = ("<s>", "<pad>", "</s>", "<unk>", "ja", "en_XX", "de_DE", "<extra>")
    given = shallow_model("mbart")
    model = FlaxSpeechEncoderDecoderModel(
        given.config,
        module=given.module,
        params=given.params,
        processor=Processor(None, tokenizer_of(*words)),
    )
    for language, token in (("de", 6), ("de_DE", 6), ("en", 5), ("en_XX", 5)):
        found = model.generate(SPEECH, target_language=language, max_length=5).sequences
        assert found[:, 1].tolist() == [token, token]
    with pytest.raises(ConfigError, match=r"'fr' is not in the tokenizer \(it has de_DE, en_XX\)"):
        model.generate(SPEECH, target_language="fr")
    with pytest.raises(ConfigError, match="needs the checkpoint's tokenizer"):
        given.generate(SPEECH, target_language="de")


# ------------------------------------------------------------------ folders


def test_a_saved_folder_holds_all_that_goes_with_the_weights(tmp_path):
    given = shallow_model("bart")
    processor = Processor(None, tokenizer_of("<s>", "<pad>", "</s>", "<unk>"))
    model = FlaxSpeechEncoderDecoderModel(
        given.config, module=given.module, params=given.params, processor=processor
    )
    model.save_pretrained(tmp_path / "new" / "folder")
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }
    assert not [name for name in names if name.startswith(".")]
    card = (tmp_path / "new" / "folder" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "pipeline_tag: automatic-speech-recognition" in card


def test_a_model_card_that_somebody_wrote_is_kept(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    shallow_model("bart").save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model = tiny_model("wav2vec2-adapter", "bert")
    save_weights(folder, model.module, model.params, model.config)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A folder to damage: the weights of a tiny model, and its config."""
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    return tmp_path


def refuse(folder):
    """Returns what is said when a folder is loaded that must be refused."""
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    return str(caught.value)


def rewrite(folder, **changes):
    """Replaces fields of a config, as ``encoder__hidden_size=3``; ``...`` removes one."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        *parts, last = name.split("__")
        half = config[parts[0]] if parts else config
        if value is ...:
            del half[last]
        else:
            half[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_the_folder_loads_before_it_is_damaged(folder):
    FlaxSpeechEncoderDecoderModel.from_pretrained(folder)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_half_or_its_model_type_may_not_be_missing(folder, part):
    rewrite(folder, **{f"{part}__model_type": ...})
    assert f"{part}.model_type is missing" in refuse(folder)
    rewrite(folder, **{part: ...})
    assert f"{part}.model_type is missing" in refuse(folder)


@pytest.mark.parametrize(
    ("part", "known"),
    [("encoder", "hubert, wav2vec2, whisper"), ("decoder", "bart, bert, gpt2, mbart, whisper")],
)
def test_a_model_type_that_is_not_supported_is_answered_with_those_that_are(folder, part, known):
    rewrite(folder, **{f"{part}__model_type": "bert" if part == "encoder" else "m2m_100"})
    message = refuse(folder)
    assert "is not supported: use one of" in message
    assert all(name in message for name in known.split(", "))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "opt", "mistral", "gptj", "mamba"])
def test_a_language_model_that_cannot_listen_is_refused_with_the_reason(folder, kind):
    """PyTorch joins it, and writes the same whatever it hears."""
    rewrite(folder, decoder__model_type=kind)
    message = refuse(folder)
    assert f"decoder.model_type='{kind}' is not supported: it has no cross-attention" in message
    assert "deaf to the encoder" in message
    assert "use one that listens: bart, bert" in message


@pytest.mark.parametrize(("part", "kind", "meant"), [
    ("encoder", "wav2vec", "wav2vec2"), ("decoder", "mbard", "mbart"), ("decoder", "zzz", None)
])  # fmt: skip
def test_a_model_type_that_nobody_knows_is_answered_with_what_it_may_mean(
    folder, part, kind, meant
):
    rewrite(folder, **{f"{part}__model_type": kind})
    hint = f" (did you mean '{meant}'?)" if meant else ""
    assert f"{part}.model_type='{kind}' is not known{hint}: use one of " in refuse(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\x00\x01", '{"a": 1} trailing'])
def test_a_config_that_is_no_json_object_is_refused_by_name(folder, content):
    (folder / "config.json").write_text(content)
    assert str(folder / "config.json") in refuse(folder)


def test_a_config_cut_short_is_refused_by_name(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: len(text) // 2])
    assert str(folder / "config.json") in refuse(folder)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_config_nested_a_hundred_thousand_deep_is_refused_by_name(folder, opening):
    (folder / "config.json").write_text(opening * 100_000)
    assert str(folder / "config.json") in refuse(folder)


def test_a_config_of_megabytes_is_refused_by_name(folder):
    rewrite(folder, comment="x" * (2 << 20))
    assert str(folder / "config.json") in refuse(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder__hidden_size": -1},
        {"encoder__hidden_size": 0},
        {"encoder__num_attention_heads": 5},
        {"encoder__num_attention_heads": 0},
        {"encoder__num_hidden_layers": 10**9},
        {"encoder__num_hidden_layers": 0},
        {"encoder__num_adapter_layers": 10**9},
        {"encoder__adapter_kernel_size": -1},
        {"encoder__output_hidden_size": -1},
        {"encoder__conv_kernel": [10, 3]},
        {"encoder__conv_kernel": [0, 0, 0]},
        {"encoder__conv_dim": [-1, -1, -1]},
        {"encoder__num_conv_pos_embeddings": 0},
        {"encoder__num_conv_pos_embedding_groups": 0},
        {"encoder__num_conv_pos_embedding_groups": 7},
        {"encoder__feat_extract_norm": "batch"},
        {"encoder__feat_extract_activation": "snake"},
        {"encoder__hidden_size": "sixteen"},
        {"decoder__num_hidden_layers": 10**9},
        {"decoder__num_attention_heads": 7},
        {"decoder__vocab_size": -1},
        {"decoder__vocab_size": 10**12},
        {"decoder__max_position_embeddings": 0},
        {"decoder__max_position_embeddings": 10**12},
        {"decoder__type_vocab_size": 0},
        {"decoder__hidden_act": "snake"},
        {"decoder__cross_attention_hidden_size": 7},
    ],
    ids=lambda changes: "-".join(f"{n}={v}" for n, v in changes.items()),
)
@pytest.mark.timeout(60)  # what is not refused may never end
def test_a_size_that_makes_no_model_is_refused(folder, changes):
    rewrite(folder, **changes)
    refuse(folder)


def test_a_config_chooses_no_code(folder):
    canary = folder / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    evil = {
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"},
        "trust_remote_code": True,
        "custom_pipelines": {"any": {"impl": "evil.Evil"}},
        "_attn_implementation": "evil/kernel",
        "_attn_implementation_internal": "evil/kernel",
    }
    config = json.loads((folder / "config.json").read_text())
    for half in (config, config["encoder"], config["decoder"]):
        half |= evil
    (folder / "config.json").write_text(json.dumps(config))
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    assert not canary.exists()
    again = folder / "again"
    model.save_pretrained(again)
    assert "evil" not in (again / "config.json").read_text()


def test_a_folder_without_config_or_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "it holds no weights" in refuse(folder)
    (folder / "config.json").unlink()
    assert "config.json" in refuse(folder)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_generation_config_is_refused_by_name(folder, content):
    (folder / "generation_config.json").write_text(content)
    assert "generation_config.json" in refuse(folder)
