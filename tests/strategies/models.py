"""Whole models, and models inside models."""

import keras
from helpers_graph import randomize
from hypothesis import strategies as st

from strategies import anywhere, extremes, maps, sequences
from strategies.builder import WAKING, Builder, L

STEPS = {3: maps.STEPS, 2: sequences.STEPS, 1: sequences.VECTOR_STEPS}


class Block(L.Layer):
    """Layers and operations in a `call` of their own."""

    def __init__(self, width, activation, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(width, activation)
        self.norm = L.BatchNormalization()
        self.second = L.Dense(width)

    def call(self, x, training=None):
        y = self.norm(self.first(x), training=training)
        return keras.ops.relu(y) + self.second(y)


class Whole(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self, graph, **kwargs):
        super().__init__(**kwargs)
        self.graph = graph

    def call(self, x):
        return self.graph(x)


def nest(b, x):
    """Call a model inside the model; sometimes one that was called before."""
    awake = id(x) in b.awake
    fitting = [model for model, key in b.shared if key == ("model", x.shape, awake)]
    if fitting and b.chance():
        model, flags = b.pick(fitting)
    elif b.chance(3):
        model, flags = Block(b.width(), b.activation()), [False]
    elif b.chance(3):
        layers = [L.Dense(b.width(), use_bias=b.chance()), L.BatchNormalization(center=b.chance()), L.ReLU()]
        model, flags = keras.Sequential([keras.Input(x.shape[1:]), *layers[: b.draw(st.integers(1, 3))]]), [False]
    else:
        inner = Builder(b.draw, [keras.Input(x.shape[1:])], [awake], b.depth + 1, b.pad_constants, b.extreme)
        grow(inner, b.draw(st.integers(1, 3)))
        flags = [id(tensor) in inner.awake for tensor in inner.unread]
        outputs = inner.unread if len(inner.unread) > 1 else inner.unread[0]
        model = keras.Model(inner.inputs, outputs)
    b.shared.append(((model, flags), ("model", x.shape, awake)))
    return [b.note(y, wakes=flag) for y, flag in zip(keras.tree.flatten(model(x)), flags, strict=True)]


def grow(b, steps):
    """Add layers that read tensors made earlier."""
    for _ in range(steps):
        x = b.source(b.pick(sorted({len(tensor.shape) - 1 for tensor in b.tensors})))
        own = [*STEPS[len(x.shape) - 1], *anywhere.STEPS, *(extremes.STEPS if b.extreme else [])]
        step = nest if b.depth < 2 and b.chance(10) else b.pick(own)
        b.add(step(b, x))
    b.unread = [tensor for tensor in b.unread if not any(tensor is each for each in b.inputs)] or [
        b.make(L.Dense(b.width()), b.inputs[0])
    ]


def read_constants(b):
    """Begin with a convolution whose masked channels are constants, and one that reads them."""
    b.tensors.append(b.note(L.Conv2D(4, 1, activation=b.pick(WAKING))(b.read(b.inputs[0])), wakes=True))
    b.add(L.Conv2D(4, 3, padding=b.pick(["same", "valid"]))(b.tensors[-1]))


def finish(b):
    """Read every tensor that nothing reads yet, in one output or several."""
    ends, outputs = [], []
    for x in b.unread:
        if b.chance(8):
            outputs.append(x)
            continue
        while len(x.shape) > 2:
            x = b.through(L.Flatten(), x) if len(x.shape) > 4 else STEPS_TO_VECTOR[len(x.shape) - 1](b, x)
        ends.append(x)
    if ends:
        joined = L.Concatenate()(ends) if len(ends) > 1 else ends[0]
        outputs.append(L.Dense(3, use_bias=b.chance(4))(joined))
    return outputs if len(outputs) > 1 else outputs[0]


STEPS_TO_VECTOR = {3: maps.to_vector, 2: sequences.to_vector}


def draw_model(draw, max_steps=7, pad_constants=False, extreme=False):
    """Draw a model from the layers that tfprune knows, with random weights.

    Masked and shrunken models are equal, unless `pad_constants` lets zero-padded layers read constants. An `extreme`
    model also has what int8 finds hard, and outputs with names.

    A function of `data.draw` and not a strategy: Keras uses `random`, which Hypothesis forbids inside strategies.
    """
    keras.utils.clear_session(free_memory=False)
    shapes = [(6, 6, draw(st.integers(1, 3)))]
    if draw(st.integers(0, 3)) == 0:
        shapes.append(draw(st.sampled_from([(6, 6, 2), (5, 3), (4,)])))
    b = Builder(draw, [keras.Input(shape) for shape in shapes], pad_constants=pad_constants, extreme=extreme)
    if pad_constants:
        read_constants(b)
    grow(b, draw(st.integers(3, max_steps)))
    outputs = extremes.named(b, finish(b)) if extreme else finish(b)
    model = keras.Model(b.inputs if len(b.inputs) > 1 else b.inputs[0], outputs)
    if len(b.inputs) == 1 and b.chance(10):
        model = Whole(model)
        model.build((None, *shapes[0]))
    randomize(model, draw(st.integers(0, 2**16)))
    return model
