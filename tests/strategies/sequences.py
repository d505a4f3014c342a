"""Steps on sequences of vectors, and on vectors."""

from keras import ops

from strategies.builder import L


def convolve(b, x):
    kernel_size = b.kernel_size(x)
    padding = b.padding(x, kernel_size)
    padding = "causal" if padding == "same" and b.chance(3) else padding
    layer = L.Conv1D(b.width(), kernel_size, padding=padding, use_bias=b.chance(), activation=b.activation())
    return b.make(layer, x)


def convolve_in_parts(b, x):
    kind = b.pick(["transposed", "separable", "depthwise"])
    if kind == "transposed":
        return b.make(L.Conv1DTranspose(b.width(), 2, padding="same"), x)
    if kind == "separable":
        return b.make(L.SeparableConv1D(b.width(), 3, padding="same"), x)
    return b.through(L.DepthwiseConv1D(b.kernel_size(x, (1, 3)), padding="same" if b.may_pad(x) else "valid"), x)


def recur(b, x):
    sequences, width = b.chance(), b.width()
    options = {"return_sequences": sequences, "use_bias": b.chance()}
    kind = b.pick([L.LSTM, L.GRU, L.SimpleRNN])
    layer = kind(width, **options)
    if b.chance(3):
        layer = L.Bidirectional(layer, merge_mode=b.pick(["concat", "sum", "mul", "ave"]))
    return b.make(layer, x)


def attend(b, x):
    """Self-attention, mostly with a residual connection."""
    options = {"value_dim": b.pick([None, 3]), "use_bias": b.chance()}
    y = L.MultiHeadAttention(b.pick([1, 2]), b.pick([2, 3]), **options)(x, x)
    return b.note(L.Add()([x, y]), x) if not b.chance(4) else b.note(y)


def each_step(b, x):
    inner = b.pick([L.Dense(b.width(), "relu"), L.ReLU()])
    layer = L.TimeDistributed(inner)
    return b.through(layer, x) if isinstance(inner, L.ReLU) else b.note(layer(x))


def pool(b, x):
    return b.through(b.pick([L.MaxPooling1D, L.AveragePooling1D])(2, strides=1, padding="same"), x)


def to_vector(b, x):
    kind = b.pick(["flatten", "mean", "max", "last"])
    if kind == "last":
        return b.note(x[:, -1], x)
    layer = {"flatten": L.Flatten, "mean": L.GlobalAveragePooling1D, "max": L.GlobalMaxPooling1D}[kind]
    return b.through(layer(), x)


def repeat(b, x):
    """From a vector to a sequence."""
    if x.shape[-1] > 8:
        return b.make(L.Dense(b.width()), x)
    return b.note(L.RepeatVector(3)(x) if b.chance() else ops.repeat(ops.expand_dims(x, 1), 3, axis=1), x)


STEPS = [convolve, convolve, convolve_in_parts, recur, recur, attend, attend, each_step, pool, to_vector]
VECTOR_STEPS = [repeat]
