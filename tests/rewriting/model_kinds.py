"""One small model of every kind, compiled, with inputs for it."""

import keras
import numpy as np
from keras import layers as L  # noqa: N812
from keras import ops


@keras.saving.register_keras_serializable("tests")
class OwnStep(keras.Model):
    """A functional model that trains in a way of its own."""

    def train_step(self, data):
        return {**super().train_step(data), "mine": ops.convert_to_tensor(1.0)}


@keras.saving.register_keras_serializable("tests")
class Block(L.Layer):
    """A layer made of layers."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.wide, self.norm = L.Dense(width, "relu", name="wide"), L.BatchNormalization(name="norm")
        self.narrow = L.Dense(6, name="narrow")

    def build(self, shape):
        self.wide.build(shape)
        self.norm.build((*shape[:-1], self.width))
        self.narrow.build((*shape[:-1], self.width))

    def call(self, x, training=None):
        return ops.relu(self.narrow(self.norm(self.wide(x), training=training))) + x

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class OwnCall(keras.Model):
    """A subclassed model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.end = L.Dense(6, name="hidden"), L.Dense(2, name="end")
        self.block = Block(5, name="block")

    def call(self, x, training=None):
        return self.end(ops.tanh(self.block(self.hidden(x), training=training)) * 2.0)


def sequential():
    steps = [L.Dense(6, "relu", name="hidden"), L.BatchNormalization(), L.Dense(2, name="end")]
    return keras.Sequential([keras.Input((4,), name="image"), *steps], name="chain")


def functional(kind=keras.Model):
    inputs = keras.Input((4,), name="image")
    x = L.Dense(6, "relu", name="hidden")(inputs)
    return kind(inputs, L.Dense(2, name="end")(L.Add()([L.Dense(6, name="branch")(x), x])), name="graph")


def nested():
    x = keras.Input((6,), name="features")
    deep = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, "tanh", name="deepest"), L.Dense(6, name="out")], name="deep"
    )
    middle = keras.Model(x, deep(L.Dense(6, name="hidden")(x)), name="middle")
    inputs = keras.Input((4,), name="image")
    return keras.Model(inputs, L.Dense(2, name="end")(middle(L.Dense(6, name="hidden")(inputs))), name="outer")


def shared():
    inputs = [keras.Input((4,), name="left"), keras.Input((4,), name="right")]
    hidden, norm = L.Dense(6, "relu", name="hidden"), L.BatchNormalization(name="norm")
    end = L.Dense(2, name="end")
    return keras.Model(inputs, end(L.Concatenate()([norm(hidden(each)) for each in inputs])), name="twins")


def blocks():
    inputs = keras.Input((4,), name="image")
    block = Block(5, name="block")
    x = block(block(L.Dense(6, name="hidden")(inputs)))
    return keras.Model(inputs, L.Dense(2, name="end")(x), name="blocks")


def dicts():
    inputs = {name: keras.Input((4,), name=name) for name in ("b", "a")}
    x = L.Dense(6, "relu", name="hidden")(L.Add()([inputs["a"], inputs["b"]]))
    return keras.Model(inputs, {"two": L.Dense(2, name="two")(x), "one": L.Dense(1, name="one")(x)}, name="named")


def several():
    inputs = keras.Input((4,), name="image")
    x = L.Dense(6, "relu", name="hidden")(inputs)
    ends = [L.Dense(size, name=name)(x) for size, name in ((2, "first"), (1, "second"), (3, "third"))]
    return keras.Model([inputs], [ends[0], tuple(ends[1:])], name="several")


def with_lambda():
    inputs = keras.Input((4,), name="image")
    x = L.Lambda(lambda x: x * 2.0, output_shape=(4,), name="twice")(inputs)
    return keras.Model(inputs, L.Dense(2, name="end")(L.Dense(6, "relu", name="hidden")(x)), name="lambda")


def operations():
    inputs = keras.Input((4, 3), name="image")
    x = ops.mean(ops.relu(L.Dense(6, name="hidden")(inputs)) * 2.0, axis=1)
    return keras.Model(inputs, L.Dense(2, name="end")(ops.reshape(x, (-1, 6))[:, 1:]), name="operations")


def subclassed():
    model = OwnCall(name="own")
    model(np.zeros((1, 4), "float32"))
    return model


KINDS = {
    "Sequential": sequential,
    "functional": functional,
    "functional subclass": lambda: functional(OwnStep),
    "nested twice": nested,
    "shared layers": shared,
    "layers of layers": blocks,
    "dicts": dicts,
    "several outputs": several,
    "Lambda": with_lambda,
    "keras.ops": operations,
    "subclassed": subclassed,
}


def made(name):
    """A model of this kind, with random weights and statistics, compiled."""
    keras.utils.set_random_seed(0)
    model, rng = KINDS[name](), np.random.default_rng(0)
    for variable in model.variables:
        if "seed" not in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) * rng.choice([-0.5, 1.0], variable.shape[-1:]))
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            layer.moving_variance.assign(ops.abs(layer.moving_variance))
    model.compile(keras.optimizers.Adam(0.125, weight_decay=0.01), "mse", run_eagerly=True)
    return model


def data(name):
    """What a model of this kind takes, and what it is to return."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 4)).astype("float32"), np.zeros((8, 2), "float32")
    if name == "dicts":
        return {"a": x, "b": x[::-1].copy()}, {"one": y[:, :1], "two": y}
    if name == "several outputs":
        return [x], [y, (y[:, :1], np.zeros((8, 3), "float32"))]
    if name == "shared layers":
        return [x, x[::-1].copy()], y
    return (rng.normal(size=(8, 4, 3)).astype("float32") if name == "keras.ops" else x), y
