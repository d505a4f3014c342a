"""Networks of images of 8 x 8 pixels, each with other operators in its int8 file."""

import keras

L = keras.layers


def _conv(x, filters=6, size=3, **options):
    return L.Conv2D(filters, size, padding="same", bias_initializer="normal", **options)(x)


def _end(x, classes=4, **options):
    return L.Dense(classes, **options)(L.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else L.Flatten()(x))


def plain(x):
    x = L.ReLU()(L.BatchNormalization()(_conv(x)))
    return _end(L.Conv2D(8, 3, activation="relu6")(L.MaxPooling2D()(x)), activation="softmax")


def residual(x):
    x = _conv(x, activation="relu")
    return _end(L.Add()([x, L.DepthwiseConv2D(3, padding="same", activation="relu")(x)]))


def fixed_beside_learned(x):
    x = _conv(x, activation="relu")
    return _end(L.Concatenate()([x[..., :3], L.Activation("sigmoid")(x), L.Activation("tanh")(x[..., 3:])]))


def excited(x):
    x = _conv(x, activation="relu")
    gate = L.Conv2D(6, 1, activation="hard_sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    return _end(L.Multiply()([x, gate]))


def hourglass(x):
    x = _conv(x, activation="relu")
    y = L.UpSampling2D(2)(_conv(L.MaxPooling2D(2)(x), activation="relu"))
    return _conv(L.Concatenate()([x, y]), 2, activation="sigmoid")


def transposed(x):
    x = L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(_conv(x))
    return L.Conv2DTranspose(1, 2)(x)


def bilinear(x):
    return _end(L.UpSampling2D(2, interpolation="bilinear")(_conv(x)))


def separable(x):
    return _end(L.SeparableConv2D(1, 3, activation="relu")(L.AveragePooling2D(2)(_conv(x))))


def sequence(x):
    x = L.Conv1D(6, 3, padding="causal", activation="relu")(L.Reshape((64, 3))(x))
    return _end(L.Conv1D(4, 3, strides=2, dilation_rate=1)(L.MaxPooling1D(2)(x)))


def attention(x):
    x = L.Dense(8)(L.Reshape((16, 12))(x))
    return _end(L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)]))


def recurrent(x):
    return _end(L.LSTM(6, unroll=True)(L.Reshape((8, 24))(x)))


def activations(x):
    x = L.LeakyReLU()(_conv(x))
    x = L.PReLU(shared_axes=(1, 2), alpha_initializer=keras.initializers.Constant(0.2))(_conv(x))
    return _end(_conv(x, activation="hard_silu"))


def named(x):
    x = L.GlobalMaxPooling2D()(_conv(x, activation="silu"))
    return {"scores": L.Dense(3, "softmax")(x), "box": L.Dense(4, "tanh")(x)}


def moved(x):
    x = L.Cropping2D(((1, 0), (0, 1)))(L.ZeroPadding2D(1)(_conv(x)))
    return _end(L.Permute((2, 1, 3))(x) - keras.ops.transpose(x, (0, 2, 1, 3)) * 0.5)


def float_island(x):
    return _end(_conv(L.Activation("softplus")(_conv(x)), activation="gelu"))


NETWORKS = (
    *(plain, residual, fixed_beside_learned, excited, hourglass, transposed, bilinear, separable, sequence, attention),
    *(recurrent, activations, named, moved, float_island),
)
