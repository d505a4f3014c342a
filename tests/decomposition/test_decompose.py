"""Models taken apart: the layers in place of one compute what its low-rank kernel would."""

import keras
import numpy as np
import pytest

from tfprune import Budget, choose_ranks, decompose, export, profile, prune_channels, quantize_aware
from tfprune.decomposition import CP, SVD, VBMF, SpatialSVD, Tucker
from tfprune.decomposition.base import product
from tfprune.decomposition.fitting import Activations, fitted
from tfprune.decomposition.replacing import Replacer
from tfprune.decomposition.sites import Sites

L = keras.layers
RANDOM = np.random.default_rng(0)


def randomized(model, seed=0):
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.3)
    return model


def convnet():
    """A nested model, BatchNormalization, a layer called twice, a depthwise one."""
    inputs = keras.Input((12, 12, 3), name="image")
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    inner = keras.Sequential(
        [keras.Input((6, 6, 8)), L.Conv2D(16, 3, padding="same", name="wide"), L.ReLU()], name="inner"
    )
    x = L.DepthwiseConv2D(3, name="depthwise")(inner(x))
    twice = L.Conv2D(16, 1, name="twice")
    x = L.Add()([twice(x), twice(L.ReLU()(x))])
    x = L.Dense(24, activation="relu", name="hidden")(L.GlobalAveragePooling2D()(x))
    return randomized(keras.Model(inputs, L.Dense(5, name="classes")(x), name="net"))


@pytest.fixture(scope="module")
def net():
    return convnet()


GEOMETRIES = [
    # method, shape of a sample, layer
    (SVD(), (7,), L.Dense(5, activation="tanh")),
    (SVD(), (3, 7), L.Dense(5, use_bias=False)),
    (SVD(), (6, 5, 4), L.Conv2D(5, 1, strides=2)),
    (SVD(), (9, 8, 3), L.Conv2D(5, (4, 2), strides=(2, 1), padding="same", activation="relu")),
    (SVD(), (12, 3), L.Conv1D(5, 4, dilation_rate=2, padding="causal")),
    (SVD(), (5, 6, 4, 2), L.Conv3D(3, (2, 3, 2), strides=2, padding="same")),
    (SpatialSVD(), (9, 8, 3), L.Conv2D(5, 3, strides=2, padding="same")),
    (SpatialSVD(), (9, 8, 3), L.Conv2D(5, (4, 2), strides=(1, 3), padding="same", activation="elu")),
    (SpatialSVD(), (9, 8, 3), L.Conv2D(5, (2, 3), dilation_rate=(2, 3))),
    (Tucker(), (9, 8, 3), L.Conv2D(5, (4, 2), strides=(2, 1), padding="same")),
    (Tucker(), (9, 8, 3), L.Conv2D(5, 3, dilation_rate=(1, 2), padding="same", use_bias=False)),
    (Tucker(), (12, 3), L.Conv1D(5, 4, strides=2, padding="causal")),
    (CP(), (9, 8, 3), L.Conv2D(5, (4, 2), strides=2, padding="same")),
    (CP(), (9, 8, 3), L.Conv2D(5, 3, dilation_rate=2, activation="relu")),
    (CP(), (12, 3), L.Conv1D(5, 4, strides=2, padding="same")),
]


@pytest.mark.parametrize(("method", "shape", "layer"), GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_pieces_compute_what_the_layer_would_with_their_product(method, shape, layer):
    model = randomized(keras.Sequential([keras.Input(shape), layer]))
    (site,) = Sites.of(model).each
    ranks = tuple(max(1, rank - 1) for rank in method.full(site.shape))
    made = fitted(site, method, ranks, None)
    assert len(made.pieces) > 1
    copy = Replacer(model, {id(layer): made}, set()).rewrite(model)
    assert [len(copy.layers), copy.layers[-1].name] == [len(made.pieces), layer.name]
    x = RANDOM.normal(size=(2, *shape)).astype("float32")
    pieces = copy(x).numpy()
    layer.kernel.assign(product(made.pieces, made.factors))
    np.testing.assert_allclose(pieces, model(x).numpy(), atol=1e-5, rtol=1e-4)
    assert profile(copy).macs == site.macs(made.pieces)
    assert profile(model).macs == site.macs(site.whole)


def test_full_rank_computes_what_the_model_does(net):
    sites = Sites.of(net)
    full = {id(site.layer): fitted(site, SVD(), SVD().full(site.shape), None) for site in sites.each}
    copy = Replacer(net, full, sites.opened).rewrite(net)
    x = RANDOM.normal(size=(4, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(copy(x), net(x), atol=1e-5)


def test_layers_of_low_rank_are_found_and_nothing_is_lost():
    model = convnet()
    layers = [model.get_layer("inner").get_layer("wide"), model.get_layer("twice"), model.get_layer("hidden")]
    for layer in layers:
        columns = layer.kernel.shape[-1]
        layer.kernel.assign(layer.kernel[..., :2] @ RANDOM.normal(size=(2, columns)).astype("float32"))
    chosen = choose_ranks(model, energy=1 - 1e-9, method=SVD())
    assert [(row.name, row.ranks) for row in chosen.replaced] == [
        ("inner/wide", (2,)),
        ("twice", (2,)),
        ("hidden", (2,)),
    ]
    small = decompose(model, ranks=chosen)
    x = RANDOM.normal(size=(4, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-4)
    assert [layer.name for layer in small.get_layer("inner").layers][:2] == ["wide_factor", "wide"]
    assert profile(small).macs == profile(model).macs - sum(row.macs - row.new_macs for row in chosen.layers)
    assert profile(small).parameters == profile(model).parameters - sum(
        row.parameters - row.new_parameters for row in chosen.layers
    )


def test_table_says_what_becomes_of_each_layer(net):
    twice, hidden = net.get_layer("twice"), net.get_layer("hidden")
    chosen = choose_ranks(net, ranks={twice: 3, hidden: 4}, exclude=[net.get_layer("stem")])
    rows = {row.name: row for row in chosen.layers}
    assert rows["twice"].macs == 2 * 16 * 16 * 16
    assert rows["twice"].new_macs == 2 * 16 * 3 * (16 + 16)
    assert (rows["hidden"].parameters, rows["hidden"].new_parameters) == (16 * 24, 4 * (16 + 24))
    values = np.linalg.svd(hidden.kernel.numpy(), compute_uv=False)
    assert rows["hidden"].error == pytest.approx(np.sqrt((values[4:] ** 2).sum() / (values**2).sum()), rel=1e-5)
    assert rows["stem"].stays == "it is excluded"
    assert rows["classes"].stays == "no rank is given for it"
    assert rows["depthwise"].stays == "a DepthwiseConv2D has no decomposition"
    text = chosen.to_csv()
    assert "twice,SVD,3,3072,8192,96,256," in text
    assert "depthwise,stays: a DepthwiseConv2D" in text
    assert chosen.to_dict()["layers"][[*rows].index("twice")]["method"] == "SVD"


@pytest.mark.parametrize(
    ("budget", "name"),
    [(Budget(macs=0.5), "macs"), (Budget(parameters=0.5), "parameters"), (Budget(weight_bytes=9000), "weight_bytes")],
    ids=["macs", "parameters", "bytes"],
)
def test_budget_is_held_and_filled(net, budget, name):
    small = profile(decompose(net, budget=budget))
    size = {"macs": small.macs, "parameters": small.parameters, "weight_bytes": 4 * small.parameters}[name]
    limit = budget.absolute({"macs": profile(net).macs, "parameters": profile(net).parameters})[name]
    assert 0.93 * limit < size <= limit


def test_budget_that_holds_already_changes_nothing(net):
    same = decompose(net, budget=Budget(parameters=10**6))
    assert [layer.name for layer in same.layers] == [layer.name for layer in net.layers]


def test_energy_is_kept_at_the_lowest_cost(net):
    for row in choose_ranks(net, energy=0.7, method=SVD()).replaced:
        layer = (net.get_layer("inner") if "/" in row.name else net).get_layer(row.name.split("/")[-1])
        squares = np.linalg.svd(layer.kernel.numpy().reshape(-1, layer.kernel.shape[-1]), compute_uv=False) ** 2
        kept = squares.cumsum() / squares.sum()
        assert row.ranks == (int(np.searchsorted(kept, 0.7)) + 1,)
    automatic = {row.name: row for row in choose_ranks(net, energy=0.7).replaced}
    assert all(row.error**2 <= 0.3 + 1e-9 for row in automatic.values())
    for method in (SVD(), SpatialSVD(), Tucker()):
        for row in choose_ranks(net, energy=0.7, method=method).replaced:
            assert automatic[row.name].new_macs <= row.new_macs


def test_variational_ranks_are_those_of_the_signal():
    model = keras.Sequential([keras.Input((8, 8, 24)), L.Conv2D(32, 3, name="conv"), L.Flatten(), L.Dense(2)])
    random = np.random.default_rng(0)
    core = np.einsum("nr,hwrs,sm->hwnm", *(random.normal(size=size) for size in ((24, 3), (3, 3, 3, 5), (5, 32))))
    model.get_layer("conv").kernel.assign(core + 0.1 * random.normal(size=core.shape))
    chosen = choose_ranks(model, ranks=VBMF())
    assert [(row.name, str(row.method), row.ranks) for row in chosen.replaced] == [("conv", "Tucker", (3, 5))]
    assert choose_ranks(model, ranks=VBMF(2.0)).replaced[0].ranks == (6, 10)
    assert "nothing but noise" in chosen.layers[1].stays


def low_dimensional(count, shape, seed=1):
    """Samples that vary in a few directions only, around a mean."""
    random = np.random.default_rng(seed)
    size = int(np.prod(shape))
    basis = random.normal(size=(3, size))
    return (2 + random.normal(size=(count, 3)) @ basis).reshape(count, *shape).astype("float32")


@pytest.mark.parametrize(
    ("method", "ranks"), [(SVD(), 4), (SpatialSVD(), 6), (Tucker(), (3, 4)), (CP(), 6)], ids=lambda each: str(each)
)
def test_data_makes_up_for_what_is_lost(method, ranks):
    model = randomized(keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(8, 3, name="conv")]))
    x = low_dimensional(128, (6, 6, 4))
    given = {model.get_layer("conv"): ranks}
    blind, fitted_ = (decompose(model, ranks=given, method=method, data=data) for data in (None, x))
    wanted = model(x).numpy()
    errors = [
        np.linalg.norm(each(x).numpy() - wanted) / np.linalg.norm(wanted - wanted.mean((0, 1, 2)))
        for each in (blind, fitted_)
    ]
    assert errors[1] < 0.8 * errors[0]
    np.testing.assert_allclose((fitted_(x).numpy() - wanted).mean((0, 1, 2)), 0, atol=1e-3 * np.abs(wanted).max())
    row = choose_ranks(model, ranks=given, method=method, data=x).replaced[0]
    assert row.error == pytest.approx(errors[1], abs=0.02)


def test_moments_are_those_of_the_windows():
    model = randomized(keras.Sequential([keras.Input((5, 4)), L.Conv1D(3, 2, strides=2, name="conv")]))
    x = RANDOM.normal(size=(7, 5, 4)).astype("float32")
    moments = Activations(model, Sites.of(model).each, x).of(0)
    rows = np.stack([x[:, 0:2], x[:, 2:4]], axis=1).reshape(14, 8)
    np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-6)
    covariance = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(moments.covariance, covariance + 0.01 * np.trace(covariance) / 8 * np.eye(8), atol=1e-5)


def test_normalization_is_measured_anew_with_data(net):
    x = RANDOM.normal(size=(64, 12, 12, 3)).astype("float32")
    small = decompose(net, ranks={net.get_layer("stem"): 4}, data=x)
    seen = keras.Model(small.input, small.get_layer("stem").output)(x).numpy()
    np.testing.assert_allclose(small.get_layer("norm").moving_mean, seen.mean((0, 1, 2)), atol=1e-4)


def test_what_surrounds_a_layer_is_kept():
    class Trained(keras.Sequential):
        pass

    model = Trained(
        [
            keras.Input((16,), name="image"),
            L.Dense(16, activation="relu", kernel_regularizer="l2", activity_regularizer="l1", name="hidden"),
            L.Dense(16, trainable=False, dtype="float64", name="frozen"),
            L.Dense(3, name="hidden_factor"),
        ],
        name="kept",
    )
    model.compile(keras.optimizers.SGD(0.25), "mse", metrics=["mae"])
    before = [weight.copy() for weight in model.get_weights()]
    small = decompose(model, ranks=lambda layer: 2 if layer.name in ("hidden", "frozen") else None)
    assert type(small) is Trained
    assert small.name == "kept"
    assert float(small.optimizer.learning_rate) == 0.25
    assert [layer.name for layer in small.layers] == [
        "hidden_factor_2",
        "hidden",
        "frozen_factor",
        "frozen",
        "hidden_factor",
    ]
    first, second, third, fourth, _ = small.layers
    assert first.activation is keras.activations.linear
    assert second.activation is keras.activations.relu
    assert not first.use_bias
    assert second.use_bias
    assert first.activity_regularizer is None
    assert first.kernel_regularizer is not None
    assert second.activity_regularizer is not None
    assert not third.trainable
    assert not fourth.trainable
    assert third.dtype_policy.name == "float64"
    np.testing.assert_array_equal(fourth.bias, model.get_layer("frozen").bias)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_result_is_saved_trained_pruned_and_taken_apart_again(net, tmp_path):
    small = decompose(net, budget=Budget(macs=0.6))
    small.save(tmp_path / "small.keras")
    x = RANDOM.normal(size=(2, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "small.keras")(x), small(x), atol=1e-6)
    pruned = prune_channels(small, 0.3)
    assert profile(pruned).macs < 0.8 * profile(small).macs
    again = decompose(small, budget=Budget(macs=0.8))
    assert profile(again).macs <= 0.8 * profile(small).macs


def test_open_sizes_are_counted_for_one_output_position():
    model = randomized(keras.Sequential([keras.Input((None, None, 8)), L.Conv2D(16, 3, strides=2, padding="same")]))
    (row,) = choose_ranks(model, ranks=lambda layer: (2, 4)).layers
    assert row.macs == 9 * 8 * 16
    assert row.new_macs == 4 * 8 * 2 + 9 * 2 * 4 + 4 * 16
    with pytest.raises(ValueError, match="fixed input shape"):
        decompose(model, budget=Budget(macs=0.5))


def test_layers_that_stay_have_a_reason():
    inputs = keras.Input((4, 8))
    x = L.TimeDistributed(L.Dense(8, name="step"), name="steps")(inputs)
    x = L.Conv1D(8, 3, groups=2, name="grouped")(x)
    x = L.Dense(8, kernel_constraint="max_norm", name="bound")(x)
    lora = L.Dense(8, name="lora")
    model = keras.Model(inputs, L.Dense(8, name="free")(lora(x)))
    lora.enable_lora(2)
    reasons = {row.name: row.stays for row in choose_ranks(model, ranks={model.get_layer("free"): 2}).layers}
    assert "LoRA" in reasons["lora"]
    assert "constraint" in reasons["bound"]
    assert "2 groups" in reasons["grouped"]
    assert reasons["steps/step"] == "it lies inside a layer that stays as it is"
    assert reasons["free"] == ""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (lambda net: {}, ValueError, "Give one of ranks, budget and energy"),
        (lambda net: {"energy": 0.9, "budget": Budget(macs=0.5)}, ValueError, "Give one of"),
        (lambda net: {"energy": 1.5}, ValueError, r"in \(0, 1\]. Received: 1.5"),
        (lambda net: {"budget": 0.5}, TypeError, "must be a Budget"),
        (lambda net: {"budget": Budget(latency=0.5)}, ValueError, "Only tfprune.compress measures latency"),
        (lambda net: {"budget": Budget(macs=10)}, ValueError, "out of reach: with rank 1 in all 5 layers"),
        (lambda net: {"ranks": 4}, TypeError, "a dict from layer objects to ranks"),
        (lambda net: {"ranks": {net.get_layer("hidden"): 17}}, ValueError, "'hidden'.* is at most 16. Received: 17"),
        (
            lambda net: {"ranks": {net.get_layer("hidden"): 16}},
            ValueError,
            "costs 640 operations, and the layer itself 384",
        ),
        (lambda net: {"ranks": {net.get_layer("hidden"): 0}}, ValueError, "whole number of at least 1"),
        (lambda net: {"ranks": {net.get_layer("hidden"): (2, 2)}}, ValueError, "'hidden' takes one rank"),
        (
            lambda net: {"ranks": {net.get_layer("stem"): (2, 2, 2)}},
            ValueError,
            r"takes one rank or two, as in \(8, 16\)",
        ),
        (lambda net: {"ranks": {net.get_layer("depthwise"): 2}}, ValueError, "a DepthwiseConv2D has no decomposition"),
        (lambda net: {"ranks": {L.Dense(3, name="other"): 2}}, ValueError, "'other'"),
        (lambda net: {"energy": 0.9, "method": Tucker}, TypeError, "method must be SVD"),
        (
            lambda net: {"energy": 0.9, "method": {net.get_layer("hidden"): CP()}},
            ValueError,
            "CP cannot decompose 'hidden'",
        ),
        (lambda net: {"energy": 0.9, "method": {net.get_layer("hidden"): 3}}, TypeError, "must be one such as Tucker"),
        (lambda net: {"energy": 1.0}, ValueError, "No layer would be replaced"),
        (lambda net: {"energy": 0.9, "exclude": lambda layer: True}, ValueError, "'stem': it is excluded"),
        (lambda net: {"energy": 0.9, "data": np.zeros((3, 5))}, ValueError, "does not fit"),
    ],
)
def test_bad_input_is_refused(net, options, error, message):
    with pytest.raises(error, match=message):
        decompose(net, **options(net))


def test_ranks_of_another_model_are_refused(net):
    other = randomized(keras.Sequential([keras.Input((8,)), L.Dense(8, name="hidden"), L.Dense(2)]))
    chosen = choose_ranks(other, ranks={other.get_layer("hidden"): 2})
    with pytest.raises(ValueError, match="chosen for another model"):
        decompose(net, ranks=chosen)
    with pytest.raises(ValueError, match="leave out budget, energy and method"):
        decompose(other, ranks=chosen, energy=0.5)


@pytest.mark.slow
def test_result_is_exported_and_quantized(net, tmp_path):
    x = RANDOM.normal(size=(64, 12, 12, 3)).astype("float32")
    small = decompose(net, budget=Budget(macs=0.6), data=x)
    assert export(small, tmp_path / "float.tflite").float_operators == ()
    assert export(small, tmp_path / "int8.tflite", quantize="int8", calibration=x).float_operators == ()
    aware = quantize_aware(small)
    aware.compile("sgd", "mse")
    aware.fit(x, np.zeros((64, 5)), verbose=0)
    assert export(aware, tmp_path / "aware.tflite", quantize="int8").float_operators == ()
