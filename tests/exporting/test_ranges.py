"""Activations that are zero or constant for every input: the file runs, and computes what the model does."""

import keras
import numpy as np
import pytest
from networks import of_images

import tfprune
from tfprune.exporting.convert import to_tflite
from tfprune.exporting.ranges import check_scales
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.scales import RATIO_LIMIT, kernel_scales
from tfprune.tflite.unpacking import TFLiteFile, operator_name, pack

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
DEAD = keras.initializers.Constant(-50.0)  # behind a ReLU
TINY = keras.initializers.Constant(1e-12)


def gated(x):
    """Squeeze-and-excite at its narrowest, with a gate that never opens."""
    trunk = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    gate = L.GlobalAveragePooling2D(keepdims=True)(trunk)
    gate = L.Conv2D(1, 1, activation="relu", bias_initializer=DEAD)(gate)
    gate = L.Conv2D(4, 1, activation="sigmoid", bias_initializer="ones")(gate)
    return L.Multiply()([trunk, gate])


def dead_twice(x):
    for filters in (4, 5):
        x = L.Conv2D(filters, 3, activation="relu", bias_initializer=DEAD)(x)
    return L.Conv2D(3, 1, bias_initializer="ones")(L.Concatenate()([x, x]))


def dead_depthwise(x):
    x = L.MaxPooling2D()(L.DepthwiseConv2D(3, activation="relu", bias_initializer=DEAD)(x))
    return L.Softmax()(L.GlobalMaxPooling2D()(x))


def dead_dense(x):
    x = L.BatchNormalization()(L.Dense(4, bias_initializer=DEAD)(L.Flatten()(x)))
    return L.Dense(3, bias_initializer="ones")(L.ReLU()(x))


def dead_transposed(x):
    x = L.ReLU()(L.Conv2DTranspose(4, 3, bias_initializer=DEAD)(x))
    return L.Softmax()(L.GlobalAveragePooling2D()(x))


def dead_hard_swish(x):
    return L.Conv2D(3, 1)(L.Activation("hard_silu")(L.Conv2D(4, 3, bias_initializer=DEAD)(x)))


def dead_swish(x):
    x = L.Conv2D(4, 3, activation="relu", bias_initializer=DEAD)(x)
    return L.GlobalAveragePooling2D()(L.Conv2D(3, 1, activation="silu")(x))


def tiny_weights(x):
    return L.Conv2D(3, 1)(L.Conv2D(4, 3, kernel_initializer=TINY, bias_initializer="ones")(x))


def tiny_and_dead(x):
    x = L.Conv2D(4, 3, kernel_initializer=TINY, activation="relu", bias_initializer=DEAD)(x)
    return L.Dense(3, kernel_initializer=TINY, bias_initializer="ones")(L.GlobalAveragePooling2D()(x))


def all_zero(x):
    return L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3, kernel_initializer="zeros")(x)))


def constant(x):
    x = L.Conv2D(4, 3, kernel_initializer="zeros", bias_initializer="ones")(x)
    return L.Conv2D(3, 1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(1e-3))(x)


def zero_below_a_constant(x):
    """What is added to is far smaller than the constant, and the sum is cut off at zero."""
    x = L.Conv2D(3, 1)(L.ReLU()(L.Rescaling(1e-6, -30.0)(x)))
    return L.Dense(3, bias_initializer="ones")(L.GlobalAveragePooling2D()(x))


DEFAULT = (gated, tiny_and_dead, zero_below_a_constant)
NETWORKS = (
    *(gated, dead_twice, dead_depthwise, dead_dense, dead_transposed, dead_hard_swish, dead_swish),
    *(tiny_weights, tiny_and_dead, all_zero, constant, zero_below_a_constant),
)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("path", ["int8", "int16x8", "aware"])
@pytest.mark.parametrize("network", [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in NETWORKS])
def test_files_with_dead_activations_run_and_are_right(network, path, tmp_path):
    model, quantize, calibration = of_images(network), path, IMAGES
    if path == "aware":
        model, quantize, calibration = tfprune.quantize_aware(model), "int8", None
        for _ in range(2):
            model(IMAGES, training=True)
    target = tmp_path / "model.tflite"
    tfprune.export(model, target, quantize=quantize, calibration=calibration, io_dtype="float32")
    file = TFLiteFile.read(target)
    assert all(scales.ratios.max() < RATIO_LIMIT for scales in kernel_scales(file.model))
    expected, found = np.asarray(model(IMAGES)), TFLiteModel(file).predict(IMAGES)
    assert np.abs(expected - found).max() <= 0.01 * np.abs(expected).max()


@pytest.fixture(scope="module")
def refused():
    """A file with a scale that no runtime takes, as converters make it: 1e-9 behind a convolution."""
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(4, 3, name="first"), L.GlobalAveragePooling2D(), L.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3), name="image"), *layers])
    changed = to_tflite(model, "int8", {"image": IMAGES}, "int8").editable()
    (graph,) = changed.subgraphs
    (convolution,) = [each for each in graph.operators if operator_name(changed, each) == "CONV_2D"]
    graph.tensors[convolution.outputs[0]].quantization.scale = np.array([1e-9], np.float32)
    return TFLiteFile(pack(changed))


def test_an_impossible_scale_is_an_error_that_names_the_layer(refused):
    with pytest.raises(ValueError, match=r"CONV_2D '.*first.*' multiplies channel \d of its sums by .*less than 256"):
        check_scales(refused)


def test_a_file_that_could_kill_the_process_is_tried_in_another(refused):
    with pytest.raises(RuntimeError, match=r"a process that tried it ended .*CONV_2D .*first.*must by less than 256"):
        TFLiteModel(refused)


def test_uneven_features_are_refused_with_what_to_change(tmp_path):
    """One of 1e6 beside one of 1e-4, normalized within the model: one step of the input is more than the second."""
    x = (np.random.default_rng(0).normal(size=(64, 2)) * [1e6, 1e-4]).astype("float32")
    normalization = L.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((2,)), normalization, L.Dense(3)])
    aware = tfprune.quantize_aware(model)
    aware(x, training=True)
    with pytest.raises(
        ValueError, match=r"DEPTHWISE_CONV_2D '.*normalization.*' multiplies channel 1 .*Scale the feat"
    ):
        tfprune.export(aware, tmp_path / "model.tflite", quantize="int8")
    assert not list(tmp_path.iterdir())
