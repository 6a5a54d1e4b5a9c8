"""A step of training is PyTorch's, and does what its settings say."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts.models import assert_same_tree, batch_of, shallow_model
from families import VOCAB
from flax.traverse_util import flatten_dict
from pytorch import Pair, tensor, torch

from speech_ed_flax.conversion.assemble import assemble
from speech_ed_flax.conversion.load import parts_of
from speech_ed_flax.conversion.names import select
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import with_layers
from speech_ed_flax.training.loss import CTC_HEAD
from speech_ed_flax.training.settings import LossSettings, OptimizerSettings, StepSettings
from speech_ed_flax.training.state import TrainState, create, exported
from speech_ed_flax.training.step import Batch, make_train_step

RATE = 0.1
EPSILON = 1e-3  # so that a gradient that is zero but for rounding moves nothing
DECAY = 0.1
CLIP = 5.0


def batch_of_texts(lengths: list[int], samples: int = 900) -> Batch:
    """Returns four utterances with as many labels as ``lengths`` says."""
    inputs, mask = batch_of([samples, samples * 2 // 3, samples // 2, samples * 4 // 5], samples)
    labels = np.random.default_rng(1).integers(5, VOCAB, (4, 7))
    labels = np.where(np.arange(7) < np.array(lengths)[:, None], labels, -100)
    return Batch(inputs, labels, mask)


UNEQUAL = batch_of_texts([7, 2, 5, 1])
"""Its two micro-batches of every other row have 12 and 3 labels: means of them are not the mean."""

SHORT = batch_of_texts([7, 2, 5, 1], 400)


def settings_of(model: Any, **fields: Any) -> StepSettings:
    ids = (model.config.pad_token_id, model.config.decoder_start_token_id)
    return StepSettings(*ids, **{"dropout": False, "augment": False} | fields)


def in_our_paths(pair: Pair, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what PyTorch holds for each of its parameters by our paths."""
    tensors = pair.joint_names(tensors)
    states = {part: select(tensors, f"{part}.") for part in ("encoder", "decoder")}
    projection = "enc_to_dec_proj."
    states["projection"] = {n: leaf for n, leaf in tensors.items() if n.startswith(projection)}
    module, config = pair.ours.module, pair.ours.config
    tree, _ = assemble(module, parts_of(module, config, states), "the twin", jnp.float32)
    return flatten_dict(tree, sep="/")


def step_of_theirs(pair: Pair, smoothing: float) -> tuple[float, float, list[dict[str, Any]]]:
    """Returns PyTorch's loss and gradient norm; parameters and moments after a step of AdamW."""
    theirs = deepcopy(pair.theirs)
    adamw = torch.optim.AdamW(theirs.parameters(), RATE, eps=EPSILON, weight_decay=DECAY)
    labels = tensor(UNEQUAL.labels)
    given = {"attention_mask": tensor(UNEQUAL.mask).long(), "labels": labels}
    logits = theirs(tensor(UNEQUAL.inputs), **given).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), CLIP)
    adamw.step()

    named = theirs.state_dict(keep_vars=True)
    moments = [
        {
            name: adamw.state[leaf][moment].numpy() if leaf in adamw.state else np.zeros(leaf.shape)
            for name, leaf in named.items()
        }
        for moment in ("exp_avg", "exp_avg_sq")
    ]
    after = {name: leaf.detach().numpy() for name, leaf in named.items()}
    return loss.item(), norm.item(), [in_our_paths(pair, tree) for tree in (after, *moments)]


def assert_close_leaves(found: Any, expected: dict[str, Any], tolerance: float) -> None:
    """Asserts that each leaf differs by no more than that share of its largest number."""
    found = flatten_dict(found, sep="/")
    for path, leaf in expected.items():
        if path == "encoder/mask_embedding":  # PyTorch has no gradient for it without SpecAugment
            continue
        atol = tolerance * max(0.1, np.abs(leaf).max())
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=atol, err_msg=path)


@pytest.mark.parametrize(
    ("encoder", "decoder", "smoothing", "accumulate"),
    [
        ("wav2vec2", "bart", 0.0, 1),
        ("wav2vec2", "bart", 0.1, 2),
        ("hubert", "gpt2", 0.1, 1),
        ("hubert", "gpt2", 0.0, 2),
    ],
)
def test_loss_gradients_and_a_step_of_adamw_are_those_of_pytorch(
    pair, encoder, decoder, smoothing, accumulate
):
    pair = pair(encoder, decoder)
    settings = settings_of(
        pair.ours,
        loss=LossSettings(label_smoothing=smoothing),
        optimizer=OptimizerSettings(
            learning_rate=RATE,
            schedule="constant",
            epsilon=EPSILON,
            weight_decay=DECAY,
            weight_decays=(),
            clip=CLIP,
        ),
        accumulate=accumulate,
    )
    state = create(pair.ours.module, pair.ours.params, settings)
    state, metrics = make_train_step(pair.ours.module, settings)(state, UNEQUAL)
    loss, norm, (params, first, second) = step_of_theirs(pair, smoothing)

    assert metrics.labels == 15
    assert not metrics.skipped
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-4)
    assert norm > CLIP, "clipping was not tested"
    moments = (optax.tree.get(state.optimizer, name) for name in ("mu", "nu"))
    for found, expected in zip(moments, (first, second), strict=True):
        assert_close_leaves(found, expected, 1e-4)  # of the first step: the gradient
    assert_close_leaves(state.params, params, 1e-3)


@pytest.fixture(scope="module")
def model():
    return shallow_model("bart")


@pytest.fixture(scope="module")
def plain(model):
    """Settings without chance, and their step."""
    rate = OptimizerSettings(learning_rate=3e-3, schedule="constant")
    settings = settings_of(model, optimizer=rate)
    return settings, make_train_step(model.module, settings)


def steps(model: Any, settings: StepSettings, step: Any, seed: int = 0) -> tuple[TrainState, Any]:
    return step(create(model.module, model.params, settings, seed), SHORT)


def test_thirty_steps_halve_the_loss_of_a_memorised_batch(model, plain):
    settings, step = plain
    state = create(model.module, model.params, settings)
    losses = []
    for _ in range(30):
        state, metrics = step(state, SHORT)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0] / 2
    assert state.step == state.updates == 30


@pytest.mark.parametrize("damage", ["speech", "labels"])
def test_a_batch_that_is_not_usable_changes_nothing_and_is_counted(model, plain, damage):
    settings, step = plain
    state, _ = steps(model, settings, step)
    before = jax.tree.map(np.array, (state.params, state.optimizer))
    bad = {
        "speech": SHORT.replace(inputs=np.where(SHORT.mask, np.nan, SHORT.inputs)),
        "labels": SHORT.replace(labels=np.full_like(SHORT.labels, -100)),
    }[damage]
    state, metrics = step(state, bad)
    assert_same_tree((state.params, state.optimizer), before)
    assert metrics.skipped
    assert (state.step, state.skipped, state.updates) == (2, 1, 1)
    state, metrics = step(state, SHORT)
    assert np.isfinite(metrics.loss)
    assert not metrics.skipped


def test_without_keys_two_seeds_take_the_same_step(model, plain):
    (one, _), (other, _) = (steps(model, *plain, seed) for seed in (0, 1))
    assert_same_tree(one.params, other.params)


@pytest.mark.parametrize("on", ["dropout", "augment", "layer_drop"])
def test_chance_follows_the_seed_and_the_step(model, on):
    """Layer drop alone: every other rate is 0."""
    module = model.module
    if on == "layer_drop":
        rates = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
        module = with_layers(module, **rates, layer_drop=0.5)
    chance = {"augment": True} if on == "augment" else {"dropout": True}
    still = OptimizerSettings(learning_rate=0.0, schedule="constant", weight_decay=0.0)
    settings = settings_of(model, optimizer=still, **chance)
    step = make_train_step(module, settings)

    def losses(seed):
        state = create(module, model.params, settings, seed)
        found = []
        for _ in range(4):
            state, metrics = step(state, SHORT)
            found.append(float(metrics.loss))
        return found

    first = losses(0)
    assert first == losses(0)
    assert first != losses(1)
    assert len(set(first)) > 1


def test_bfloat16_computes_almost_the_same_and_keeps_float32(model, plain):
    settings, step = plain
    _, exact = steps(model, settings, step)
    half = replace(settings, precision="bfloat16")
    state, metrics = steps(model, half, make_train_step(model.module, half))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert metrics.loss != exact.loss
    np.testing.assert_allclose(metrics.loss, exact.loss, rtol=0.02)
    np.testing.assert_allclose(metrics.gradient_norm, exact.gradient_norm, rtol=0.1)


@pytest.mark.parametrize("policy", ["dots", "full"])
def test_what_is_computed_again_changes_no_step(model, plain, policy):
    settings, step = plain
    expected, exact = steps(model, settings, step)
    module = with_layers(model.module, remat=policy)
    remade = make_train_step(module, settings)
    state, metrics = steps(model, settings, remade)
    np.testing.assert_allclose(metrics.gradient_norm, exact.gradient_norm, rtol=1e-5)
    assert jax.tree.structure(state.params) == jax.tree.structure(expected.params)
    written = jax.make_jaxpr(remade)(state, SHORT)
    assert "remat" in str(written) or "checkpoint" in str(written)


def test_ctc_trains_a_head_that_no_checkpoint_holds(model):
    loss = LossSettings(ctc_weight=0.3, ctc_blank=model.config.pad_token_id)
    settings = settings_of(model, loss=loss)
    settings = replace(settings, optimizer=OptimizerSettings(schedule="constant"))
    state = create(model.module, model.params, settings)
    before = np.array(state.params[CTC_HEAD]["weight"])
    state, metrics = make_train_step(model.module, settings)(state, SHORT)
    assert metrics.ctc > 0
    np.testing.assert_allclose(
        metrics.loss, 0.7 * metrics.cross_entropy + 0.3 * metrics.ctc, rtol=1e-5
    )
    assert np.abs(state.params[CTC_HEAD]["weight"] - before).max() > 0
    assert jax.tree.structure(exported(state)) == jax.tree.structure(dict(model.params))


def test_a_step_takes_nothing_from_the_model_it_began_with(model, plain):
    steps(model, *plain)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(model.params))


def test_a_batch_that_does_not_divide_is_refused(model, plain):
    settings = replace(plain[0], accumulate=3)
    with pytest.raises(ConfigError, match="4 utterances does not divide into accumulate=3"):
        steps(model, settings, make_train_step(model.module, settings))
