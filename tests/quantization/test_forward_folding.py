"""A BatchNormalization behind an activation goes into the layers that read it, or stays whole."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfprune
from tfprune.quantization import fold_normalizations

L = keras.layers


def normalized(x):
    return L.BatchNormalization()(L.ReLU()(x))


def model_of(make, shape=(6, 6, 4)):
    """The model, with normalizations that scale by 0.5 to 2 and shift."""
    inputs = keras.Input(shape, name="image")
    model = keras.Model(inputs, make(inputs))
    random = np.random.default_rng(0)
    for layer in each_layer(model):
        if isinstance(layer, L.BatchNormalization):
            randomize(layer, random)
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(random.normal(size=layer.bias.shape))
    return model


def randomize(layer, random):
    for variable in layer.variables:
        positive = "variance" in variable.name or "gamma" in variable.name
        variable.assign(random.uniform(0.5, 1.5, variable.shape) if positive else random.normal(size=variable.shape))


def each_layer(model):
    for layer in model.layers:
        yield from each_layer(layer) if isinstance(layer, keras.Model) else [layer]


def normalizations(model):
    return sum(isinstance(layer, L.BatchNormalization) for layer in each_layer(model))


def check(model, left, **options):
    """Fold, and compare what both compute; so many normalizations are left."""
    folded = fold_normalizations(model, **options)
    assert normalizations(folded) == left
    shape = [4 if size is None else size for size in model.input_shape[1:]]
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    expected, found = (keras.ops.convert_to_numpy(each(images, training=False)) for each in (model, folded))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    return folded


def inside(*parts, shape=(6, 6, 4)):
    return keras.Sequential([keras.Input(shape), *parts])


def two_readers(x):
    x = normalized(x)
    return L.Concatenate()([L.Conv2D(3, 3)(x), L.DepthwiseConv2D(3)(L.Cropping2D(0)(x))])


def joined(x):
    both = L.Concatenate()([normalized(x), L.Conv2D(3, 1)(x), L.BatchNormalization()(L.MaxPooling2D(1)(x))])
    return L.Conv2D(5, 2)(both)


FOLDS = {
    "convolution": lambda x: L.Conv2D(5, 3)(normalized(x)),
    "without-bias": lambda x: L.Conv2D(5, 3, use_bias=False, activation="tanh")(normalized(x)),
    "pointwise": lambda x: L.Conv2D(5, 1, strides=2, padding="same")(normalized(x)),
    "no-padding-needed": lambda x: L.Conv2D(5, 2, strides=2, padding="same")(normalized(x)),
    "dilated": lambda x: L.Conv2D(5, 2, dilation_rate=2)(normalized(x)),
    "grouped": lambda x: L.Conv2D(6, 2, groups=2)(normalized(x)),
    "depthwise": lambda x: L.DepthwiseConv2D(3, depth_multiplier=2)(normalized(x)),
    "separable": lambda x: L.SeparableConv2D(5, 3, depth_multiplier=2)(normalized(x)),
    "separable-without-bias": lambda x: L.SeparableConv2D(5, 3, use_bias=False)(normalized(x)),
    "dense": lambda x: L.Dense(5)(normalized(x)),
    "maximum": lambda x: L.Conv2D(5, 2)(L.MaxPooling2D()(normalized(x))),
    "maximum-padded": lambda x: L.Conv2D(5, 2)(L.MaxPooling2D(5, padding="same")(normalized(x))),
    "average-padded": lambda x: L.Conv2D(5, 2)(L.AveragePooling2D(4, 3, padding="same")(normalized(x))),
    "global-average": lambda x: L.Dense(5)(L.GlobalAveragePooling2D()(normalized(x))),
    "global-maximum": lambda x: L.Dense(5)(L.GlobalMaxPooling2D(keepdims=True)(normalized(x))),
    "flatten": lambda x: L.Dense(5)(L.Dropout(0.5)(L.Flatten()(normalized(x)))),
    "reshape": lambda x: L.Conv1D(5, 3)(L.Reshape((36, 4))(normalized(x))),
    "upsampling": lambda x: L.Conv2D(5, 3)(L.UpSampling2D(interpolation="bilinear")(normalized(x))),
    "cropped": lambda x: L.Conv2D(5, 3)(L.Cropping2D(1)(normalized(x))),
    "sequence": lambda x: L.Conv1D(5, 1, padding="causal")(normalized(L.Reshape((36, 4))(x))),
    "at-the-input": lambda x: L.Conv2D(5, 3)(L.BatchNormalization()(x)),
    "behind-a-sum": lambda x: L.Conv2D(5, 3)(L.BatchNormalization()(L.Add()([L.ReLU()(x), x]))),
    "in-a-row": lambda x: L.Conv2D(5, 3)(L.BatchNormalization()(L.AveragePooling2D(2)(normalized(x)))),
    "two-readers": two_readers,
    "joined": joined,
    "inside": lambda x: inside(L.ReLU(), L.BatchNormalization(), L.Conv2D(5, 3))(x),
    "out-of-a-model": lambda x: L.Conv2D(5, 3)(inside(L.ReLU(), L.BatchNormalization())(x)),
    "of-a-model-that-is-nothing-else": lambda x: L.Conv2D(5, 3)(inside(L.BatchNormalization())(L.ReLU()(x))),
    "into-a-model": lambda x: inside(L.AveragePooling2D(2), L.Conv2D(5, 2))(normalized(x)),
    "of-open-size": lambda x: L.Dense(5)(L.GlobalAveragePooling2D()(L.Conv2D(5, 3)(normalized(x)))),
}


def shared_reader(x):
    convolution = L.Conv2D(4, 3)
    return convolution(normalized(convolution(x)))


def one_refuses(x):
    x = normalized(x)
    return L.Concatenate()([L.Conv2D(3, 1)(x), L.Conv2D(3, 3, padding="same")(x)])


STAYS = {
    "padded": lambda x: L.Conv2D(5, 3, padding="same")(normalized(x)),
    "padded-depthwise": lambda x: L.DepthwiseConv2D(3, padding="same")(normalized(x)),
    "padded-before": lambda x: L.Conv2D(5, 3)(L.ZeroPadding2D()(normalized(x))),
    "causal": lambda x: L.Conv1D(5, 3, padding="causal")(normalized(L.Reshape((36, 4))(x))),
    "transposed": lambda x: L.Conv2DTranspose(5, 3)(normalized(x)),
    "activation": lambda x: L.Conv2D(5, 3)(L.ReLU()(L.BatchNormalization()(L.ReLU()(x)))),
    "end": lambda x: normalized(x),
    "also-an-output": lambda x: L.Concatenate()([(y := normalized(x)), L.Conv2D(5, 1)(y)]),
    "one-refuses": one_refuses,
    "shared-reader": shared_reader,
    "other-axis": lambda x: L.Conv2D(5, 3)(L.BatchNormalization(axis=1)(L.ReLU()(x))),
    "mixed-on-the-way": lambda x: L.Dense(3)(L.Reshape((24, 6))(normalized(x))),
    "of-the-batch": lambda x: L.Conv2D(5, 3)(L.BatchNormalization()(L.ReLU()(x), training=True)),
    "behind-a-convolution": lambda x: L.Conv2D(5, 3)(L.BatchNormalization()(L.Conv2D(4, 3)(x))),
}


@pytest.mark.parametrize("name", FOLDS)
def test_readers_that_take_it_compute_the_same(name):
    check(model_of(FOLDS[name], (None, None, 4) if name == "of-open-size" else (6, 6, 4)), left=0)


@pytest.mark.parametrize("name", STAYS)
def test_where_it_would_not_be_exact_the_model_stays(name):
    model = model_of(STAYS[name])
    assert fold_normalizations(model) is model


def test_by_hand():
    inputs = keras.Input((2,))
    model = keras.Model(
        inputs, L.Dense(1, name="sum")(L.BatchNormalization(epsilon=0.0, name="norm")(L.ReLU()(inputs)))
    )
    for variable, value in zip(model.get_layer("norm").variables, ([3, 1], [1, 0], [2, 4], [9, 4]), strict=True):
        variable.assign(value)  # (x - 2) / 3 * 3 + 1 and (x - 4) / 2
    for variable, value in zip(model.get_layer("sum").variables, ([[2], [10]], [5]), strict=True):
        variable.assign(value)
    kernel, bias = fold_normalizations(model).get_layer("sum").get_weights()
    np.testing.assert_allclose(kernel, [[2.0], [5.0]], rtol=1e-6)
    np.testing.assert_allclose(bias, [5.0 + 2 * -1 + 10 * -2], rtol=1e-6)


def test_a_scale_alone_passes_padding():
    def make(x):
        x = L.ZeroPadding2D()(L.BatchNormalization(center=False)(L.ReLU()(x)))
        return L.Conv2DTranspose(4, 3, strides=2)(L.Conv2D(5, 3, padding="same")(x))

    model = model_of(make)
    next(layer for layer in model.layers if isinstance(layer, L.BatchNormalization)).moving_mean.assign([0.0] * 4)
    check(model, left=0)


def test_a_maximum_is_passed_by_positive_scales_only():
    model = model_of(lambda x: L.Conv2D(5, 2)(L.MaxPooling2D(name="pool")(normalized(x))))
    norm = next(layer for layer in model.layers if isinstance(layer, L.BatchNormalization))
    norm.gamma.assign([1.0, 2.0, 0.0, 1.0])
    check(model, left=0)
    norm.gamma.assign([1.0, 2.0, -0.1, 1.0])
    assert fold_normalizations(model) is model


def test_a_model_that_is_called_twice_takes_nothing_in_but_folds_within():
    shared = inside(L.Conv2D(4, 3, padding="same"), L.ReLU(), L.BatchNormalization(), L.Conv2D(4, 1))
    check(model_of(lambda x: shared(shared(x))), left=0)
    taking = inside(L.Conv2D(4, 1))
    check(model_of(lambda x: taking(normalized(taking(x)))), left=1)


@settings(max_examples=15)
@given(st.data())
def test_chains_of_layers_compute_the_same(data):
    parts = {
        "normalization": lambda: L.BatchNormalization(),
        "relu": lambda: L.ReLU(),
        "maximum": lambda: L.MaxPooling2D(2, strides=1),
        "average": lambda: L.AveragePooling2D(2, strides=1, padding="same"),
        "convolution": lambda: L.Conv2D(4, 2, padding=data.draw(st.sampled_from(["valid", "same"]))),
        "depthwise": lambda: L.DepthwiseConv2D(2, padding=data.draw(st.sampled_from(["valid", "same"]))),
    }
    names = data.draw(st.lists(st.sampled_from(sorted(parts)), min_size=2, max_size=6))

    def make(x):
        for name in names:
            x = parts[name]()(x)
        return L.Dense(2)(L.Flatten()(x))

    model = model_of(make, (8, 8, 2))
    check(model, left=normalizations(fold_normalizations(model)))


def test_scales_that_leave_other_weights_no_levels_stay_where_kernels_are_rounded():
    model = model_of(FOLDS["convolution"])
    norm = next(layer for layer in model.layers if isinstance(layer, L.BatchNormalization))
    check(model, left=0, rounds=True)
    norm.moving_variance.assign([1.0, 1.0, 1.0, 0.0])  # a dead channel, enlarged 32 times
    norm.moving_mean.assign([0.0, 0.0, 0.0, 0.0])
    assert fold_normalizations(model, rounds=True) is model
    check(model, left=0)


def test_weights_that_share_values_go_on_sharing_them():
    model = model_of(FOLDS["convolution"])
    kernel = model.layers[-1].kernel
    kernel.assign(np.sign(kernel.numpy()) * 0.5)
    assert fold_normalizations(model) is model


def test_zeros_stay_zeros():
    pruned = model_of(FOLDS["convolution"])
    kernel = pruned.layers[-1].kernel
    kernel.assign(kernel.numpy() * (np.arange(180).reshape(3, 3, 4, 5) % 3 == 0))
    folded = check(pruned, left=0)
    np.testing.assert_array_equal(folded.layers[-1].kernel.numpy() == 0, kernel.numpy() == 0)


def several(x):
    x = L.BatchNormalization()(L.Conv2D(6, 3, activation="relu")(x))
    x = L.BatchNormalization()(L.Conv2D(6, 2, activation="relu")(L.MaxPooling2D(2, strides=1)(x)))
    return L.Dense(3)(L.Dropout(0.2)(L.Flatten()(x)))


def operators(report):
    return {each.name for each in report.operators}


def test_files_hold_neither_product_nor_sum(tmp_path):
    model = model_of(several)
    images = np.random.default_rng(0).normal(size=(20, 6, 6, 4)).astype("float32")
    plain = tfprune.export(model, tmp_path / "float.tflite", calibration=images)
    int8 = tfprune.export(model, tmp_path / "int8.tflite", quantize="int8", calibration=images)
    for report in (plain, int8):
        assert operators(report) == {"CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"}
    unfolded = tfprune.ExportOptions(fold_normalizations=False)
    kept = tfprune.export(model, tmp_path / "kept.tflite", calibration=images, options=unfolded)
    assert operators(kept) == operators(plain) | {"MUL", "ADD"}
    assert normalizations(model) == 2


def test_a_quantize_aware_model_has_none_either(tmp_path):
    model = model_of(several)
    images = np.random.default_rng(0).normal(size=(20, 6, 6, 4)).astype("float32")
    aware = tfprune.quantize_aware(model)
    aware(images, training=True)  # which learns the ranges
    report = tfprune.export(aware, tmp_path / "aware.tflite", quantize="int8", calibration=images)
    assert operators(report) == {"CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"}
    stripped = tfprune.strip(aware)
    assert normalizations(stripped) == 0
    np.testing.assert_allclose(stripped(images), model(images), atol=1e-4)


def test_what_is_left_in_float_is_left_whole():
    class Mine(L.Layer):  # not registered, so only its object can be copied
        def __init__(self, factor):
            super().__init__(name="mine")
            self.factor = factor

        def call(self, x):
            return self.factor * x

    model = model_of(lambda x: L.Conv2D(3, 2)(Mine(2.0)(L.Conv2D(5, 3, name="reads")(normalized(x)))))
    mine, reads = model.get_layer("mine"), model.get_layer("reads")
    folded = tfprune.strip(tfprune.quantize_aware(model, exclude=[mine]))
    assert normalizations(folded) == 0
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    np.testing.assert_allclose(folded(images), model(images), atol=1e-4)
    kept = tfprune.strip(tfprune.quantize_aware(model, exclude=[mine, reads]))
    assert normalizations(kept) == 1
    np.testing.assert_allclose(kept(images), model(images), atol=1e-4)
