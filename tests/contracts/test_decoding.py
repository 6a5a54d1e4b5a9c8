"""Contract: decoding in steps is decoding at once, and generation compiles once for a shape."""

import re
from copy import deepcopy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import (
    DECODERS,
    ENCODERS,
    KINDS,
    SHALLOW_ENCODER,
    assert_close,
    make_model,
    shallow_model,
    tiny_model,
)
from families import joint
from flax.traverse_util import flatten_dict, unflatten_dict

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.compiled import EncoderOutput
from speech_ed_flax.conversion.names import torch_name
from speech_ed_flax.encoders import ENCODERS as ENCODER_FAMILIES
from speech_ed_flax.generation.generate import generate
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.layers.cache import empty_cache
from speech_ed_flax.model import build
from speech_ed_flax.paths import FEATURE_ENCODER

SOURCE, TARGET = 5, 7
SPLITS = [(1,) * TARGET, (3, 1, 3), (1, 3, 3)]


class Harness:
    """One decoder with random encoder states; every call of one shape is compiled once."""

    def __init__(self, name):
        model = tiny_model("hubert", name)
        self.module, self.variables = model.module, {"params": model.params}
        numbers = np.random.default_rng(0)
        width = self.module.decoder.config.width
        self.states = jnp.asarray(numbers.standard_normal((2, SOURCE, width)), jnp.float32)
        self.mask = jnp.asarray(np.arange(SOURCE) < np.array([[SOURCE], [3]]))
        vocab = self.module.decoder.config.vocab
        self.tokens = jnp.asarray(numbers.integers(0, vocab, (2, TARGET)), jnp.int32)
        self.decode = jax.jit(self._decode)
        self.context = self._context(self.states, self.mask)

    def _context(self, states, mask):
        return self.module.apply(self.variables, states, mask, method="context")

    def _decode(self, tokens, context, cache=None, position=0, mask=None, positions=None):
        arguments = (tokens, context, cache, position, mask, positions)
        return self.module.apply(self.variables, *arguments, method="decode")

    def in_chunks(self, sizes, length=TARGET, mask=None):
        """Returns the logits of all tokens, fed in chunks of these sizes into one cache."""
        cache = empty_cache(self.module.decoder.config, 2, length, jnp.float32)
        logits, position = [], 0
        for size in sizes:
            chunk = self.tokens[:, position : position + size]
            new, cache = self.decode(chunk, self.context, cache, jnp.int32(position), mask)
            logits.append(new)
            position += size
        return jnp.concatenate(logits, axis=1)


@pytest.fixture(scope="module", params=KINDS)
def harness(request):
    return Harness(request.param)


def test_any_split_of_the_tokens_gives_the_logits_of_all_at_once(harness):
    expected, no_cache = harness.decode(harness.tokens, harness.context)
    assert no_cache is None
    for split in SPLITS:
        assert_close(harness.in_chunks(split), expected)


def test_a_cache_longer_than_the_text_changes_nothing(harness):
    expected, _ = harness.decode(harness.tokens, harness.context)
    assert_close(harness.in_chunks((1,) * TARGET, length=TARGET + 4), expected)


def test_a_token_never_sees_those_after_it(harness):
    expected, _ = harness.decode(harness.tokens, harness.context)
    changed = harness.tokens.at[:, 4:].set((harness.tokens[:, 4:] + 1) % 40)
    logits, _ = harness.decode(changed, harness.context)
    assert_close(logits[:, :4], expected[:, :4], 1e-6)
    assert jnp.abs(logits[:, 4:] - expected[:, 4:]).max() > 1e-2


def test_what_the_context_masks_is_not_heard(harness):
    expected, _ = harness.decode(harness.tokens, harness.context)
    assert harness.mask[1].tolist() == [True] * 3 + [False] * 2
    context = harness._context(harness.states.at[1, 3:].set(100.0), harness.mask)
    assert_close(harness.decode(harness.tokens, context)[0], expected)
    context = harness._context(harness.states.at[1, 2].set(100.0), harness.mask)
    changed = harness.decode(harness.tokens, context)[0]
    assert_close(changed[0], expected[0])
    assert jnp.abs(changed[1] - expected[1]).max() > 1e-2


def test_a_row_that_hears_nothing_is_finite_and_independent_of_speech(harness):
    nothing = harness._context(harness.states, harness.mask.at[1].set(False))
    logits, _ = harness.decode(harness.tokens, nothing)
    other = harness._context(harness.states.at[1].multiply(-2.0), harness.mask.at[1].set(False))
    assert_close(harness.decode(harness.tokens, other)[0], logits, 1e-6)


def test_hidden_tokens_are_seen_by_no_other(harness):
    mask = jnp.ones((2, TARGET), bool).at[0, 2].set(False)
    expected, _ = harness.decode(harness.tokens, harness.context, mask=mask)
    changed = harness.tokens.at[0, 2].set((harness.tokens[0, 2] + 1) % 40)
    logits, _ = harness.decode(changed, harness.context, mask=mask)
    others = [0, 1, 3, 4, 5, 6]
    assert_close(logits[0, others], expected[0, others], 1e-6)
    assert_close(logits[1], expected[1], 1e-6)
    unmasked, _ = harness.decode(harness.tokens, harness.context)
    assert jnp.abs(unmasked[0, 3:] - expected[0, 3:]).max() > 1e-2
    assert_close(harness.in_chunks((1,) * TARGET, mask=mask), expected)


def test_left_padding_with_shifted_positions_gives_what_the_text_alone_gives(harness):
    text = harness.tokens[:, :5]
    expected, _ = harness.decode(text, harness.context)
    padded = jnp.pad(text, ((0, 0), (2, 0)))
    mask = jnp.arange(TARGET)[None] >= jnp.full((2, 1), 2)
    positions = jnp.broadcast_to(jnp.maximum(jnp.arange(TARGET) - 2, 0), (2, TARGET))
    logits, _ = harness.decode(padded, harness.context, mask=mask, positions=positions)
    assert_close(logits[:, 2:], expected)


def test_beams_share_the_context_of_their_utterance(harness):
    beams = 3
    rows = jnp.repeat(harness.tokens, beams, axis=0)
    rows = (rows + jnp.arange(2 * beams)[:, None]) % 40  # six different texts
    repeated = harness._context(
        jnp.repeat(harness.states, beams, axis=0), jnp.repeat(harness.mask, beams, axis=0)
    )
    expected, _ = harness.decode(rows, repeated)
    assert_close(harness.decode(rows, harness.context)[0], expected)


SPEECH = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_traced_once_for_a_shape(beams):
    model = shallow_model("bart")
    traces = []

    def counting(tokens, scores, length):
        traces.append(tokens.shape)
        return scores

    def run(speech, params=None):
        return model.generate(
            speech, num_beams=beams, max_length=6, logits_processor=[counting], params=params
        ).sequences

    first = run(SPEECH)
    once = len(traces)
    assert once > 0
    other = run(-SPEECH)
    assert first.shape[0] == other.shape[0] == 2
    run(SPEECH, jax.tree.map(lambda leaf: leaf * 1.01, model.params))
    assert len(traces) == once


def equations(jaxpr):
    """Yields every equation of a jaxpr, and of all jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def names(jaxpr):
    return [equation.primitive.name for equation in equations(jaxpr)]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("decoder", KINDS)
def test_generation_is_one_loop_that_neither_encodes_nor_copies_the_speech(decoder, beams):
    model = shallow_model(decoder)
    settings = GenerationSettings(max_length=6, num_beams=beams, eos_token_id=(2,))
    plan = Plan.of(settings, 1)
    rules = Rules(Limits.of(settings, 1, plan))
    run = partial(generate, model.module, plan=plan, rules=rules)
    prompt = jnp.ones((2, 1), jnp.int32)
    closed = jax.make_jaxpr(run)(model.params, jnp.asarray(SPEECH), None, prompt)

    (call,) = closed.jaxpr.eqns
    compiled = call.params["jaxpr"].jaxpr
    (loop,) = (equation for equation in compiled.eqns if equation.primitive.name == "while")
    assert names(compiled).count("while") == 1
    assert "scan" not in names(compiled)
    assert "conv_general_dilated" in names(compiled)

    body = loop.params["body_jaxpr"].jaxpr
    assert "conv_general_dilated" not in names(body)
    width, heads = model.module.decoder.config.width, model.module.decoder.config.layer.heads
    read = [
        variable.aval.shape
        for equation in equations(body)
        if equation.primitive.name == "dot_general"
        for variable in equation.invars
    ]
    frames = 7
    assert (2, heads, frames, width // heads) in read
    assert (2, frames, width) not in read  # keys and values enter the loop ready made
    made = [variable.aval.shape for e in equations(compiled) for variable in e.outvars]
    assert beams == 1 or (2 * beams, heads, frames, width // heads) not in made


RATES = (
    *("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"),
    *("resid_pdrop", "attn_pdrop", "embd_pdrop"),
    *("conformer_conv_dropout", "dropout_positions"),
    *("speech_encoder_dropout", "adaptor_dropout"),
)
LAYER_DROPS = {
    "encoder": ("layerdrop", "encoder_layerdrop", "speech_encoder_layerdrop"),
    "decoder": ("layerdrop", "decoder_layerdrop"),
}
UNREAD = {"sew-d": ("hidden_dropout",)}
"""Rates that upstream's model does not read either: another rate is in their place."""


def rates_of(hf, part):
    """Returns the names of all rates that a half of a model has."""
    unread = UNREAD.get(hf.model_type, ())
    names = [n for n in (*RATES, *LAYER_DROPS[part]) if hasattr(hf, n) and n not in unread]
    of_speech = [name for name in names if name.startswith(("speech_encoder_", "adaptor_"))]
    return of_speech or names  # the config of a whole translator has others for its text encoder


def with_rates(hf, chosen=(), rate=0.3):
    """Returns a copy of a config whose dropout rates are 0 but for the chosen."""
    hf = deepcopy(hf)
    for name in {*rates_of(hf, "encoder"), *rates_of(hf, "decoder")}:
        setattr(hf, name, 0.0)
    for name in chosen:  # in a second pass, as two names may be one field
        setattr(hf, name, rate)
    return hf


def draws_numbers(encoder, decoder, part, params):
    """Tells whether a part of a model draws random numbers when it is given a dropout key."""
    config = joint(encoder, decoder)
    model = FlaxSpeechEncoderDecoderModel(config, module=build(config), params=params)

    def run(params, key):
        inputs = jnp.zeros((1, *model.module.encoder.config.input_shape))
        if part == "encoder":
            return model.encode(inputs, train=True, dropout_rng=key, params=params)
        states = jnp.zeros((1, 2, model.module.decoder.config.width))
        given = EncoderOutput(states, None)
        tokens = jnp.zeros((1, 2), jnp.int32)
        return model.decode(tokens, given, train=True, dropout_rng=key, params=params)

    found = names(jax.make_jaxpr(run)(model.params, jax.random.key(0)).jaxpr)
    return any(name.startswith("random_bits") for name in found)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_rate_of_an_encoder_is_active_and_at_0_nothing_is_drawn(encoder):
    hf, decoder = ENCODERS[encoder], with_rates(DECODERS["bert"])
    params = tiny_model(encoder, "bert").params
    for rate in rates_of(hf, "encoder"):
        assert draws_numbers(with_rates(hf, [rate]), decoder, "encoder", params), rate
    assert not draws_numbers(with_rates(hf), decoder, "encoder", params)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_rate_of_a_decoder_is_active_and_at_0_nothing_is_drawn(decoder):
    hf, encoder = DECODERS[decoder], with_rates(ENCODERS["hubert"])
    params = tiny_model("hubert", decoder).params
    for rate in rates_of(hf, "decoder"):
        assert draws_numbers(encoder, with_rates(hf, [rate]), "decoder", params), rate
    assert not draws_numbers(encoder, with_rates(hf), "decoder", params)


def test_dropout_depends_on_the_key_and_is_off_without_training():
    model = make_model(with_rates(SHALLOW_ENCODER, RATES), DECODERS["bert"])
    first, second = (
        model.encode(SPEECH, train=True, dropout_rng=jax.random.key(seed)).last_hidden_state
        for seed in (0, 1)
    )
    again = model.encode(SPEECH, train=True, dropout_rng=jax.random.key(0)).last_hidden_state
    quiet = model.encode(SPEECH, dropout_rng=jax.random.key(0)).last_hidden_state
    assert (first == again).all()
    assert (quiet == model.encode(SPEECH).last_hidden_state).all()
    for different in (second, quiet):
        assert jnp.abs(first - different).max() > 1e-2


def test_a_skipped_encoder_layer_has_no_part_in_the_states():
    model = make_model(
        with_rates(ENCODERS["whisper"], ["encoder_layerdrop"], 1.0), DECODERS["bert"]
    )
    features = np.ones((1, *model.module.encoder.config.input_shape), np.float32)
    assert_layers_have_no_part(
        model,
        "encoder",
        lambda params: (
            model.encode(
                features, train=True, dropout_rng=jax.random.key(0), params=params
            ).last_hidden_state
        ),
    )


def test_a_skipped_decoder_layer_has_no_part_in_the_logits():
    model = make_model(
        ENCODERS["whisper"], with_rates(DECODERS["mbart"], ["decoder_layerdrop"], 1.0)
    )
    given = EncoderOutput(jnp.ones((1, 3, model.module.decoder.config.width)), None)
    assert_layers_have_no_part(
        model,
        "decoder",
        lambda params: (
            model.decode(
                jnp.ones((1, 4), jnp.int32),
                given,
                train=True,
                dropout_rng=jax.random.key(0),
                params=params,
            ).logits
        ),
    )


def assert_layers_have_no_part(model, part, run):
    """Asserts that ``run(params)`` depends on the parameters of a part, but not of its layers."""
    flat = flatten_dict(model.params, sep="/")
    for pattern, has_part in ((f"{part}/transformer/layers_", False), (f"{part}/", True)):
        changed = {p: 1.1 * a if p.startswith(pattern) else a for p, a in flat.items()}
        difference = jnp.abs(run(unflatten_dict(changed, sep="/")) - run(model.params)).max()
        assert (difference > 1e-3) == has_part


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_feature_encoder_is_what_upstream_calls_by_that_name(encoder):
    model = tiny_model(encoder, "bart")
    paths = flatten_dict(model.params["encoder"], sep="/")
    upstream = {
        p: torch_name(p, ENCODER_FAMILIES[ENCODERS[encoder].model_type].names) for p in paths
    }
    convolutions = (
        "feature_extractor.",
        *("conv1.", "conv2."),  # Whisper's
        *("conv3.", "groupnorm."),  # Moonshine's
        "conv.conv_layers.",  # Speech2Text's
        "prenet.feature_encoder.",  # SpeechT5's
        "subsampling.layers.",  # Parakeet's
    )
    expected = {path for path, name in upstream.items() if name.startswith(convolutions)}
    assert {p for p in paths if re.search(FEATURE_ENCODER, f"encoder/{p}")} == expected
    without = ("seamless_m4t_v2", "wav2vec2-bert")  # which project their features and no more
    assert bool(expected) == (ENCODERS[encoder].model_type not in without)


@pytest.mark.parametrize("call", ["encode", "forward"])
def test_a_frozen_feature_encoder_has_no_gradient_and_all_else_the_same(call):
    model = shallow_model("bert")
    labels = np.array([[9, 30, 7], [9, 8, 2]])

    def loss(params, frozen):
        options = {"params": params, "freeze_feature_encoder": frozen}
        if call == "forward":
            return model(SPEECH, labels=labels, **options).loss
        return jnp.square(model.encode(SPEECH, **options).last_hidden_state).sum()

    gradients = jax.jit(lambda params: [jax.grad(loss)(params, f) for f in (True, False)])
    frozen, free = (flatten_dict(tree, sep="/") for tree in gradients(model.params))
    for path, gradient in free.items():
        if path.startswith("encoder/feature_encoder/"):
            assert (frozen[path] == 0).all(), path
            assert jnp.abs(gradient).max() > 0, path
        else:
            assert_close(frozen[path], gradient, 1e-5 * max(1, jnp.abs(gradient).max()))
