"""Layers and models that ask for sizes that are open, such as that of the batch."""

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812
from keras import ops

import tfprune
from tfprune.graph import nested, walk


class Asks(L.Layer):
    """Three projections, what a subclass makes of them, and one more."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.three, self.end = L.Dense(24, name="three"), L.Dense(8, name="end")
        self.twice = L.Lambda(lambda x: x * 2.0)

    def build(self, shape):
        self.three.build(shape)
        self.end.build((*shape[:-1], 8))

    def call(self, x):
        return self.end(self.between(self.three(x), *ops.shape(x)[:2]))


def register(kind):
    return keras.saving.register_keras_serializable("tests.open_sizes")(kind)


@register
class Attention(Asks):
    def between(self, x, batch, length):
        x = ops.transpose(ops.reshape(x, (batch, length, 3, 2, 4)), (2, 0, 3, 1, 4))
        scores = ops.softmax(ops.matmul(x[0], ops.swapaxes(x[1], -1, -2)) * 0.5)
        return ops.reshape(ops.swapaxes(ops.matmul(scores, x[2]), 1, 2), (batch, length, 8))


@register
class BatchAndRest(Asks):
    def between(self, x, batch, length):
        return ops.sum(ops.reshape(x, (batch, -1, 3, 8)), axis=2)


@register
class Rest(Asks):
    def between(self, x, batch, length):
        return ops.reshape(x, (-1, ops.shape(x)[1], 3, 8))[:, :, 0]


@register
class NoSize(Asks):
    def between(self, x, batch, length):
        return ops.relu(x[..., :8])[:, ::1]


@register
class Arithmetic(Asks):
    def between(self, x, batch, length):
        return ops.reshape(x[..., :8], (batch * 1, length or -1, 8))


@register
class Cuts(Asks):
    def between(self, x, batch, length):
        return x[:, :length, :8]


@register
class StandIn(Asks):
    def between(self, x, batch, length):
        return ops.reshape(x[..., :8], (-1, x.shape[1] or 5, 8))


@register
class HoldsLambda(Asks):
    def between(self, x, batch, length):
        return self.twice(x[..., :8])


def doubled(x):
    return 2.0 * x


@register
class HoldsFunction(Asks):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.activation = L.Activation(doubled)

    def between(self, x, batch, length):
        return self.activation(x[..., :8])


@register
class Causal(Asks):
    """Makes a mask of the batch's size, and adds it to what depends on data."""

    def between(self, x, batch, length):
        steps = ops.arange(length)
        mask = ops.broadcast_to(ops.expand_dims(steps[:, None] >= steps, 0), (batch, length, length))
        seen = ops.broadcast_to(ops.max(x, axis=(0, 1), keepdims=True) > -1e9, (batch, 1, 24))
        scores = ops.matmul(x[..., :8], ops.swapaxes(x[..., 8:16], 1, 2))
        weights = ops.softmax(ops.where(ops.logical_and(mask, seen[..., :1]), scores, -1e9))
        return ops.matmul(weights, x[..., 16:])


@register
class Token(Asks):
    """What is made for a batch of one cannot be joined with the rest."""

    def between(self, x, batch, length):
        return ops.concatenate([ops.ones((batch, 1, 8)), x[..., :8]], axis=1)


@register
class Noise(Asks):
    def between(self, x, batch, length):
        return x[..., :8] + keras.random.normal((batch, length, 8), seed=1)


@register
class Counts(Asks):
    def between(self, x, batch, length):
        return x[..., :8] + ops.cast(ops.arange(batch)[:, None, None], "float32")


class Silent(L.Layer):
    """Returns `None` beside its output, so that Keras can make no node of its call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(8, "relu", name="silent")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x), None


class Cached(Silent):
    """Takes an argument that its `compute_output_spec` does not know."""

    def call(self, x, cache=None):
        return self.dense(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], 8))


@register
class Holds(Asks):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.silent, self.cached = Silent(name="silent"), Cached(name="cached")
        self.cached.dense.name = "cached_dense"

    def build(self, shape):
        super().build(shape)
        self.silent.build((*shape[:-1], 24))
        self.cached.build((*shape[:-1], 24))

    def between(self, x, batch, length):
        return self.silent(x)[0] + self.cached(x, cache=None)


def around(layer, length):
    inputs = keras.Input((length, 6))
    x = layer(L.Dense(6, name="before")(inputs))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(L.Dense(8, "relu", name="after")(x))))


def samples(batch, length=5):
    return np.random.default_rng(0).normal(size=(batch, length, 6)).astype("float32")


def read(kind, length):
    (node,) = (node for node in walk(around(kind(), length)) if isinstance(node.operation, kind))
    return nested(node)


READABLE = [(Attention, 5), (Attention, None), (BatchAndRest, 5), (BatchAndRest, None), (Rest, 5), (NoSize, None)]
READABLE += [(Arithmetic, 5), (Causal, 5), (Holds, 5)]
KEPT_WHOLE = [(Cuts, None), (StandIn, None), (HoldsLambda, 5)]
KEPT_WHOLE += [(HoldsFunction, 5), (Token, 5), (Noise, 5), (Counts, 5)]


@pytest.mark.parametrize(("kind", "length"), READABLE)
def test_the_view_computes_what_the_layer_does_for_every_batch(kind, length):
    layer = kind()
    model = around(layer, length)
    (node,) = (node for node in walk(model) if node.operation is layer)
    view = nested(node)
    for batch in (1, 3):
        x = samples(batch, length or 4 + batch)
        np.testing.assert_allclose(view(x), layer(x), rtol=1e-6)


@pytest.mark.parametrize(("kind", "length"), KEPT_WHOLE)
def test_what_is_not_a_reshape_is_not_read(kind, length):
    assert read(kind, length) is None


def test_sizes_that_are_known_are_no_open_ones():
    assert read(Cuts, 5) is not None
    assert read(StandIn, 5) is not None


CHANGES = {
    "prune_channels": lambda model: tfprune.prune_channels(model, 0.5),
    "quantize_aware": tfprune.quantize_aware,
    "strip": lambda model: tfprune.strip(tfprune.quantize_aware(model)),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "length"), [*READABLE, *KEPT_WHOLE])
def test_copies_can_be_called_and_loaded(kind, length, change, tmp_path):
    copy = CHANGES[change](around(kind(name="asks"), length))
    copy.save(tmp_path / "copy.keras")
    loaded = keras.models.load_model(tmp_path / "copy.keras")
    for batch in (1, 3):
        x = samples(batch, length or 4 + batch) if kind is not StandIn else samples(batch)
        np.testing.assert_array_equal(loaded(x), copy(x))
    if change == "prune_channels":
        assert copy.get_layer("after").units == 4
        assert isinstance(copy.get_layer("asks"), kind) == ((kind, length) in KEPT_WHOLE)


class Network(keras.Model):
    def __init__(self, between):
        super().__init__()
        self.hidden, self.end = L.Dense(8, "relu", name="hidden"), L.Dense(2, name="end")
        self.between = between

    def call(self, x):
        return self.end(self.between(self.hidden(x)))


def test_a_model_that_asks_for_the_batch():
    model = Network(lambda x: ops.reshape(x, (ops.shape(x)[0], -1, 4)))
    model(samples(2)[:, 0])
    small = tfprune.prune_channels(model, 0.5)
    assert small.get_layer("hidden").units < 8
    assert small(samples(3)[:, 0]).shape == (3, 2, 2)


def test_a_model_with_a_size_that_must_be_known_says_which():
    model = Network(lambda x: ops.broadcast_to(x, ops.shape(x)))
    model(samples(2)[:, 0])
    with pytest.raises(ValueError, match=r"gives 'broadcast_to.*' a size that is open"):
        tfprune.prune_channels(model, 0.5)


class Wrong(L.Layer):
    def call(self, x):
        return x if x.shape[0] == 2 else ops.matmul(x, ops.ones((3, 3)))

    def compute_output_spec(self, x):
        raise ValueError("only its own words count\nnot these")


class HoldsWrong(L.Layer):
    def __init__(self):
        super().__init__(name="outer")
        self.dense, self.wrong = L.Dense(4), Wrong()

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.wrong(self.dense(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], 4))


def test_the_reason_is_what_the_layer_inside_says_and_not_how_keras_wraps_it():
    model = keras.Sequential([keras.Input((6,)), L.Dense(6), HoldsWrong()])
    (reason,) = tfprune.channel_groups(model).unread.values()
    assert "encountered" not in reason
    assert "HoldsWrong 'outer'" in reason
    assert "incompatible" in reason or "shape" in reason


class Constant(L.Layer):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(4)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x), ops.ones((3, 4))

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, 4)), keras.KerasTensor((3, 4))


def test_a_layer_that_returns_a_constant_is_kept_with_this_reason():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, Constant()(L.Dense(6)(inputs))[0])
    (reason,) = tfprune.channel_groups(model).unread.values()
    assert reason.endswith("it returns something that does not depend on what goes in")
