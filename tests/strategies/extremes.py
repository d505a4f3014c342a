"""Steps that int8 finds hard: numbers that are zero, huge or tiny, fixed ranges, layers that do nothing."""

from keras import ops

from strategies.builder import L


def kill(b, x):
    """All numbers are zero for every input."""
    return b.note(L.ReLU()(L.Rescaling(0.01, -30.0)(x)), x, wakes=True)


def flatten_out(b, x):
    """Nearly constant."""
    return b.note(L.Rescaling(1e-4, b.pick([0.0, 1.0]))(x), x, wakes=True)


def enlarge(b, x):
    """A channel, or all of them, are far larger than the others."""
    channels = x.shape[-1]
    if channels > 1 and b.chance():
        return b.note(L.Rescaling([300.0] + [1.0] * (channels - 1))(x), x)
    return b.note(L.Rescaling(300.0)(x), x)


def bound(b, x):
    """A range that the format fixes, alone, sliced, or beside others."""
    y = L.Activation(b.pick(["sigmoid", "softmax" if x.shape[-1] > 1 else "sigmoid", "tanh"]))(x)
    kind = b.pick(["alone", "joined", "sliced", "gate"])
    if kind == "sliced":
        y = y[:, : max(1, x.shape[1] // 2)] if len(x.shape) > 2 else y[..., : max(1, x.shape[-1] // 2)]
    elif kind == "joined" and x.shape[-1] <= 4:
        y = L.Concatenate()([y, x] if b.chance() else [x, y])
    elif kind == "gate":
        y = L.Multiply()([y, x])
    return b.note(y, x, wakes=True)


def island(b, x):
    """Layers without an integer form between those that have one."""
    y = L.Activation(b.pick(["softplus", "elu", "selu", "softsign", "mish"]))(x)
    if b.chance():
        y = L.Concatenate()([y, x]) if x.shape[-1] <= 4 else L.Add()([y, x])
    return b.note(y, x, wakes=True)


def augment(b, x):
    """Layers that do nothing at inference, alone and for each step of time."""
    kinds = [L.GaussianNoise(0.1), L.Dropout(0.3), L.GaussianDropout(0.2), L.ActivityRegularization(1e-4)]
    if len(x.shape) == 4:
        kinds += [L.RandomFlip(), L.RandomTranslation(0.2, 0.2), L.RandomContrast(0.2), L.SpatialDropout2D(0.2)]
    layer = b.pick(kinds)
    if len(x.shape) == 2:
        return b.note(layer(x), x)
    if len(x.shape) == 4 and b.chance(3):
        frames = L.Reshape((1, *x.shape[1:]))(x)
        return b.note(L.Reshape(tuple(x.shape[1:]))(L.TimeDistributed(layer)(frames)), x)
    inside = len(x.shape) == 3 and b.chance()
    return b.note(L.TimeDistributed(layer)(x) if inside else layer(x), x)


def single(b, x):
    """Convolutions of one channel."""
    if len(x.shape) == 4:
        y = L.Conv2D(1, 1, activation=b.activation())(x)
        y = b.pick([L.Conv2DTranspose(1, 2, padding="same"), L.DepthwiseConv2D(1), L.Conv2D(2, 1)])(y)
        return b.note(L.ReLU()(y) if b.chance() else y)
    if len(x.shape) == 3:
        y = L.Conv1D(1, 1)(x)
        y = b.pick([L.Conv1DTranspose(1, 2, padding="same"), L.SeparableConv1D(1, 1), L.DepthwiseConv1D(1)])(y)
        return b.note(L.ReLU()(y) if b.chance() else y)
    return b.note(L.Dense(1, activation=b.activation())(x))


def reorder(b, x):
    """Numbers that only move, more than once."""
    if len(x.shape) == 2:
        return b.note(L.Reshape((1, x.shape[-1]))(x)[:, 0], x)
    positions = range(1, len(x.shape) - 1)
    swapped = L.Permute((*reversed(positions), len(x.shape) - 1))(x)
    return b.note(ops.concatenate([swapped, swapped], b.pick([1, 1, len(x.shape) - 1])) if b.chance(4) else swapped, x)


STEPS = [kill, flatten_out, enlarge, bound, bound, island, augment, single, reorder]


def named(b, outputs):
    """The outputs of a model in one of the structures that Keras takes."""
    if b.chance():
        return outputs
    listed = outputs if isinstance(outputs, list) else [outputs]
    return (
        dict(zip(["scores", "z", "boxes", "a b"][: len(listed)], listed, strict=True)) if len(listed) < 5 else outputs
    )
