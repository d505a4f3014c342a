"""One-shot pruning of single weights: what goes, what stays, and that nothing else changes."""

import re

import keras
import numpy as np
import pytest
from networks import compiled, images, same, weights_of

import tfprune
from tfprune.callbacks import GraNet, MagnitudePruning, RigL, StaticSparsity
from tfprune.callbacks.weights.rigl import grow_by_gradient
from tfprune.criteria import (
    LAMP,
    SNIP,
    GroupNorm,
    Magnitude,
    RandomWeights,
    SynFlow,
    WeightCriterion,
    l1_norm,
)
from tfprune.distributions import erdos_renyi_kernel, global_, smart_ratio, uniform
from tfprune.granularity import Block, Channel, NofM
from tfprune.masking import recorded_mask
from tfprune.statistics import Statistics

L = keras.layers


@pytest.fixture
def model():
    """Kernels of 144, 72 (depthwise), 128 and 48 weights."""
    keras.utils.set_random_seed(0)
    layers = [
        L.Conv2D(8, 3, activation="relu", name="first"),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.BatchNormalization(name="norm"),
        L.Conv2D(16, 1, activation="relu", name="second"),
        L.GlobalAveragePooling2D(),
        L.Dense(3, name="classes"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def gone(model):
    return {
        layer.name: int((~recorded_mask(layer.weights[0])).sum())
        for layer in model.layers
        if layer.name in ("first", "depthwise", "second", "classes")
    }


def kernel(model, name):
    return model.get_layer(name).weights[0]


def test_smallest_weights_of_each_kernel_go_and_nothing_else_changes(model):
    before = weights_of(model)
    tfprune.prune_weights(model, 0.5)
    assert gone(model) == {"first": 72, "depthwise": 0, "second": 64, "classes": 24}
    for weight, old in zip(model.weights, before, strict=True):
        mask = recorded_mask(weight)
        assert np.array_equal(weight.numpy()[mask], old[mask])
        if not mask.all():
            assert np.abs(old[~mask]).max() <= np.abs(old[mask]).min()


def test_scores_that_compare_all_layers_are_ranked_together(model):
    tfprune.prune_weights(model, 0.5, LAMP())
    counts = gone(model)
    assert sum(counts.values()) == (144 + 128 + 48) // 2
    assert counts != {"first": 72, "depthwise": 0, "second": 64, "classes": 24}


@pytest.mark.parametrize("distribution", [global_, erdos_renyi_kernel, smart_ratio])
def test_distribution_says_how_many_of_each_layer_go(model, distribution):
    names = ("first", "second", "classes")
    scores = {name: np.abs(kernel(model, name).numpy()) for name in names}
    tfprune.prune_weights(model, 0.5, distribution=distribution)
    assert gone(model) == {"depthwise": 0, **distribution(scores, 0.5)}


def test_layers_of_their_own_sparsity_and_all_others_dense(model):
    first, depthwise = model.get_layer("first"), model.get_layer("depthwise")
    tfprune.prune_weights(model, {first: 0.25, depthwise: 0.5})
    assert gone(model) == {"first": 36, "depthwise": 36, "second": 0, "classes": 0}
    tfprune.prune_weights(model, lambda layer: 0.75 if layer.name == "second" else None)
    assert gone(model) == {"first": 36, "depthwise": 36, "second": 96, "classes": 0}


def test_patterns(model):
    tfprune.prune_weights(model, 0.5, granularity=NofM(2, 4))
    mask = recorded_mask(kernel(model, "second"))[0, 0]
    assert (mask.reshape(2, 4, 16).sum(axis=1) == 2).all()
    model.get_layer("classes").kernel.assign(np.ones((16, 3)))
    tfprune.prune_weights(model, {model.get_layer("classes"): 0.5}, granularity=Block((4, 1)))
    blocks = recorded_mask(kernel(model, "classes")).reshape(4, 4, 3)
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()


def test_rounds_take_the_same_fraction_of_what_is_left_and_keep_pruned_what_is(model):
    seen = []

    class Watching(WeightCriterion):
        def score(self, view):
            zeros = int((view.weights == 0).sum())
            if view.name == "first":
                seen.append(zeros)
            return RandomWeights(zeros).score(view)  # other scores in each round

    tfprune.prune_weights(model, 1 - 0.5**3, Watching(), rounds=3)
    assert [*dict.fromkeys(seen)] == [0, 72, 108]
    assert gone(model)["first"] == 126


def test_what_is_pruned_already_counts_and_stays(model):
    tfprune.prune_weights(model, 0.5, RandomWeights(1))
    first = recorded_mask(kernel(model, "first"))
    tfprune.prune_weights(model, 0.75)
    assert gone(model)["first"] == 108
    assert not recorded_mask(kernel(model, "first"))[~first].any()
    with pytest.raises(ValueError, match=r"0\.75 of the weights are pruned already, more than the 0\.5 that"):
        tfprune.prune_weights(model, 0.5)


@pytest.mark.parametrize("callback", [MagnitudePruning(0.0), StaticSparsity(0.9), RigL(0.9)])
def test_later_fit_goes_on_from_the_masks(model, callback):
    tfprune.prune_weights(model, 0.9, LAMP())
    masks = [recorded_mask(kernel(model, name)) for name in ("first", "second", "classes")]
    callback.set_model(compiled(model, run_eagerly=True))
    callback.set_params({"epochs": 1, "steps": 100})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    held = list(callback.masks.values())
    callback.on_train_end()
    assert same(held, masks)


def test_masks_are_held_in_every_step_of_a_fit(model):
    x, y = images()
    tfprune.prune_weights(model, 0.9, LAMP())
    before = weights_of(model)
    model.fit(x, y, verbose=0, callbacks=[MagnitudePruning(0.0)])
    for name in ("first", "second", "classes"):
        place = [id(weight) for weight in model.weights].index(id(kernel(model, name)))
        after = kernel(model, name).numpy()
        assert np.array_equal(after == 0, before[place] == 0)
        assert not np.array_equal(after, before[place])


def test_failure_in_a_later_round_leaves_the_model_unchanged(model):
    class Failing(WeightCriterion):
        def score(self, view):
            is_second_round = view.name == "second" and (view.weights == 0).any()
            return np.full(view.weights.shape, np.nan if is_second_round else 1.0)

    before = weights_of(model)
    with pytest.raises(ValueError, match="Failing gives weights of 'second' the score NaN"):
        tfprune.prune_weights(model, 0.5, Failing(), rounds=2)
    assert same(before, weights_of(model))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": 1.0}, ValueError, "sparsity is the fraction to prune"),
        ({"sparsity": None}, ValueError, "sparsity is the fraction to prune"),
        ({"rounds": 0}, ValueError, "rounds must be a whole number"),
        ({"criterion": l1_norm}, TypeError, "single weights.*l1_norm scores channels: tfprune.prune_channels takes it"),
        ({"criterion": GroupNorm()}, TypeError, "GroupNorm scores channels"),
        ({"criterion": SNIP}, TypeError, r"SNIP\(\), not the class"),
        ({"criterion": "magnitude"}, TypeError, "such as tfprune.criteria.Magnitude.*Received: 'magnitude'"),
        ({"granularity": Channel()}, TypeError, "prune_weights prunes single weights"),
        ({"granularity": NofM(2, 4), "sparsity": 0.6}, ValueError, r"at most 0\.5 can be pruned"),
        ({"criterion": SNIP()}, ValueError, r"SNIP needs data, and none was given. Pass data=\(x, y\)"),
        ({"criterion": SNIP(), "data": images()[0]}, ValueError, "needs labels"),
        ({"criterion": SNIP(), "data": Statistics(8)}, ValueError, r"those given are \[\]"),
        (
            {"criterion": SNIP(), "data": Statistics(8), "rounds": 2},
            ValueError,
            "2 rounds measure it anew. Pass the data itself",
        ),
        ({"sparsity": lambda layer: 0.5, "distribution": uniform}, ValueError, "and so does distribution"),
        ({"sparsity": lambda layer: None}, ValueError, "finds no weights to prune"),
        ({"sparsity": lambda layer: 1.5}, ValueError, "The sparsity that `sparsity` gives 'first' must be a number in"),
        ({"sparsity": {L.Dense(2): 0.5}}, ValueError, "`sparsity` names layers that have no weights to prune"),
        ({"sparsity": {"first": 0.5}}, TypeError, "sparsity must be a dict from layer objects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the same in every process
)
def test_bad_arguments_are_refused_and_change_nothing(model, arguments, error, message):
    before = weights_of(model)
    with pytest.raises((error, TypeError) if "labels" in message else error, match=message):
        tfprune.prune_weights(**{"model": model, "sparsity": 0.5, **arguments})
    assert same(before, weights_of(model))


def test_weights_and_gradients_that_are_not_finite_are_refused(model):
    x, y = images()
    statistics = {"gradient": {weight.path: np.full(weight.shape, np.nan) for weight in model.weights}}
    with pytest.raises(ValueError, match="SNIP gives weights of 'first' the score NaN"):
        tfprune.prune_weights(model, 0.5, SNIP(), data=Statistics(8, statistics))
    kernel(model, "second").assign(np.full((1, 1, 8, 16), np.nan))
    with pytest.raises(ValueError, match="'second' has weights that are not finite"):
        tfprune.prune_weights(model, 0.5, SynFlow())
    with pytest.raises(ValueError, match="'second' has weights that are not finite"):
        tfprune.prune_weights(model, 0.5, SNIP(), data=(x, y))


def test_model_without_a_loss_is_refused():
    model = keras.Sequential([keras.Input((2,)), L.Dense(3)])
    with pytest.raises(ValueError, match=re.escape("has no loss. Compile it: model.compile(loss=...)")):
        tfprune.prune_weights(model, 0.5, SNIP(), data=(np.ones((4, 2)), np.ones((4, 3))))


@pytest.mark.parametrize("callback", [MagnitudePruning, RigL, GraNet])
def test_callbacks_refuse_what_needs_data(callback):
    with pytest.raises(ValueError, match=r"SNIP needs the statistics \['gradient'\].*prune_weights.*MagnitudePruning"):
        callback(0.5, criterion=SNIP())
    with pytest.raises(TypeError, match="GroupNorm scores channels"):
        callback(0.5, criterion=GroupNorm())


def test_growth_drops_by_the_criterion():
    weights, masks = {"a": np.array([5.0, 1.0, 0.9, 0.0])}, {"a": np.array([True, True, True, False])}

    class NearOne(WeightCriterion):
        def score(self, view):
            return -np.abs(view.weights - 1)

    found, fresh = grow_by_gradient(NearOne(), weights, masks, {"a": np.array([0.0, 0.0, 0.0, 1.0])}, {"a": 1})
    assert found["a"].tolist() == [False, True, True, True]
    assert fresh["a"].tolist() == [False, False, False, True]


def test_callback_by_a_criterion_prunes_as_prune_weights_does(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    callback = MagnitudePruning(0.5, criterion=LAMP())
    assert callback.distribution is global_
    assert MagnitudePruning(0.5).distribution is uniform
    assert MagnitudePruning(0.5, criterion=Magnitude(), distribution=global_).distribution is global_
    callback.set_model(compiled(twin, run_eagerly=True))
    callback.set_params({"epochs": 1, "steps": 100})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    weights = callback._weights()
    masks, _ = callback.update_masks(weights, callback.masks, {}, 75)
    callback.on_train_end()
    tfprune.prune_weights(model, 0.5, LAMP())
    assert same(list(masks.values()), [recorded_mask(kernel(model, n)) for n in ("first", "second", "classes")])
