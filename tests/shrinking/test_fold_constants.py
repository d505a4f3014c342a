"""Constants of channels that go: folded into a bias, exactly where every position sees them."""

import re
import warnings

import keras
import numpy as np
import pytest
from networks import outputs, randomize, relative_difference, same, weights_of

import tfprune
from tfprune.shrinking.constants import probe_inputs, run

L = keras.layers


def kill(layer, positions, keep_bias=False):
    """Zero filters of a layer; their biases too unless they are to carry a constant."""
    for variable in (layer.kernel,) if keep_bias else (layer.kernel, layer.bias):
        value = variable.numpy()
        value[..., positions] = 0.0
        variable.assign(value)


def kill_gamma(layer, positions):
    """Zero gammas and leave the betas, which are then what comes out."""
    value = layer.gamma.numpy()
    value[positions] = 0.0
    layer.gamma.assign(value)


def exactly(model, tolerance=1e-6):
    """Shrink without a warning, and compare on ten random inputs."""
    shape = (10, *(size or 9 for size in model.input_shape[1:]))
    x = np.random.default_rng(3).normal(size=shape).astype("float32")
    before = weights_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = tfprune.shrink(model)
    assert same(before, weights_of(model))
    expected = outputs(model, x)
    assert expected[0].std(axis=0).min() > 1e-3  # the inputs matter
    assert relative_difference(expected, outputs(small, x)) < tolerance
    return small


class TestExact:
    @pytest.mark.parametrize(
        ("activation", "constant"),
        [("sigmoid", 0.5), ("softplus", np.log(2.0)), ("exponential", 1.0), ("hard_sigmoid", 0.5)],
    )
    def test_dense(self, activation, constant):
        """The filters are zero, and the activation is not: every filter that goes is worth f(0) in the next bias."""
        model = randomize(
            keras.Sequential([keras.Input((3,)), L.Dense(5, activation, name="hidden"), L.Dense(2, name="end")])
        )
        kill(model.get_layer("hidden"), [1, 4])
        small = exactly(model)
        end = model.get_layer("end")
        expected = end.bias.numpy() + constant * end.kernel.numpy()[[1, 4]].sum(axis=0)
        np.testing.assert_allclose(small.get_layer("end").bias.numpy(), expected, rtol=1e-5)
        assert np.array_equal(small.get_layer("end").kernel.numpy(), end.kernel.numpy()[[0, 2, 3]])

    def test_a_bias_that_is_left(self):
        # The dead filter gives relu(3) = 3 for every input, and 3 * 10 goes into the bias of 1: 31.
        model = keras.Sequential([keras.Input((1,)), L.Dense(2, "relu", name="hidden"), L.Dense(1, name="end")])
        model.get_layer("hidden").set_weights([np.array([[2.0, 0.0]]), np.array([0.0, 3.0])])
        model.get_layer("end").set_weights([np.array([[1.0], [10.0]]), np.array([1.0])])
        small = tfprune.shrink(model)
        assert [weight.tolist() for weight in weights_of(small)] == [[[2.0]], [0.0], [[1.0]], [31.0]]

    def test_a_negative_bias_behind_relu_is_zero(self):
        model = keras.Sequential([keras.Input((1,)), L.Dense(2, "relu", name="hidden"), L.Dense(1, name="end")])
        model.get_layer("hidden").set_weights([np.array([[2.0, 0.0]]), np.array([0.0, -3.0])])
        model.get_layer("end").set_weights([np.array([[1.0], [10.0]]), np.array([1.0])])
        assert tfprune.shrink(model).get_layer("end").bias.numpy().tolist() == [1.0]

    def test_a_reader_without_a_bias_gets_one(self):
        model = keras.Sequential([keras.Input((1,)), L.Dense(2, name="hidden"), L.Dense(2, use_bias=False, name="end")])
        model.get_layer("hidden").set_weights([np.array([[2.0, 0.0]]), np.array([0.0, 3.0])])
        model.get_layer("end").set_weights([np.array([[1.0, 1.0], [10.0, -5.0]])])
        small = tfprune.shrink(model)
        assert small.get_layer("end").bias.numpy().tolist() == [30.0, -15.0]

    def test_a_valid_convolution(self):
        model = keras.Sequential(
            [keras.Input((6, 6, 2)), L.Conv2D(4, 3, activation="sigmoid", name="first"), L.Conv2D(3, 3, name="end")]
        )
        kill(randomize(model).get_layer("first"), [0, 2])
        small = exactly(model)
        end = model.get_layer("end")
        expected = end.bias.numpy() + 0.5 * end.kernel.numpy()[:, :, [0, 2]].sum(axis=(0, 1, 2))
        np.testing.assert_allclose(small.get_layer("end").bias.numpy(), expected, rtol=1e-5)

    def test_a_1x1_convolution_behind_a_beta(self):
        """Gamma is zero and beta is not; a kernel of one pixel sees no padding."""
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                L.Conv2D(4, 3, padding="same", use_bias=False, name="first"),
                L.BatchNormalization(name="bn"),
                L.ReLU(),
                L.Conv2D(3, 1, padding="same", name="end"),
            ]
        )
        bn = randomize(model).get_layer("bn")
        bn.beta.assign([0.7, 0.2, -0.4, 0.1])
        kill_gamma(bn, [0, 2])
        small = exactly(model)
        end = model.get_layer("end")
        expected = end.bias.numpy() + 0.7 * end.kernel.numpy()[0, 0, 0]  # relu(-0.4) = 0
        np.testing.assert_allclose(small.get_layer("end").bias.numpy(), expected, rtol=1e-5)
        assert small.get_layer("first").filters == 2

    @pytest.mark.parametrize("pooling", [L.GlobalAveragePooling2D, L.GlobalMaxPooling2D, L.Flatten])
    def test_a_dense_layer_behind_pooling(self, pooling):
        model = keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                L.Conv2D(4, 3, padding="same", activation="sigmoid", name="first"),
                pooling(),
                L.Dense(3, name="end"),
            ]
        )
        kill(randomize(model).get_layer("first"), [3])
        small = exactly(model)
        rows = model.get_layer("end").kernel.numpy().reshape(-1, 4, 3)[:, 3].sum(axis=0)
        expected = model.get_layer("end").bias.numpy() + 0.5 * rows
        np.testing.assert_allclose(small.get_layer("end").bias.numpy(), expected, rtol=1e-5)

    def test_two_readers_each_get_their_own(self):
        inputs = keras.Input((3,))
        x = L.Dense(4, "sigmoid", name="hidden")(inputs)
        model = randomize(keras.Model(inputs, [L.Dense(2, name="a")(x), L.Dense(1, name="b")(x)]))
        kill(model.get_layer("hidden"), [2])
        small = exactly(model)
        for name in "ab":
            layer = model.get_layer(name)
            expected = layer.bias.numpy() + 0.5 * layer.kernel.numpy()[2]
            np.testing.assert_allclose(small.get_layer(name).bias.numpy(), expected, rtol=1e-5)

    def test_inside_a_nested_model(self):
        block_input = keras.Input((3,))
        hidden, end = L.Dense(4, "sigmoid", name="hidden"), L.Dense(3, name="end")
        block = keras.Model(block_input, end(hidden(block_input)), name="block")
        inputs = keras.Input((3,))
        model = randomize(keras.Model(inputs, L.Dense(2, name="last")(block(inputs))))
        kill(hidden, [0])
        small = exactly(model)
        expected = end.bias.numpy() + 0.5 * end.kernel.numpy()[0]
        np.testing.assert_allclose(small.get_layer("block").get_layer("end").bias.numpy(), expected, rtol=1e-5)

    def test_a_chain_of_constants(self):
        """What is dead in each of two layers goes from both, and the second constant counts the first."""
        model = randomize(
            keras.Sequential(
                [
                    keras.Input((3,)),
                    L.Dense(4, "sigmoid", name="a"),
                    L.Dense(4, "sigmoid", name="b"),
                    L.Dense(2, name="c"),
                ]
            )
        )
        kill(model.get_layer("a"), [0, 1])
        kill(model.get_layer("b"), [2])
        small = exactly(model)
        assert [small.get_layer(name).units for name in "abc"] == [2, 3, 2]


class TestWhereNothingCanTakeThem:
    def test_a_layer_called_twice_keeps_the_channel(self):
        """The constant would have to go into one bias for both calls."""
        inputs = keras.Input((3,))
        end = L.Dense(2, name="end")
        branches = [end(L.Dense(4, "sigmoid", name=name)(inputs)) for name in "ab"]
        model = randomize(keras.Model(inputs, L.Add()(branches)))
        kill(model.get_layer("a"), [1])
        kill(model.get_layer("b"), [1], keep_bias=True)
        with pytest.warns(UserWarning, match="1 channels have zero kernels, but they are frozen or read where"):
            small = tfprune.shrink(model)
        assert small.get_layer("a").units == 4

    def test_a_transposed_convolution_keeps_the_channel(self):
        model = keras.Sequential(
            [keras.Input((4, 4, 2)), L.Conv2D(3, 1, activation="sigmoid", name="a"), L.Conv2DTranspose(2, 3)]
        )
        kill(randomize(model).get_layer("a"), [1])
        with pytest.warns(UserWarning, match="No channel of the model is dead"):
            assert tfprune.shrink(model).get_layer("a").filters == 3


class TestPadding:
    def padded(self):
        model = keras.Sequential(
            [
                keras.Input((6, 5, 2)),
                L.Conv2D(4, 1, activation="sigmoid", name="first"),
                L.Conv2D(3, 3, padding="same", name="end"),
            ]
        )
        kill(randomize(model).get_layer("first"), [1, 2])
        return model

    def test_the_warning_tells_the_residual(self):
        model = self.padded()
        with pytest.warns(UserWarning, match="not exactly the masked one") as caught:
            small = tfprune.shrink(model)
        told = float(re.search(r"differ by up to (\S+) of the largest", str(caught[0].message))[1])
        x = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype("float32")
        (expected,), (found,) = outputs(model, x), outputs(small, x)
        residual = np.abs(expected - found).max() / np.abs(expected).max()
        assert residual > 0.01
        assert told == pytest.approx(residual, rel=0.06)  # two digits are told

    def test_it_is_exact_inside_and_differs_at_the_border_by_the_padding(self):
        """At a border the sum over the kernel misses the positions that lie in the padding."""
        model = self.padded()
        with pytest.warns(UserWarning, match="not exactly"):
            small = tfprune.shrink(model)
        x = np.random.default_rng(1).normal(size=(2, 6, 5, 2)).astype("float32")
        gap = outputs(small, x)[0] - outputs(model, x)[0]
        assert np.abs(gap[:, 1:-1, 1:-1]).max() < 1e-5
        kernel = model.get_layer("end").kernel.numpy()[:, :, [1, 2]].sum(axis=2)
        corner = 0.5 * (kernel[0].sum(axis=0) + kernel[1:, 0].sum(axis=0))  # what a window at (0, 0) does not see
        np.testing.assert_allclose(gap[:, 0, 0], np.stack([corner, corner]), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(gap[:, 0, 2], np.stack([0.5 * kernel[0].sum(axis=0)] * 2), rtol=1e-3, atol=1e-5)

    def test_zeros_need_no_warning(self):
        model = self.padded()
        model.get_layer("first").activation = keras.activations.tanh
        assert exactly(model).get_layer("first").filters == 2


class TestProbe:
    def test_floats_are_random_and_seeded_and_integers_are_zero(self):
        inputs = [keras.Input((None, 3)), keras.Input((4,), dtype="int32")]
        x = L.Concatenate()([L.GlobalAveragePooling1D()(inputs[0]), L.Embedding(5, 2)(inputs[1])[:, 0]])
        model = keras.Model(inputs, L.Dense(1)(x))
        first, second = probe_inputs(model), probe_inputs(model)
        assert [(array.shape, array.dtype.name) for array in first] == [((1, 64, 3), "float32"), ((1, 4), "int32")]
        assert same(first, second)
        assert first[0].std() == pytest.approx(1.0, abs=0.2)
        assert not first[1].any()

    def test_run_is_inference(self):
        model = keras.Sequential([keras.Input((4,)), L.Dropout(0.5), L.Rescaling(2.0)])
        (found,) = run(model, [np.ones((1, 4), "float32")])
        assert found.tolist() == [[2.0] * 4]
