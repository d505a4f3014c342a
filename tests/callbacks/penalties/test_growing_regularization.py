"""GReg-1: a fixed set by L1, the same growth for all of it, a ceiling, and then it is gone."""

import keras
import numpy as np
import pytest
from networks import compiled, residual, zero_filters

import tfprune
from tfprune.callbacks import GrowingRegularization

L = keras.layers


def dense_net(units=8):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), L.Dense(units, "relu", name="hidden"), L.Dense(2, name="last")])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def data(count=24):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 4)).astype("float32"), rng.normal(size=(count, 2)).astype("float32")


class Decays(keras.callbacks.Callback):
    """The decays of the only structure, and the kernel, after every step."""

    def __init__(self, callback):
        super().__init__()
        self.callback, self.seen = callback, []

    def on_train_batch_end(self, batch, logs=None):
        (decays,) = self.callback.decays().values()
        self.seen.append(decays)


def fit(model, callback, epochs=1, **options):
    decays = Decays(callback)
    model.fit(*data(), batch_size=2, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback, decays], **options)
    return np.array(decays.seen)


def test_the_decays_of_the_set_grow_alike_up_to_the_limit():
    model = dense_net()
    norms = np.abs(model.get_layer("hidden").kernel.numpy()).sum(axis=0)
    chosen = np.isin(np.arange(8), np.argsort(norms)[:3])
    seen = fit(model, GrowingRegularization(0.1, ratio=0.4, frequency=2, limit=0.45))
    assert not seen[:, ~chosen].any()
    expected = np.minimum(0.1 * (np.arange(1, 13) // 2), 0.45)  # an update after every second of twelve steps
    np.testing.assert_allclose(seen[:, chosen], np.repeat(expected[:, None], 3, axis=1), rtol=1e-6)


def test_each_step_adds_the_decay_times_the_weight_to_the_gradient():
    """Two fits of two steps, with and without: after the second, weights differ by rate * decay * weight."""
    plain, pulled = dense_net(), dense_net()
    x, y = data(4)
    after_one = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: after_one.append(pulled.get_layer("hidden").kernel.numpy())
    )
    callback = GrowingRegularization(0.5, ratio=0.5, frequency=1)
    chosen = np.argsort(np.abs(pulled.get_layer("hidden").kernel.numpy()).sum(axis=0))[:4]
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(pulled.get_layer("hidden").kernel.numpy())
    )
    plain.fit(x, y, batch_size=2, verbose=0, shuffle=False)
    pulled.fit(x, y, batch_size=2, verbose=0, shuffle=False, callbacks=[callback, look, keep])
    expected = plain.get_layer("hidden").kernel.numpy()
    expected[:, chosen] -= 0.1 * 0.5 * after_one[0][:, chosen]
    np.testing.assert_allclose(seen[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("ratio", [0.4, 0.75])
def test_the_set_is_gone_in_the_end_and_shrinks(ratio):
    keras.utils.set_random_seed(0)
    model = compiled(residual(), keras.optimizers.SGD(0.05), jit_compile=False)
    callback = GrowingRegularization(0.3, ratio=ratio, frequency=1, limit=3.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *model.input_shape[1:]))
    y = rng.integers(0, model.output_shape[-1], 32)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    for structure, decays in callback.decays().items():
        assert (decays > 0).sum() == int(structure.size * ratio)
    widths = {
        name: model.get_layer(name).filters - len(zero_filters(model.get_layer(name))) for name in ("stem", "head")
    }
    small = tfprune.shrink(model)
    assert {name: small.get_layer(name).filters for name in widths} == widths
    np.testing.assert_allclose(model.predict(x, verbose=0), small.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_a_ratio_too_small_for_every_group_is_refused():
    with pytest.raises(ValueError, match=r"no channel would be chosen: the widest group has 8, .* at least 0\.125"):
        fit(dense_net(), GrowingRegularization(0.1, ratio=0.1))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, "half", True])
def test_a_ratio_that_is_no_fraction_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio is the fraction"):
        GrowingRegularization(0.1, ratio=ratio)
