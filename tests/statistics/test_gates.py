"""Gradients of gates: against the gradients of the weights that make a channel, which are the same by Euler's rule."""

import keras
import numpy as np
import pytest

from tfprune.statistics import gather


@pytest.fixture(scope="module")
def residual() -> keras.Model:
    """A residual block behind a convolution, and a classifier that reads all positions."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    shortcut = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.ReLU()(layers.Conv2D(6, 3, padding="same", name="inner")(shortcut))
    x = layers.BatchNormalization(name="outer_norm")(layers.Conv2D(8, 3, padding="same", name="outer")(x))
    x = layers.Flatten()(layers.Add()([shortcut, x]))
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="classes")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(10, 6, 6, 3)).astype("float32"), random.integers(0, 5, 10)


def test_gate_is_what_the_weights_before_it_say(residual, data) -> None:
    found = gather(residual, data, ["gradient", "gate_gradient"], loss="compiled", batch_size=4)
    gradient, gates = found.variables["gradient"], found.channels["gate_gradient"]

    def product(variable: keras.Variable) -> np.ndarray:
        values = variable.numpy() * gradient[variable.path]
        return values.reshape(-1, values.shape[-1]).sum(0)

    inner = residual.get_layer("inner")
    np.testing.assert_allclose(gates["inner"], product(inner.kernel) + product(inner.bias), rtol=1e-4, atol=1e-7)
    norms = [residual.get_layer(name) for name in ("stem_norm", "outer_norm")]
    joined = sum(product(norm.gamma) + product(norm.beta) for norm in norms)
    np.testing.assert_allclose(gates["stem"], joined, rtol=1e-4, atol=1e-6)


def test_squares_are_those_of_single_samples(residual, data) -> None:
    x, y = data
    single = [
        gather(residual, (x[[i]], y[[i]]), ["gate_gradient"], loss="compiled").channels["gate_gradient"]
        for i in range(3)
    ]
    found = gather(residual, (x[:3], y[:3]), ["gate_gradient_squared"], loss="compiled")
    for name, squared in found.channels["gate_gradient_squared"].items():
        np.testing.assert_allclose(squared, np.mean([each[name] ** 2 for each in single], 0), rtol=1e-4, atol=1e-9)


def test_model_is_left_as_it_was(residual, data) -> None:
    before = [value.copy() for value in residual.get_weights()]
    gather(residual, data[0], ["gate_gradient"])
    assert all(np.array_equal(a, b) for a, b in zip(before, residual.get_weights(), strict=True))
    assert not any("call" in vars(layer) for layer in residual.layers)
