"""One operator at a time, between two roundings: there the file computes what the model does, most to the last bit."""

import keras
import numpy as np
import pytest
from files import aware_file, distance, float_operators, output_scales, run
from keras import ops
from networks import outputs
from quantize_rows import chain

import tfprune
from tfprune.exporting.stored_kernels import stored_kernels
from tfprune.quantization.rounding import fake_quantize_weights
from tfprune.tflite.unpacking import unpack

L = keras.layers


def turned(x):
    return L.Permute((2, 1, 3))(x)


def rows(x):
    return L.Reshape((64, 4))(x)


OPERATORS = {
    "relu": lambda x: L.ReLU()(x * 1.0),
    "relu6": lambda x: ops.relu6(x * 4.0),
    "leaky_relu": lambda x: L.LeakyReLU(0.1)(x),
    "prelu": lambda x: L.PReLU(shared_axes=[1, 2], alpha_initializer="uniform")(x),
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "softmax": ops.softmax,
    "silu": ops.silu,
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "hard_silu": ops.hard_silu,
    "hard_sigmoid": ops.hard_sigmoid,
    "average-2": lambda x: L.AveragePooling2D(2)(x),
    "average-same": lambda x: L.AveragePooling2D(3, 1, padding="same")(x),
    "average-of-sigmoid": lambda x: L.AveragePooling2D(2)(ops.sigmoid(x)),
    "global-average": lambda x: L.GlobalAveragePooling2D()(x),
    "bilinear-2": lambda x: L.UpSampling2D(2, interpolation="bilinear")(x),
    "bilinear-4": lambda x: L.UpSampling2D(4, interpolation="bilinear")(x),
    "nearest": lambda x: L.UpSampling2D((2, 3))(x) * 1.0,
    "normalization": lambda x: L.BatchNormalization(name="bn")(x),
    "normalization-relu": lambda x: L.ReLU()(L.BatchNormalization(name="bn")(x)),
    "times": lambda x: x * -0.7,
    "plus": lambda x: x + 1.3,
    "from": lambda x: 1 - x,
    "add": lambda x: L.Add()([x, turned(x)]),
    "subtract": lambda x: x - turned(x),
    "multiply": lambda x: L.Multiply()([x, turned(x)]),
    "maximum": lambda x: L.Maximum()([x, turned(x)]) * 1.0,
    "concatenate-sigmoid": lambda x: L.Concatenate()([ops.sigmoid(x), x]),
    "concatenate-sigmoid-tanh": lambda x: L.Concatenate()([ops.sigmoid(x), ops.tanh(x)]),
    "concatenate-sigmoid-softmax": lambda x: L.Concatenate()([ops.sigmoid(x), ops.softmax(x)]),
    "conv": lambda x: L.Conv2D(5, 3, bias_initializer="normal")(x),
    "depthwise": lambda x: L.DepthwiseConv2D(3, bias_initializer="normal")(x),
    "transposed": lambda x: L.Conv2DTranspose(5, 3, strides=2, padding="same", bias_initializer="normal")(x),
    "dense": lambda x: L.Dense(5, bias_initializer="normal")(x),
    "dot": lambda x: L.Dot(-1)([rows(x), rows(x)]),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
}


ELSEWHERE = ("relu6", "gelu", "softmax", "average-same", "bilinear-4", "from", "subtract", "conv", "dense", "matmul")
"""Only in the slow run: kin of others here, or in many rows of test_rows.py."""


ROUNDED = {
    *("add", "subtract", "leaky_relu", "prelu", "bilinear-2", "bilinear-4", "dot", "matmul", "hard_silu"),
    *("concatenate-sigmoid", "concatenate-sigmoid-tanh"),
}
"""Operators of LiteRT's default kernels that compute with rounded factors: what lies near a half may go elsewhere."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each in ELSEWHERE else ()) for each in OPERATORS]
)
def test_one_operator_is_never_more_than_one_step_off(name):
    random = np.random.default_rng(0)
    aware = tfprune.quantize_aware(chain(OPERATORS[name], L.Activation("linear")))
    for layer in aware.layers:
        if layer.name == "bn":
            layer.set_weights([random.normal(size=4), random.normal(size=4), random.normal(size=4) / 3, np.ones(4)])
            layer.trainable = False
    x = random.uniform(-2, 2.1, (16, 8, 8, 4)).astype("float32")
    aware(x, training=True)
    content = aware_file(aware)
    assert float_operators(content) == set()
    expected, scales = outputs(aware, x), output_scales(content)
    assert distance(expected, run(content, [x], reference=True), scales) <= 1.01
    assert distance(expected, run(content, [x], reference=False), scales) <= (1.01 if name in ROUNDED else 0.01)


def test_weights_are_rounded_as_the_converter_does():
    weights = np.array([127, 0.5, -0.5, 1.5, -1.5, 63.5, -63.5, 126.5, -126.5, 2.4999, -2.5001, 0], "float32")
    for layer, shape in ((L.Conv2D(1, 1, use_bias=False), (1, 1, 12)), (L.Dense(1, use_bias=False), (12,))):
        model = chain(layer, shape=shape)
        layer.kernel.assign(weights.reshape(layer.kernel.shape))
        aware = tfprune.quantize_aware(model)
        one_by_one = np.eye(12, dtype="float32").reshape(12, *shape)
        aware(one_by_one, training=True)
        (stored,) = stored_kernels(unpack(aware_file(aware)))
        expected = fake_quantize_weights(layer.kernel.numpy(), (-1,))
        assert np.array_equal(stored.ravel(), np.ravel(expected))
