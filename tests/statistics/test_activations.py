"""What channels carry, against NumPy on what goes into the layer that reads them."""

import keras
import numpy as np
import pytest

from tfprune.statistics import gather

L = keras.layers
NAMES = ["activation_mean", "activation_magnitude", "activation_variance", "activation_zeros"]


@pytest.fixture(scope="module")
def found():
    """Statistics of a convolution, read behind a ReLU and Flatten, and of a Dense layer with a large mean."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2))
    carried = L.ReLU()(L.Conv2D(3, 3, name="conv")(inputs))
    hidden = L.Dense(4, name="hidden", bias_initializer=keras.initializers.Constant(1000.0))(L.Flatten()(carried))
    model = keras.Model(inputs, L.Dense(2)(hidden))
    x = np.random.default_rng(0).normal(size=(50, 4, 4, 2)).astype("float32")
    found = gather(model, x, NAMES, batch_size=16)
    carried, hidden = (each.numpy().astype("float64") for each in keras.Model(inputs, [carried, hidden])(x))
    return {name: {"conv": carried, "hidden": hidden[:, None, None]} for name in ("values",)} | found.channels


@pytest.mark.parametrize("group", ["conv", "hidden"])
def test_equal_to_numpy(found, group):
    values = found["values"][group]
    np.testing.assert_allclose(found["activation_mean"][group], values.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["activation_variance"][group], values.var((0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(found["activation_zeros"][group], (values == 0).mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["activation_magnitude"][group], np.abs(values.mean((1, 2))).mean(0), rtol=1e-5)


def test_there_is_something_to_see(found):
    assert 0.2 < found["activation_zeros"]["conv"].mean() < 0.8
    assert not found["activation_zeros"]["hidden"].any()
