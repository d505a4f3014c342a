"""GroupNormRegularization and GrowingRegularization against their formulas, written out in NumPy."""

import itertools

import keras
import numpy as np
import pytest
from networks import dense, randomize

from tfprune.callbacks import GroupNormRegularization, GrowingRegularization
from tfprune.callbacks.penalties.group_norm import weakness

RATE = 0.1


def fit(callback, steps=1, **options):
    """Train with a loss that has no gradient; return the weights after every step, and before the first."""
    model = randomize(dense())
    model.compile(
        keras.optimizers.SGD(RATE, **options),
        loss=lambda y, prediction: 0.0 * keras.ops.sum(prediction),
        jit_compile=False,
        run_eagerly=steps == 1,  # which traces nothing
    )
    found = [[weight.numpy().astype("float64") for weight in model.weights]]

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append([weight.numpy().astype("float64") for weight in self.model.weights])

    x, y = np.ones((steps, 2)), np.ones((steps, 3))
    history = model.fit(x, y, batch_size=1, verbose=0, callbacks=[callback, Record()]).history
    return found, history


def norms_of(weights):
    kernel, bias, reader, _ = weights
    return np.sqrt((kernel**2).sum(0) + bias**2 + (reader**2).sum(1))


def decayed(weights, per_channel):
    kernel, bias, reader, last = weights
    factor = 1 - RATE * per_channel
    return [kernel * factor, bias * factor, reader * factor[:, None], last]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_group_norm_decays_as_the_formula_says():
    found, history = fit(GroupNormRegularization(0.05), steps=3)
    for before, after in itertools.pairwise(found):
        norms = norms_of(before)
        factors = 2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min()))
        assert factors.min() == 1
        assert factors.max() == 16
        assert_equal(after, decayed(before, 0.05 * factors))
    norms = norms_of(found[-1])
    factors = 2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min()))
    assert history["regularization_loss"] == [pytest.approx(0.05 * (factors * norms**2).sum() / 2, rel=1e-4)]


@pytest.mark.parametrize("frequency", [1, 2])
def test_decays_grow_as_the_formula_says(frequency):
    found, history = fit(GrowingRegularization(0.02, frequency=frequency, limit=0.05), steps=5)
    decays = np.zeros(4)
    for step, (before, after) in enumerate(itertools.pairwise(found), start=1):
        assert_equal(after, decayed(before, decays))
        norms = norms_of(after)
        if step % frequency == 0:
            decays = np.minimum(decays + 0.02 * (norms.max() - norms) / (norms.max() - norms.min()), 0.05)
    assert (decays.max() == 0.05) == (frequency == 1)
    norms = norms_of(found[-1])
    assert history["regularization_loss"] == [pytest.approx((decays * norms**2).sum() / 2, rel=1e-4)]


def test_with_accumulated_gradients_decays_grow_with_each_update():
    single, _ = fit(GrowingRegularization(0.02, frequency=1), steps=3)
    pairs, _ = fit(GrowingRegularization(0.02, frequency=1), steps=6, gradient_accumulation_steps=2)
    assert_equal(pairs[-1], single[-1])


def test_channels_that_are_all_alike_are_not_weak():
    assert weakness(keras.ops.array([4.0, 4.0])).numpy().tolist() == [0.0, 0.0]
    assert weakness(keras.ops.array([4.0])).numpy().tolist() == [0.0]


def test_a_second_fit_starts_to_grow_from_zero():
    callback = GrowingRegularization(0.02, frequency=1)
    first, _ = fit(callback, steps=3)
    again, _ = fit(callback, steps=3)
    assert_equal(again[-1], first[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": -0.1}, "delta must be a number of at least 0"),
        ({"delta": 0.1, "frequency": 0}, "frequency is a whole number"),
        ({"delta": 0.1, "frequency": True}, "frequency is a whole number"),
        ({"delta": 0.1, "limit": float("nan")}, "limit must be a number of at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GrowingRegularization(**arguments)
