"""Second derivatives of a logistic regression, of which closed forms are known."""

import keras
import numpy as np
import pytest

from tfprune.statistics import gather


@pytest.fixture(scope="module")
def regression():
    """A logistic regression behind a linear layer, and data."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid", name="answer")])
    model.compile("sgd", "binary_crossentropy")
    random = np.random.default_rng(0)
    return model, random.normal(size=(40, 3)).astype("float32"), random.integers(0, 2, (40, 1))


def test_squares_are_exact(regression):
    model, x, y = regression
    found = gather(model, (x, y), ["squared_gradient", "gradient"], loss="compiled", batch_size=16)
    error = model(x).numpy() - y
    kernel, bias = (variable.path for variable in model.weights)
    np.testing.assert_allclose(found.variables["squared_gradient"][kernel][:, 0], ((error * x) ** 2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.variables["squared_gradient"][bias], (error**2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.variables["gradient"][kernel][:, 0], (error * x).mean(0), rtol=1e-4, atol=1e-6)


def test_fisher_information_is_the_diagonal_of_the_hessian(regression):
    """With labels drawn from the model's own answers the two agree: x^2 p (1 - p)."""
    model, x, _ = regression
    found = gather(model, np.repeat(x, 60, axis=0), ["squared_gradient"], max_samples=None, batch_size=600)
    p = model(x).numpy()
    hessian = (x**2 * p * (1 - p)).mean(0)
    np.testing.assert_allclose(found.variables["squared_gradient"][model.weights[0].path][:, 0], hessian, rtol=0.15)
