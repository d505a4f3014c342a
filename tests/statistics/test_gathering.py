"""One pass for all that is asked for: what is refused, and what the model is afterwards."""

import keras
import numpy as np
import pytest

from tfprune.criteria.base import PROVIDERS
from tfprune.statistics import gather
from tfprune.statistics.gathering import known_statistics

L = keras.layers


def network(dtype=None, scale=1.0):
    keras.utils.set_random_seed(0)
    layers = [
        L.Dense(8, activation="relu", name="hidden", dtype=dtype),
        L.Dropout(0.5, dtype=dtype),
        L.BatchNormalization(dtype=dtype),
        L.Dense(3, activation="softmax", dtype="float32", name="answer"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.get_layer("hidden").kernel.assign(scale * model.get_layer("hidden").kernel.numpy())
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(20, 4)).astype("float32"), random.integers(0, 3, 20)


@pytest.fixture(scope="module")
def trained(data):
    """A model with an optimizer that has a state, with all statistics of it, and its variables before."""
    model = network()
    model.optimizer.build(model.trainable_variables)
    held = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy().copy() for variable in held]
    return model, gather(model, data, known_statistics(), loss="compiled"), list(zip(held, before, strict=True))


@pytest.fixture
def exact(trained):
    return trained[1]


def test_criteria_know_who_provides_what():
    assert sorted(PROVIDERS) == known_statistics()


def test_every_statistic_is_gathered_at_once(exact):
    assert sorted(exact.names) == known_statistics()
    assert all(np.isfinite(array).all() for *_, array in exact.each())


def test_half_precision_is_measured_in_full(data, exact):
    """Gradients that would vanish in float16 are those of float32."""
    model = network("mixed_float16")
    policies = [layer.compute_dtype for layer in model.layers]
    found = gather(model, data, ["gate_gradient", "gradient"], loss="compiled")
    for name in ("gate_gradient", "gradient"):
        kind = "channels" if name == "gate_gradient" else "variables"
        for expected, given in zip(
            getattr(exact, kind)[name].values(), getattr(found, kind)[name].values(), strict=True
        ):
            np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-7)
    assert [layer.compute_dtype for layer in model.layers] == policies
    assert "float16" in policies


def test_nothing_of_the_model_changes(trained):
    model, _, held = trained
    assert len(held) > len(model.weights)
    assert all(np.array_equal(variable.numpy(), before) for variable, before in held)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_layers_that_are_not_trained_have_gradients_too(data):
    model = network()
    model.get_layer("hidden").trainable = False
    found = gather(model, data, ["gradient"], loss="compiled", max_samples=4).variables["gradient"]
    assert {path.rpartition("/")[2] for path in found} == {"kernel", "bias", "gamma", "beta"}
    assert found[model.get_layer("hidden").kernel.path].any()


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (["gradients"], {}, ValueError, r"Unknown statistics: \['gradients'\]. Known: .*'gradient'"),
        ("gradient", {}, TypeError, r"names must be a list of names, such as \['gradient'\]"),
        (["gradient"], {"loss": "compiled", "labels": False}, ValueError | TypeError, "needs labels"),
        (["gradient"], {"bad": "x"}, ValueError, "NaN"),
        (
            ["gradient"],
            {"bad": "weights"},
            ValueError,
            r"NaN or infinite in \d places, from .*hidden",
        ),
        (["gradient"], {"max_samples": 0}, ValueError, "max_samples"),
        (["gradient"], {"temperature": -1}, ValueError, "temperature"),
    ],
)
def test_what_cannot_be_gathered_is_refused(data, names, options, error, message):
    model, (x, y) = network(), data
    bad, labels = options.pop("bad", None), options.pop("labels", True)
    if bad == "x":
        x = np.where(np.arange(4) == 1, np.nan, x)
    if bad == "weights":
        model.get_layer("answer").kernel.assign(np.full((8, 3), np.nan))
    with pytest.raises(error if isinstance(error, type) else error.__args__, match=message):
        gather(model, (x, y) if labels else x, names, **options)


def test_what_is_no_built_model_is_refused():
    with pytest.raises(ValueError, match="is not built"):
        gather(keras.Sequential([L.Dense(1)]), np.ones((2, 2)), ["gradient"])
