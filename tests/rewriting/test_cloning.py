"""What a smaller copy keeps besides weights: adapted state, functions, flags and compile settings."""

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812
from networks import outputs, relative_difference, same, weights_of

import tfprune
from tfprune.graph import analyse
from tfprune.rewriting.cloning import duplicate


def classifier(*front, width=8):
    return keras.Sequential([keras.Input((4,)), *front, L.Dense(width, "relu", name="hidden"), L.Dense(2, name="end")])


def data(count=32):
    generator = np.random.default_rng(0)
    return generator.normal(3, 5, (count, 4)).astype("float32"), generator.normal(0, 20, (count, 2)).astype("float32")


def test_adapted_normalization_is_kept():
    x, _ = data()
    normalization = L.Normalization()
    normalization.adapt(x)
    model = classifier(normalization)
    small = tfprune.prune_channels(model, 0.5)
    keep = {tfprune.channel_groups(model).free[0]: np.arange(8)}
    assert relative_difference(outputs(model, x), outputs(tfprune.shrink(model, keep), x)) < 1e-6
    assert small.get_layer("hidden").units == 4
    assert np.array_equal(small.layers[0].mean, normalization.mean)


def test_adapted_vocabulary_is_kept():
    lookup = L.IntegerLookup()
    lookup.adapt(np.array([[7], [9], [7]]))
    inputs = keras.Input((1,), dtype="int64")
    embedded = L.Flatten()(L.Embedding(4, 6, name="words")(lookup(inputs)))
    model = keras.Model(inputs, L.Dense(2, name="end")(embedded))
    small = tfprune.shrink(model, {tfprune.channel_groups(model).free[0]: [0, 2, 5]})
    words = np.array([[7], [9], [1]])
    model.get_layer("words").embeddings.assign(model.get_layer("words").embeddings * np.array([1, 0, 1, 0, 0, 1.0]))
    assert relative_difference(outputs(model, words), outputs(small, words)) < 1e-6


def test_lambda_layers_keep_their_function():
    x, _ = data()
    model = classifier(L.Lambda(lambda t: t * 2.0, output_shape=(4,)))
    small = tfprune.shrink(model, {})
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-6
    assert small.layers[0].function is model.layers[0].function
    assert small.layers[0]._output_shape == (4,)  # private, and what made_from_config reads


def test_a_frozen_nested_model_stays_frozen():
    base = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu", name="inner")], name="base")
    base.trainable = False
    model = keras.Sequential([keras.Input((4,)), base, L.Dense(2)])
    small = tfprune.prune_channels(model, 0.5)
    assert small.get_layer("base").trainable is False
    assert len(small.trainable_weights) == 2
    assert small.get_layer("base").get_layer("inner").units == 4


def test_excluding_a_nested_model_excludes_its_layers():
    base = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu", name="inner")], name="base")
    model = keras.Sequential([keras.Input((4,)), base, L.Dense(6, "relu", name="mine"), L.Dense(2)])
    small = tfprune.prune_channels(model, 0.5, exclude=[base])
    assert small.get_layer("base").get_layer("inner").units == 8
    assert small.get_layer("mine").units == 3


def test_input_layers_may_stand_among_the_excluded():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(L.Dense(8, "relu", name="hidden")(inputs)))
    assert tfprune.channel_groups(model, exclude=model.layers[:2]).free == ()


def test_compile_settings_are_the_users_own_objects():
    x, y = data()
    model = classifier()
    model.compile(
        keras.optimizers.Adam(0.123, weight_decay=0.01),
        keras.losses.Huber(delta=3.0),  # whose config leaves delta out
        metrics=[lambda y, p: keras.ops.mean(y - p), "mae", keras.metrics.RootMeanSquaredError(name="rms")],
        steps_per_execution=2,
        run_eagerly=True,
    )
    small = tfprune.shrink(model, {})
    assert small.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)
    assert small.run_eagerly
    assert small.optimizer is not model.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert small.steps_per_execution == 2
    before = weights_of(model)
    small.fit(x, y, verbose=0)
    assert same(before, weights_of(model))


def test_named_outputs_keep_their_losses_and_the_class():
    class Named(keras.Model):
        pass

    x, y = data()
    inputs = keras.Input((4,), name="in")
    model = Named({"in": inputs}, {"out": L.Dense(2, name="out")(L.Dense(8, "relu")(inputs))})
    model.compile("sgd", {"out": "mse"}, metrics={"out": ["mae"]})
    small = tfprune.shrink(model, {})
    assert type(small) is Named
    expected = model.evaluate({"in": x}, {"out": y}, return_dict=True, verbose=0)
    assert set(expected) == {"loss", "mae"}
    assert small.evaluate({"in": x}, {"out": y}, return_dict=True, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_subclassed_model_exports(tmp_path):
    class OwnCall(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.end = L.Dense(8, "relu"), L.Dense(2)

        def call(self, x):
            return self.end(self.hidden(x))

    x, _ = data()
    model = OwnCall()
    model(x)
    report = tfprune.export(model, tmp_path / "own.tflite", calibration=x)
    assert report.verified_on == "32 calibration samples"


def test_a_ratio_that_removes_nothing_says_so():
    with pytest.warns(UserWarning, match=r"no channel goes: the widest group has 8 .* at least 0\.125"):
        small = tfprune.prune_channels(classifier(), 0.05)
    assert small.get_layer("hidden").units == 8


def test_a_layer_of_keras_without_a_config_is_copied():
    idle = L.Identity(dtype=keras.DTypePolicy("float32"))
    with pytest.raises(NotImplementedError):  # it can take a policy, and cannot tell it
        idle.get_config()
    model, x = classifier(L.Dense(6, name="first"), idle), data()[0]
    small = tfprune.prune_channels(model, 0.5)
    assert (small.get_layer("hidden").units, small.get_layer("first").units) == (4, 3)
    aware = tfprune.quantize_aware(small)
    aware(x, training=True)
    assert relative_difference(outputs(small, x), outputs(tfprune.strip(aware), x)) < 1e-6


def test_an_operation_as_activation_is_kept_where_keras_has_another_function_of_its_name():
    model, x = classifier(L.Dense(6, keras.ops.gelu, name="first"), L.Activation(keras.ops.gelu)), data()[0]
    copies = {"same": duplicate(model, analyse(model))[0], "strip": tfprune.strip(tfprune.quantize_aware(model))}
    exact = keras.activations.gelu(np.linspace(-3, 3, 9)) - keras.ops.gelu(np.linspace(-3, 3, 9))
    assert np.abs(exact).max() > 1e-4  # what a copy by name would be off by
    for name, copy in copies.items():
        assert relative_difference(outputs(model, x), outputs(copy, x)) < 1e-6, name


def leaking(x):
    return 1.5 * keras.ops.relu(x) + 0.1 * x


def test_an_own_function_as_activation_is_applied_once_by_the_quantize_aware_model():
    model, x = classifier(L.Dense(6, leaking, name="first")), data()[0]
    assert relative_difference(outputs(model, x), outputs(tfprune.strip(tfprune.quantize_aware(model)), x)) < 1e-6
