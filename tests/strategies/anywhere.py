"""Steps on tensors of any rank whose last axis holds the channels."""

from keras import ops

from strategies.builder import L

MAX_WIDTH = 8


def dense(b, x):
    return b.make(L.Dense(b.width(), use_bias=b.chance(), activation=b.activation()), x)


def einsum(b, x):
    letters = "abcd"[: len(x.shape) - 1]
    width = b.width()
    # Not the positions next to the channels: where one channel stays, Keras 3.15 adds such a bias along another axis.
    bias_axes = b.pick([None, "z", *(["bz"] if len(x.shape) > 2 else [])])
    equation = f"{letters}y,yz->{letters}z"
    return b.make(L.EinsumDense(equation, (*x.shape[1:-1], width), bias_axes=bias_axes), x)


def normalize(b, x):
    kind = b.pick(["batch", "batch", "batch", "group", "mean square", "unit", "layer"])
    scale, center = b.chance(), b.chance()
    if kind == "batch":
        return b.through(L.BatchNormalization(scale=scale, center=center), x)
    if kind == "group" and len(x.shape) > 2:
        groups = b.pick([g for g in range(1, x.shape[-1] + 1) if x.shape[-1] % g == 0])
        return b.through(L.GroupNormalization(groups, scale=scale, center=center), x)
    if kind == "layer" and b.chance(3):
        return b.through(L.LayerNormalization(scale=scale, center=center), x)
    return b.through(L.RMSNormalization() if kind == "mean square" else L.UnitNormalization(), x)


def activate(b, x):
    positions = list(range(1, len(x.shape) - 1)) or None
    layers = [
        *(L.ReLU(), L.ReLU(max_value=6.0), L.ReLU(negative_slope=0.1, threshold=0.2), L.LeakyReLU(), L.ELU()),
        *(L.Dropout(0.5), L.GaussianNoise(0.1), L.Identity(), L.Activation("silu"), L.Activation("tanh")),
        *(L.PReLU(shared_axes=positions), L.PReLU(), L.Rescaling(0.5)),
    ]
    return b.through(layers[b.pick(range(len(layers)))], x)


def wake(b, x):
    """Make constants of zeros."""
    functions = [
        *(L.Activation("sigmoid"), L.Activation("softplus"), L.Rescaling(2.0, 0.3), L.Activation("hard_sigmoid")),
        *(lambda t: t + 0.5, lambda t: 1.0 - t, ops.sigmoid, ops.cos),
        *(lambda t: ops.maximum(t, 0.25), lambda t: ops.exp(-abs(t))),
    ]  # fmt: skip
    return b.through(functions[b.pick(range(len(functions)))], x, wakes=True)


def calculate(b, x):
    """Arithmetic that leaves zeros alone."""
    functions = [
        *(lambda t: 2.0 * t, lambda t: t / 3.0, lambda t: -t, ops.abs, ops.tanh, ops.relu, ops.nn.silu),
        *(lambda t: ops.clip(t, -1, 1), lambda t: ops.where(t > 0.0, t, 0.5 * t)),
        lambda t: ops.sqrt(ops.abs(t) + 1.0) - 1.0,
    ]  # fmt: skip
    at = b.pick(range(len(functions)))
    return b.through(functions[at], x, wakes=at == len(functions) - 1)


def merge(b, x):
    """Combine two tensors element by element."""
    other = b.partner(x, same_width=b.chance())
    if other.shape[-1] != x.shape[-1]:
        other = b.note(L.Dense(x.shape[-1], use_bias=b.chance())(other))
    layers = [L.Add(), L.Add(), L.Multiply(), L.Average(), L.Maximum(), L.Minimum(), L.Subtract()]
    operations = [ops.add, ops.subtract, ops.multiply, ops.maximum, ops.minimum]
    if b.chance():
        return b.note(layers[b.pick(range(len(layers)))]([x, other]), x, other)
    return b.note(operations[b.pick(range(len(operations)))](x, other), x, other)


def concatenate(b, x):
    other = b.partner(x, same_width=False)
    joined = L.Concatenate()([x, other]) if b.chance() else ops.concatenate([x, other], -1)
    return b.note(joined, x, other) if joined.shape[-1] <= MAX_WIDTH else b.make(L.Dense(b.width()), joined)


def split(b, x):
    """Take the channels apart, by an operation or by slices."""
    channels = x.shape[-1]
    if channels < 2:
        return dense(b, x)
    at = b.pick(range(1, channels))
    if b.chance():
        parts = [x[..., :at], x[..., at:]]
    elif b.chance() and channels % 2 == 0:
        parts = list(ops.split(x, 2, axis=-1))
    else:
        parts = list(ops.split(x, [at], axis=-1))
    parts = [b.note(part, x) for part in parts]
    if b.chance():
        return parts
    order = b.pick([(0, 1), (1, 0)])
    parts = [b.note(L.ReLU()(parts[0]), x), parts[1]] if b.chance() else parts
    return b.note(L.Concatenate()([parts[order[0]], parts[order[1]]]), x)


STEPS = [
    dense,
    einsum,
    *[normalize] * 3,
    activate,
    activate,
    wake,
    calculate,
    *[merge] * 4,
    concatenate,
    concatenate,
    split,
]
