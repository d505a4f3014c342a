import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import chain, compiled, images, outputs, randomize, residual, same, weights_of

import tfprune

L = keras.layers


def one_norm(momentum=0.99, trainable=True):
    """A Dense layer and a normalization behind it."""
    model = keras.Sequential(
        [keras.Input((2,)), L.Dense(3, name="dense"), L.BatchNormalization(momentum=momentum, name="bn")]
    )
    randomize(model)
    model.get_layer("bn").trainable = trainable
    return model


def statistics(model, name="bn"):
    layer = model.get_layer(name)
    return layer.moving_mean.numpy(), layer.moving_variance.numpy()


def behind_dense(model, x):
    layer = model.get_layer("dense")
    return x.astype("float64") @ layer.kernel.numpy().astype("float64") + layer.bias.numpy()


def points(count, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, (count, 2)).astype("float32")


def expected_statistics(model, batches):
    """The means and variances of batches in NumPy, averaged by their sizes."""
    values = [behind_dense(model, batch) for batch in batches]
    sizes = [len(batch) for batch in batches]
    return tuple(
        np.average([function(value, axis=0) for value in values], axis=0, weights=sizes)
        for function in (np.mean, np.var)
    )


def assert_statistics(model, batches):
    for found, expected in zip(statistics(model), expected_statistics(model, batches), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


class TestStatistics:
    def test_of_one_batch_are_those_of_numpy(self):
        model, x = one_norm(), points(50)
        tfprune.recalibrate(model, x)
        assert_statistics(model, [x])

    @pytest.mark.parametrize(("count", "batch_size"), [(60, 20), (50, 20), (41, 20)])
    def test_of_several_batches_weigh_every_sample_the_same(self, count, batch_size):
        # The last batch of 41 is one sample with a variance of 0: as a third of the mean it would do harm.
        model, x = one_norm(), points(count)
        tfprune.recalibrate(model, x, batch_size=batch_size)
        assert_statistics(model, [x[start : start + batch_size] for start in range(0, count, batch_size)])

    def test_of_a_convolution_are_over_positions_too(self):
        model = randomize(chain())
        x, _ = images(16)
        tfprune.recalibrate(model, x)
        maps = model.get_layer("first")(x).numpy().astype("float64")
        mean, variance = statistics(model, "first_bn")
        np.testing.assert_allclose(mean, maps.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, maps.var(axis=(0, 1, 2)), rtol=1e-4)

    def test_of_a_second_layer_see_the_first_one_renewed(self):
        model = keras.Sequential([keras.Input((2,)), L.BatchNormalization(name="a"), L.BatchNormalization(name="b")])
        x = points(64)
        tfprune.recalibrate(model, x)
        mean, variance = statistics(model, "b")
        np.testing.assert_allclose(mean, 0.0, atol=1e-5)
        np.testing.assert_allclose(variance, x.var(axis=0) / (x.var(axis=0) + 1e-3), rtol=1e-4)

    def test_do_not_depend_on_what_was_there(self):
        first, second = one_norm(), one_norm(momentum=0.5)
        second.get_layer("bn").moving_mean.assign([100.0, -7.0, 3.0])
        for model in (first, second):
            tfprune.recalibrate(model, points(30), batch_size=10)
        assert same(statistics(first), statistics(second))

    def test_again_are_the_same(self):
        model, x = one_norm(), points(30)
        tfprune.recalibrate(model, x)
        once = statistics(model)
        tfprune.recalibrate(model, x)
        assert same(once, statistics(model))


class TestData:
    X = points(40)

    def generator(self):
        for start in range(0, 40, 10):
            yield self.X[start : start + 10]

    @pytest.mark.parametrize(
        "form", ["x", "x and y", "tensor", "dataset", "dataset of pairs", "list", "generator", "dict", "float64"]
    )
    def test_every_form_gives_the_same(self, form):
        x, y = self.X, np.zeros(40)
        data = {
            "x": x,
            "x and y": (x, y),
            "tensor": tf.constant(x),
            "dataset": tf.data.Dataset.from_tensor_slices(x).batch(10),
            "dataset of pairs": tf.data.Dataset.from_tensor_slices((x, y)).batch(10),
            "list": [x[:10], x[10:20], x[20:30], x[30:]],
            "generator": self.generator(),
            "dict": {"point": x},
            "float64": x.astype("float64"),
        }[form]
        model = one_norm()
        if form == "dict":
            inputs = keras.Input((2,), name="point")
            sequential, model = model, keras.Model({"point": inputs}, model(inputs))
            tfprune.recalibrate(model, data, batch_size=10)
            model = sequential
        else:
            tfprune.recalibrate(model, data, batch_size=10)
        assert_statistics(model, list(self.generator()))

    def test_a_model_made_from_a_list_of_one_input_does_not_warn(self):
        inputs = keras.Input((2,))
        model = keras.Model([inputs], L.BatchNormalization(name="bn")(inputs))
        tfprune.recalibrate(model, self.X)
        np.testing.assert_allclose(statistics(model)[0], self.X.mean(axis=0), rtol=1e-5)

    @pytest.mark.parametrize("data", [np.zeros((0, 2), "float32"), [], (np.zeros((0, 2)), np.zeros(0))])
    def test_empty_is_refused_and_changes_nothing(self, data):
        model = one_norm()
        before = weights_of(model)
        with pytest.raises(ValueError, match="data has no samples"):
            tfprune.recalibrate(model, data)
        assert same(before, weights_of(model))

    def test_of_another_kind_is_refused(self):
        with pytest.raises(TypeError, match="Received: int"):
            tfprune.recalibrate(one_norm(), 3)


class TestLayers:
    def test_none_is_said(self):
        model = keras.Sequential([keras.Input((2,)), L.Dense(1)], name="plain")
        with pytest.raises(ValueError, match="'plain' has no BatchNormalization"):
            tfprune.recalibrate(model, points(4))

    def test_inside_nested_models_and_other_layers_are_found(self):
        @keras.saving.register_keras_serializable("tests")
        class Block(L.Layer):
            def __init__(self):
                super().__init__()
                self.norm = L.BatchNormalization()

            def call(self, x, training=False):
                return self.norm(x, training=training)

        inner_input, inputs, block = keras.Input((2,)), keras.Input((2,)), Block()
        norm = L.BatchNormalization()
        inner = keras.Model(inner_input, norm(inner_input))
        model = keras.Model(inputs, block(inner(inputs)))
        x = points(30)
        tfprune.recalibrate(model, x)
        np.testing.assert_allclose(norm.moving_mean.numpy(), x.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(block.norm.moving_variance.numpy(), 1.0, rtol=1e-3)

    @pytest.mark.parametrize("trainable", [True, False])
    def test_a_frozen_layer_is_measured_too_and_stays_frozen(self, trainable):
        model, x = one_norm(momentum=0.7, trainable=trainable), points(20)
        tfprune.recalibrate(model, x)
        assert_statistics(model, [x])
        bn = model.get_layer("bn")
        assert (bn.momentum, bn.trainable) == (0.7, trainable)
        assert [weight.name for weight in bn.trainable_weights] == (["gamma", "beta"] if trainable else [])

    def test_nothing_but_statistics_changes(self):
        model = keras.Sequential(
            [keras.Input((2,)), L.Dropout(0.5, seed=3), L.Dense(3, name="dense"), L.BatchNormalization(name="bn")]
        )
        compiled(model, keras.optimizers.SGD(0.1, momentum=0.9))
        model.fit(points(8), np.zeros(8), verbose=0)
        bn = model.get_layer("bn")
        moving = {id(bn.moving_mean), id(bn.moving_variance)}
        others = [v for v in [*model.variables, *model.optimizer.variables] if id(v) not in moving]
        before, optimizer = [v.numpy() for v in others], model.optimizer
        tfprune.recalibrate(model, points(20))
        assert same(before, [v.numpy() for v in others])
        assert model.compiled
        assert model.optimizer is optimizer


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("good", [0, 2])
def test_data_that_raises_in_the_middle_changes_nothing(good, trainable):
    def batches():
        for _ in range(good):
            yield points(10)
        raise BrokenError

    model = one_norm(momentum=0.7, trainable=trainable)
    before = weights_of(model)
    with pytest.raises(BrokenError):
        tfprune.recalibrate(model, batches())
    assert same(before, weights_of(model))
    bn = model.get_layer("bn")
    assert (bn.momentum, bn.trainable) == (0.7, trainable)


def test_a_batch_that_does_not_fit_changes_nothing():
    model = one_norm()
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"data does not fit .*shape \(samples, 2\).*Received: \(10, 5\)"):
        tfprune.recalibrate(model, [points(10), np.zeros((10, 5), "float32")])
    assert same(before, weights_of(model))
    assert model.get_layer("bn").momentum == 0.99


def test_a_pruned_model_recovers():
    """Each normalization behind pruned inputs gives mean 0 and variance 1 again (with gamma 1 and beta 0)."""
    model = randomize(residual(width=8, last=8))
    x, _ = images(64)
    for name in ("stem_bn", "branch_bn"):
        model.get_layer(name).gamma.assign(np.ones(8))
        model.get_layer(name).beta.assign(np.ones(8) * 0.5)
    tfprune.recalibrate(model, x)
    expected = outputs(model, x)[0]
    small = tfprune.prune_channels(model, 0.5)

    def normalized(network):
        maps = keras.Model(network.input, network.get_layer("branch_bn").output)(x).numpy()
        return maps.mean(axis=(0, 1, 2)), maps.std(axis=(0, 1, 2))

    def error(network):
        return float(np.square(outputs(network, x)[0] - expected).mean())

    shift_before, error_before = np.abs(normalized(small)[1] - 1).max(), error(small)
    tfprune.recalibrate(small, x)
    mean, deviation = normalized(small)
    np.testing.assert_allclose(mean, 0.5, atol=1e-4)
    np.testing.assert_allclose(deviation, 1.0, atol=0.01)
    assert shift_before > 0.1
    assert error(small) < error_before
