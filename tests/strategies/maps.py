"""Steps on feature maps: functions from a builder and a tensor to a tensor, or several."""

import math

from keras import ops

from strategies.builder import WAKING, L

MAX_WIDTH, MAX_SIZE = 8, 8


def convolve(b, x):
    width, channels, kernel_size = b.width(), x.shape[-1], b.kernel_size(x)
    groups = b.pick([g for g in ((1, 2, 4) if b.chance(10) else (1,)) if channels % g == 0 and width % g == 0])
    if b.chance(20) and channels > 1:  # one filter, or several, for each channel
        groups, width = channels, channels * b.pick([1, 2] if channels <= 4 else [1])
    padding = b.padding(x, kernel_size)
    strides = b.pick([1, 1, 2])
    layer = L.Conv2D(
        width, kernel_size, strides, padding, groups=groups, use_bias=b.chance(), activation=b.activation()
    )
    if groups == channels > 1:
        wakes = layer.activation.__name__ in WAKING
        return b.through(layer, x, wakes=wakes)
    return b.make(layer, x)


def dilate(b, x):
    padding = "same" if b.may_pad(x) else "valid"
    if padding == "valid" and min(x.shape[1:3]) < 3:
        return convolve(b, x)
    return b.make(L.Conv2D(b.width(), 2, padding=padding, dilation_rate=2), x)


def transpose(b, x):
    strides = b.pick([1, 2]) if max(x.shape[1:3]) <= MAX_SIZE // 2 else 1
    padding = b.pick(["same", "valid"]) if max(x.shape[1:3]) < MAX_SIZE else "same"
    layer = L.Conv2DTranspose(
        b.width(), b.pick([1, 2]), strides, padding, use_bias=b.chance(), activation=b.activation()
    )
    return b.make(layer, x)


def separate(b, x):
    layer = L.SeparableConv2D(
        b.width(), b.pick([1, 3]), padding="same", depth_multiplier=b.pick([1, 2]), use_bias=b.chance(),
        activation=b.activation(),
    )  # fmt: skip
    return b.make(layer, x)


def depthwise(b, x):
    kernel_size = b.kernel_size(x, (1, 3))
    padding = b.padding(x, kernel_size)
    multiplier = b.pick([1, 2]) if x.shape[-1] <= 4 else 1
    layer = L.DepthwiseConv2D(kernel_size, padding=padding, depth_multiplier=multiplier, use_bias=b.chance())
    return b.through(layer, x)


def pool(b, x):
    layer = b.pick([L.MaxPooling2D, L.AveragePooling2D])
    return b.through(layer(2, strides=b.pick([1, 2]), padding="same"), x)


def spread(b, x):
    """Pad, crop or enlarge."""
    kinds = [L.UpSampling2D(2, interpolation=b.pick(["nearest", "bilinear"]))] if x.shape[1] <= MAX_SIZE // 2 else []
    if min(x.shape[1:3]) > 2:
        kinds += [L.Cropping2D(((1, 0), (0, 1)))]
    if b.may_pad(x) and max(x.shape[1:3]) < MAX_SIZE:
        kinds += [L.ZeroPadding2D(((1, 0), (0, 1)))]
    return b.through(b.pick(kinds), x) if kinds else pool(b, x)


def shuffle(b, x):
    """Change the order of the channels, as ShuffleNet does; in layers or operations."""
    height, width, channels = x.shape[1:]
    groups = b.pick([g for g in range(1, channels + 1) if channels % g == 0])
    split, back = (height, width, groups, channels // groups), (height, width, channels)
    if b.chance():
        y = L.Reshape(back)(L.Permute((1, 2, 4, 3))(L.Reshape(split)(x)))
    else:
        y = ops.reshape(ops.transpose(ops.reshape(x, (-1, *split)), (0, 1, 2, 4, 3)), (-1, *back))
    return b.note(y, x)


def turn(b, x):
    """Move the channels to the front and back again, with something in between."""
    y = L.Permute((3, 1, 2))(x) if b.chance() else ops.transpose(x, (0, 3, 1, 2))
    y = L.ReLU()(y) if b.chance() else ops.flip(y, 2)
    return b.note(L.Permute((2, 3, 1))(y) if b.chance() else ops.moveaxis(y, 1, -1), x)


def join_rows(b, x):
    """Join two maps, one below the other."""
    if 2 * x.shape[1] > MAX_SIZE:
        return pool(b, x)
    other = b.partner(x)
    return b.note(ops.concatenate([x, other], 1) if b.chance() else L.Concatenate(1)([x, other]), x, other)


def excite(b, x):
    """Scale every channel by what the whole map says: squeeze and excite."""
    channels, keep = x.shape[-1], b.chance()
    y = b.pick([L.GlobalAveragePooling2D, L.GlobalMaxPooling2D])(keepdims=keep)(x)
    y = y if keep else L.Reshape((1, 1, channels))(y)
    if b.chance():
        y = L.Dense(channels, "sigmoid")(L.Dense(b.width(), "relu")(y))
    else:
        y = L.Conv2D(channels, 1, activation="sigmoid")(L.Conv2D(b.width(), 1, activation=b.activation())(y))
    return b.note(L.Multiply()([x, y]) if b.chance() else x * y, x)


def attend_places(b, x):
    """Scale every position by one number."""
    gate = L.Conv2D(1, 1, activation="sigmoid")(x)
    return b.note(L.Multiply()([x, gate]) if b.chance() else gate * x, x)


def over_rows(b, x):
    """Treat the rows as time."""
    inner = b.pick(
        [L.Dense(b.width()), L.Conv1D(b.width(), 1, activation=b.activation()), L.BatchNormalization(), L.ReLU()]
    )
    if isinstance(inner, (L.BatchNormalization, L.ReLU)):
        return b.through(L.TimeDistributed(inner), x)
    wakes = inner.activation.__name__ in WAKING
    return b.note(L.TimeDistributed(inner)(x), wakes=wakes)


def to_sequence(b, x):
    positions = math.prod(x.shape[1:3])
    if b.chance():
        return b.note(L.Reshape((positions, x.shape[-1]))(x), x)
    return b.note(ops.reshape(x, (-1, positions, x.shape[-1])), x)


def to_vector(b, x):
    if b.chance(3):
        return b.through(L.Flatten(), x)
    if b.chance(3):
        return b.note(b.pick([ops.mean, ops.max, ops.sum])(x, axis=(1, 2)), x)
    return b.through(b.pick([L.GlobalAveragePooling2D, L.GlobalMaxPooling2D])(), x)


STEPS = [
    *[convolve] * 5,
    *(dilate, transpose, separate, depthwise, depthwise, pool, spread, shuffle, turn, join_rows, excite, excite),
    *(attend_places, over_rows, to_sequence, to_vector),
]
