"""Every kind of layer that `quantize_aware` knows, each in a small model: what the contract tests run over."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import ops
from keras.src.applications.convnext import LayerScale  # no public name; networks of keras.applications hold these
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

L = keras.layers
IMAGE = (8, 8, 4)


@dataclass(frozen=True)
class Row:
    """A small model, and what its int8 file leaves in float.

    Attributes:
        make: Builds it.
        floats: The float operators of the file.
        reasons: For classes of layers that stay in float, a part of the reason given.
        low: The smallest input.
        high: The largest input.
        options: Arguments of `quantize_aware`, made from the model.
    """

    make: Callable[[], keras.Model]
    floats: frozenset = frozenset()
    reasons: dict = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0
    options: Callable = lambda model: {}


def chain(*parts, shape=IMAGE):
    """Layers or functions, one after the other."""
    inputs = x = keras.Input(shape, name="image")
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def conv(filters=6, size=3, **options):
    return L.Conv2D(filters, size, **{"padding": "same", "bias_initializer": "normal", **options})


def scaled_sum():
    inputs = keras.Input(IMAGE)
    x = conv(5)(inputs)
    return keras.Model(inputs, CustomScaleLayer(0.2)([x, conv(5)(x)]))


def normalized(x, filters=6, activation=True, **options):
    x = L.BatchNormalization(momentum=0.8)(conv(filters, use_bias=False, **options)(x))
    return L.ReLU()(x) if activation else x


@keras.saving.register_keras_serializable(package="quantize_rows")
class Doubled(L.Layer):
    """A layer of the user's own, of one operator that has an integer form."""

    def call(self, inputs):
        return inputs + inputs

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="quantize_rows")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.norm, self.relu = conv(6, use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU()
        self.second, self.pool, self.classes = conv(6), L.GlobalAveragePooling2D(), L.Dense(3)

    def call(self, inputs):
        x = self.relu(self.norm(self.first(inputs)))
        return self.classes(self.pool(ops.relu(self.second(x) + x)))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, *IMAGE), "float32"))
    return model


def residual():
    return chain(normalized, lambda x: L.ReLU()(L.Add()([x, normalized(x, activation=False)])), conv(3))


def preactivation():
    def block(x):
        y = L.ReLU()(L.BatchNormalization(momentum=0.8)(x))
        return L.Add()([x, conv(6)(L.ReLU()(L.BatchNormalization(momentum=0.8)(conv(5, use_bias=False)(y))))])

    return chain(conv(6), block, block, L.BatchNormalization(momentum=0.8), L.ReLU(), conv(3))


def densely_connected():
    def grow(x):
        return L.Concatenate()([x, conv(3)(L.ReLU()(L.BatchNormalization(momentum=0.8)(x)))])

    return chain(conv(4), grow, grow, grow, L.BatchNormalization(momentum=0.8), L.ReLU(), conv(3))


def branches():
    def inception(x):
        return L.Concatenate()(
            [
                conv(3, activation="relu")(x),
                conv(3, activation="sigmoid")(x),
                conv(2)(L.MaxPooling2D(3, 1, padding="same")(x)),
                L.MaxPooling2D(3, 1, padding="same")(x),
                L.AveragePooling2D(3, 1, padding="same")(x),
            ]
        )

    return chain(conv(4), inception, conv(3))


def squeeze_and_excite():
    def block(x):
        gate = L.Dense(3, "relu")(L.GlobalAveragePooling2D()(x))
        gate = L.Reshape((1, 1, 6))(L.Dense(6, "sigmoid")(gate))
        return L.Multiply()([x, gate])

    return chain(normalized, block, conv(3))


def squeeze_hard():
    def block(x):
        gate = conv(3, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
        return L.Multiply()([x, conv(6, 1, activation="hard_sigmoid")(gate)])

    return chain(normalized, block, conv(3))


def shared():
    layer, inputs = conv(4), keras.Input(IMAGE)
    return keras.Model(inputs, layer(L.ReLU()(layer(inputs))))


def shared_normalized():
    layer, inputs = conv(4, use_bias=False), keras.Input(IMAGE)
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(layer(inputs)))
    return keras.Model(inputs, L.ReLU()(L.BatchNormalization(momentum=0.8)(layer(x))))


def shared_dense():
    layer, inputs = L.Dense(4, use_bias=False), keras.Input((4,))
    x = L.ReLU()(L.BatchNormalization(momentum=0.8)(layer(inputs)))
    return keras.Model(inputs, L.ReLU()(L.BatchNormalization(momentum=0.8)(layer(x))))


def nested():
    inner = keras.Sequential(
        [keras.Input(IMAGE), conv(4, use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU()]
    )
    outer = keras.Sequential([keras.Input(IMAGE), inner, conv(4, activation="relu")], name="outer")
    inputs = keras.Input(IMAGE)
    return keras.Model(inputs, L.Add()([outer(outer(inputs)), inputs]))


def several():
    a, b = keras.Input(IMAGE, name="zebra"), keras.Input((4,), name="ant")
    x = L.GlobalAveragePooling2D()(normalized(a, 4))
    return keras.Model([a, b], [L.Dense(3)(L.Concatenate()([x, b])), L.Dense(2)(x), x])


def dicts():
    inputs = {"left": keras.Input(IMAGE, name="left"), "right": keras.Input(IMAGE, name="right")}
    x = L.Subtract()([conv(4)(inputs["left"]), conv(4)(inputs["right"])])
    return keras.Model(inputs, {"same": L.Dense(2)(L.GlobalAveragePooling2D()(x)), "map": L.ReLU()(x)})


def adapted():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).uniform(0, 255, (64, *IMAGE)).astype("float32") * [1, 0.5, 0.2, 1])
    return chain(layer, conv(4, activation="relu"))


def dead_channels():
    model = chain(conv(6), L.ReLU(), L.DepthwiseConv2D(3, bias_initializer="normal"), normalized, conv(4))
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            kernel[..., 1:2] = 0.0
            if isinstance(layer, L.DepthwiseConv2D):
                kernel = layer.kernel.numpy()
                kernel[..., 1:3, :] = 0.0
            layer.kernel.assign(kernel)
            if layer.use_bias:
                layer.bias.assign(np.linspace(0.3, 0.9, layer.bias.shape[0]))
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign([1, 0.5, 2, 0, -1, 1])
            layer.beta.assign([0.1, 0.5, 0.2, 0.7, -0.2, 0])
    return model


def excluded_where(*names):
    return lambda model: {"exclude": [model.get_layer(name) for name in names]}


def three():
    return chain(conv(6, name="first"), L.ReLU(), conv(6, name="middle"), L.ReLU(), conv(3, name="last"))


def mixed():
    keras.config.set_dtype_policy("mixed_float16")
    model = chain(normalized, conv(6, activation="silu"), L.UpSampling2D(2), L.GlobalAveragePooling2D(), L.Dense(3))
    keras.config.set_dtype_policy("float32")
    return model


ACTIVATIONS = (
    *("relu", "relu6", "silu", "hard_silu", "hard_sigmoid", "gelu", "sigmoid", "tanh", "softmax", "leaky_relu"),
    "linear",
)
CUSTOM = {"Doubled": "a class of its own"}
ATTENTION = frozenset({"RESHAPE", "SOFTMAX", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE", "MUL"})
REQUEST = {"KeepFloat": "on request"}

ROWS: dict[str, Row] = {
    "conv-bn-relu": Row(lambda: chain(normalized, normalized, conv(3))),
    **{f"conv-{name}": Row(lambda name=name: chain(conv(6, activation=name), conv(3))) for name in ACTIVATIONS},
    **{
        f"ops-{name}": Row(lambda name=name: chain(conv(6), getattr(ops, name), conv(3)))
        for name in ACTIVATIONS
        if name != "linear"
    },
    "gelu-tanh": Row(lambda: chain(conv(6), lambda x: ops.gelu(x, approximate=True), conv(3))),
    "conv-valid-strided": Row(lambda: chain(conv(6, padding="valid", strides=2, activation="relu"), conv(3, 1))),
    "conv-dilated": Row(lambda: chain(conv(6, dilation_rate=2, activation="relu"), conv(3))),
    "conv-groups": Row(lambda: chain(conv(8, groups=2, activation="relu"), conv(3))),
    "conv-no-bias": Row(lambda: chain(conv(6, use_bias=False), L.ReLU(), conv(3, use_bias=False))),
    "depthwise": Row(lambda: chain(L.DepthwiseConv2D(3, activation="relu"), L.DepthwiseConv2D(3, strides=2), conv(3))),
    "depthwise-2": Row(lambda: chain(L.DepthwiseConv2D(3, depth_multiplier=2), L.BatchNormalization(), L.ReLU())),
    "separable": Row(
        lambda: chain(L.SeparableConv2D(6, 3, activation="relu", depth_multiplier=2), L.SeparableConv2D(3, 3))
    ),
    "separable-bn": Row(
        lambda: chain(L.SeparableConv2D(6, 3, use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU(6.0))
    ),
    "transposed": Row(
        lambda: chain(
            L.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu"),
            L.Conv2DTranspose(5, 3, bias_initializer="normal"),
            conv(3),
        )
    ),
    "transposed-bn": Row(
        lambda: chain(L.Conv2DTranspose(6, 3, use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU(), conv(3))
    ),
    "conv1d": Row(
        lambda: chain(
            L.Conv1D(6, 3, use_bias=False),
            L.BatchNormalization(momentum=0.8),
            L.ReLU(),
            L.MaxPooling1D(),
            L.Conv1D(4, 3, padding="causal", activation="relu"),
            L.AveragePooling1D(2),
            shape=(20, 4),
        )
    ),
    "conv1d-depthwise": Row(lambda: chain(L.DepthwiseConv1D(3, activation="relu"), L.Conv1D(4, 1), shape=(20, 4))),
    "conv1d-separable": Row(lambda: chain(L.SeparableConv1D(6, 3, activation="relu"), L.Conv1D(4, 1), shape=(20, 4))),
    "conv1d-transposed": Row(
        lambda: chain(L.Conv1DTranspose(6, 3, strides=2, activation="relu"), L.Conv1D(4, 1), shape=(10, 4))
    ),
    "conv1d-one-channel": Row(
        lambda: chain(
            L.Conv1D(1, 3, padding="causal", bias_initializer="normal", activation="relu"),
            L.Conv1DTranspose(3, 3, strides=2, use_bias=False, activation="relu"),
            L.SeparableConv1D(1, 3, use_bias=False),
            L.BatchNormalization(momentum=0.8),
            L.DepthwiseConv1D(3, strides=2, bias_initializer="normal"),
            L.Conv1DTranspose(1, 3, output_padding=1, strides=2, bias_initializer="normal"),
            shape=(20, 4),
        )
    ),
    "one-channel": Row(
        lambda: chain(
            L.SeparableConv2D(1, 3, bias_initializer="normal", activation="relu"),
            L.Conv2DTranspose(1, 3, use_bias=False, activation="relu6"),
            L.DepthwiseConv2D(3, bias_initializer="normal"),
            L.Conv2DTranspose(1, 3, strides=2, use_bias=False),
            L.BatchNormalization(momentum=0.8),
            L.ReLU(),
        )
    ),
    "transposed-relu": Row(
        lambda: chain(L.Conv2DTranspose(6, 3, strides=2, use_bias=False), L.ReLU(6.0), L.Conv2D(3, 3, use_bias=False))
    ),
    "augmentation": Row(
        lambda: chain(
            L.RandomFlip(),
            L.Pipeline([L.RandomRotation(0.1), L.RandomContrast(0.1)]),
            conv(4, activation="relu"),
            keras.Sequential([L.RandomZoom(0.1), L.GaussianNoise(0.1)]),
            L.CenterCrop(4, 4),
            L.RandomErasing(),
            conv(3),
        )
    ),
    "conv1d-moves": Row(
        lambda: chain(
            L.Conv1D(6, 3),
            L.ZeroPadding1D(2),
            L.Cropping1D(1),
            L.UpSampling1D(2),
            L.GlobalMaxPooling1D(),
            L.RepeatVector(3),
            L.GlobalAveragePooling1D(),
            shape=(10, 4),
        )
    ),
    "dense": Row(lambda: chain(L.Dense(8, "relu"), L.Dense(6, "silu"), L.Dense(3), shape=(6,))),
    "dense-3d": Row(lambda: chain(L.Dense(8, "relu"), L.Dense(3, bias_initializer="normal"), shape=(5, 6))),
    "dense-4d": Row(lambda: chain(L.Dense(8, "relu"), L.Dense(3, use_bias=False))),
    "dense-bn": Row(
        lambda: chain(L.Dense(8, use_bias=False), L.BatchNormalization(momentum=0.8), L.ReLU(), L.Dense(3), shape=(6,))
    ),
    "preactivation": Row(preactivation),
    "dense-block": Row(densely_connected),
    "residual": Row(residual),
    "branches": Row(branches),
    "squeeze-and-excite": Row(squeeze_and_excite),
    "squeeze-hard": Row(squeeze_hard),
    "pools": Row(
        lambda: chain(
            conv(4), L.MaxPooling2D(), L.AveragePooling2D(2), conv(3, activation="relu"), L.GlobalMaxPooling2D()
        )
    ),
    "pool-input": Row(lambda: chain(L.AveragePooling2D(3, 2, padding="same"), L.MaxPooling2D(), conv(3))),
    "global-average": Row(lambda: chain(normalized, L.GlobalAveragePooling2D(), L.Dense(3, "softmax"))),
    "mean-op": Row(lambda: chain(normalized, lambda x: ops.mean(x, axis=(1, 2)), lambda x: ops.max(x, axis=-1))),
    "scaled-sum": Row(scaled_sum),
    "layer-scale": Row(lambda: chain(conv(4), LayerScale(0.5, 4), conv(3))),
    "rescaling": Row(lambda: chain(L.Rescaling(1 / 127.5, -1.0), conv(4, activation="relu"), conv(3)), low=0, high=255),
    "rescaling-channels": Row(
        lambda: chain(L.Rescaling([0.1, 0.2, 0.3, 0.01], [1.0, 0.0, -1.0, 2.0]), conv(3)), low=0, high=255
    ),
    "normalization": Row(adapted, low=0, high=255),
    "moves": Row(
        lambda: chain(
            L.ZeroPadding2D(1),
            conv(4, padding="valid"),
            L.Cropping2D(1),
            L.UpSampling2D(2),
            L.Permute((2, 1, 3)),
            L.Reshape((72, 8)),
            L.Flatten(),
            L.Dense(3),
        )
    ),
    "moves-last": Row(lambda: chain(conv(4), L.MaxPooling2D(), L.Flatten())),
    "bilinear": Row(lambda: chain(conv(4), L.UpSampling2D(2, interpolation="bilinear"), conv(3))),
    "slices": Row(lambda: chain(conv(4), lambda x: x[:, 1:, ::2], lambda x: ops.transpose(x, (0, 2, 1, 3)), conv(3))),
    "prelu": Row(lambda: chain(conv(4), L.PReLU(shared_axes=[1, 2], alpha_initializer="uniform"), conv(3))),
    "leaky": Row(lambda: chain(conv(4), lambda x: ops.leaky_relu(x, 0.3), conv(3))),
    "arithmetic": Row(
        lambda: chain(conv(4), lambda x: x * 2.0 + 1.0, lambda x: x - conv(4)(x), lambda x: 1 - x, conv(3))
    ),
    "add-three": Row(lambda: chain(conv(4), lambda x: L.Add()([x, conv(4)(x), conv(4)(x)]), L.ReLU(), conv(3))),
    "multiply-three": Row(lambda: chain(conv(4), lambda x: L.Multiply()([x, conv(4)(x), conv(4)(x)]), conv(3))),
    "maximum": Row(lambda: chain(conv(4), lambda x: L.Maximum()([x, conv(4)(x), conv(4)(x)]), conv(3))),
    "average": Row(lambda: chain(conv(4), lambda x: L.Average()([x, conv(4)(x)]), conv(3))),
    "matmul": Row(
        lambda: chain(L.Dense(5), lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), L.Dense(3), shape=(5, 6))
    ),
    "dot": Row(lambda: chain(L.Dense(5), lambda x: L.Dot(2)([x, L.Dense(5)(x)]), L.Dense(3), shape=(5, 6))),
    "nested": Row(nested),
    "shared": Row(shared),
    "shared-bn": Row(shared_normalized),
    "shared-dense-bn": Row(shared_dense),
    "subclassed": Row(subclassed),
    "several": Row(several),
    "dicts": Row(dicts),
    "dropout": Row(lambda: chain(normalized, L.Dropout(0.3), conv(3), L.SpatialDropout2D(0.2), L.ReLU())),
    "layer-normalization": Row(
        lambda: chain(conv(6), L.LayerNormalization(), conv(3)),
        frozenset({"RSQRT", "ADD", "SQUARED_DIFFERENCE", "MEAN", "MUL", "NEG"}),
        {"LayerNormalization": "no integer form"},
    ),
    "attention": Row(
        lambda: chain(L.Dense(6), lambda x: L.MultiHeadAttention(2, 3)(x, x), L.Dense(3), shape=(5, 6)),
        ATTENTION,
        {"MultiHeadAttention": "no integer form"},
    ),
    "exclude-attention": Row(
        lambda: chain(L.Dense(6), lambda x: L.MultiHeadAttention(2, 3, name="mha")(x, x), L.Dense(3), shape=(5, 6)),
        ATTENTION,
        REQUEST,
        options=excluded_where("mha"),
    ),
    "bilinear-3": Row(
        lambda: chain(conv(4), L.UpSampling2D(3, interpolation="bilinear"), conv(3)),
        frozenset({"RESIZE_BILINEAR"}),
        {"UpSampling2D": "powers of two"},
    ),
    "constants": Row(
        lambda: chain(conv(4), lambda x: ops.maximum(x, 0.123), lambda x: x * np.arange(4.0, dtype="float32"), conv(3)),
        frozenset({"MAXIMUM", "MUL"}),
        {"Maximum": "a constant", "Multiply": "an array of constants"},
    ),
    "softmax-inside": Row(lambda: chain(conv(6), L.Softmax(), conv(3))),
    "softmax-axis": Row(
        lambda: chain(conv(6), L.Softmax(axis=1), conv(3)),
        frozenset({"SOFTMAX", "TRANSPOSE"}),
        {"Softmax": "last axis"},
    ),
    "custom": Row(lambda: chain(conv(6), Doubled(), conv(3)), frozenset({"ADD"}), CUSTOM),
    "custom-first": Row(lambda: chain(Doubled(), conv(3)), frozenset({"ADD"}), CUSTOM),
    "custom-last": Row(lambda: chain(conv(3), Doubled()), frozenset({"ADD"}), CUSTOM),
    "exclude-first": Row(three, frozenset({"CONV_2D"}), REQUEST, options=excluded_where("first")),
    "exclude-middle": Row(three, frozenset({"CONV_2D"}), REQUEST, options=excluded_where("middle")),
    "exclude-last": Row(three, frozenset({"CONV_2D"}), REQUEST, options=excluded_where("last")),
    "exclude-large": Row(  # the converter stores large kernels as int8 even where it computes in float
        lambda: chain(conv(16), L.ReLU(), conv(32, name="large"), L.ReLU(), conv(3)),
        frozenset({"CONV_2D"}),
        REQUEST,
        options=excluded_where("large"),
    ),
    "exclude-nested": Row(
        lambda: chain(
            conv(4),
            keras.Sequential([keras.Input(IMAGE), conv(4), L.BatchNormalization(), L.ReLU()], name="inner"),
            conv(3),
        ),
        frozenset({"CONV_2D"}),
        REQUEST,
        options=excluded_where("inner"),
    ),
    "exclude-function": Row(
        lambda: chain(conv(4), L.Flatten(), L.Dense(16), L.ReLU(), L.Dense(3)),
        frozenset({"FULLY_CONNECTED"}),
        REQUEST,
        options=lambda model: {"exclude": lambda layer: isinstance(layer, L.Dense) and layer.units == 16},
    ),
    "mixed": Row(mixed),
    "constant-bias": Row(
        lambda: chain(
            conv(6, bias_initializer=keras.initializers.Constant(0.7), activation="relu"),
            L.DepthwiseConv2D(3, bias_initializer=keras.initializers.Constant(-0.3)),
            L.Conv2DTranspose(5, 3, bias_initializer=keras.initializers.Constant(0.2)),
            L.Dense(4, bias_initializer="ones"),
        )
    ),
    "dead-channels": Row(dead_channels),
}
