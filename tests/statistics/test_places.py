"""Where channels are seen: a gate there has the gradient that the weights which read it tell, by Euler's rule.

What reads a channel x is linear in its weights w, so that x dL/dx, summed over positions, is w dL/dw, summed over w.
"""

import keras
import numpy as np
import pytest
from networks import densely_connected, preactivation, randomize, residual

from tfprune.graph.groups import named
from tfprune.parts.channels import view_of
from tfprune.statistics import gather
from tfprune.statistics.collectors import Subject

L = keras.layers


def mobile():
    """An inverted bottleneck with two normalizations after each other, and a factor for each channel."""
    inputs = keras.Input((8, 8, 2))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 1, name="expand")(inputs)))
    x = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3)(x)))
    factor = L.Conv2D(3, 1, activation="relu", name="squeeze")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid", name="excite")(factor)])
    x = L.Flatten()(L.Conv2D(3, 1, activation="gelu", name="project")(x))
    return keras.Model(inputs, L.Dense(3)(x))


def shared():
    """A model that is called at each step and once more, and a sum of what several layers read."""
    inner = keras.Sequential(
        [keras.Input((4,)), L.Dense(5, activation="tanh", name="first"), L.Dense(4, name="second")]
    )
    inputs = keras.Input((3, 4))
    x = L.TimeDistributed(inner)(inputs)
    x = L.TimeDistributed(L.Dense(3, name="step"))(x)
    x = inner(L.Dense(4, name="joint")(L.Flatten()(x)))
    return keras.Model(inputs, L.Dense(2, activation="softmax")(x))


def recurrent():
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(10, 4, mask_zero=True, name="words")(inputs)
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    return keras.Model(inputs, L.Dense(2, activation="softmax")(L.LSTM(3)(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = L.Dense(4), L.Dense(4), L.Dense(3)

    def call(self, x):
        hidden = keras.ops.gelu(self.a(x))
        return keras.ops.softmax(self.c(hidden + keras.ops.relu(self.b(hidden))))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 5)))
    return model


def samples(model, count=6):
    random = np.random.default_rng(0)
    (given,) = getattr(model, "inputs", [keras.Input((5,))])
    if given.dtype == "int32":
        return random.integers(0, 10, (count, *given.shape[1:]))
    return random.normal(size=(count, *given.shape[1:])).astype("float32")


@pytest.mark.parametrize(
    "build",
    [residual, mobile, shared, recurrent, subclassed, densely_connected, preactivation],
    ids=lambda f: f.__name__,
)
@pytest.mark.sampled(3)
def test_gates_are_what_the_weights_that_read_them_say(build):
    model = randomize(build())
    found = gather(model, samples(model), ["gradient", "gate_gradient"], loss=lambda y, a: keras.ops.sum(a**2))
    groups = {name: group for name, group in named(Subject(model).analysis.groups).items() if not group.frozen}
    assert groups
    for name, group in groups.items():
        view = view_of(group, of_variable=found.of_variable)
        readers = [each for each in view.with_role("consumer") if each.name != "recurrent_kernel"]
        expected = view.total((each, (each.rows * each.rows_of("gradient")).sum(1)) for each in readers)
        np.testing.assert_allclose(
            found.channels["gate_gradient"][name], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max(), err_msg=name
        )
        assert np.abs(expected).max() > 0


def test_gates_inside_attention_are_what_makes_them_says():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 6))
    x = L.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(2)(L.GroupQueryAttention(2, 4, 2, name="grouped")(x, x)))
    found = gather(model, samples(model), ["gradient", "gate_gradient"], loss=lambda y, a: keras.ops.sum(a**2))
    groups = named(Subject(model).analysis.groups)
    for name in ("attention/heads", "attention/value_dim", "attention/key_dim", "grouped/heads"):
        view = view_of(groups[name], of_variable=found.of_variable)
        makers = view.with_role("producer", "affine")
        expected = view.total((each, (each.rows * each.rows_of("gradient")).sum(1)) for each in makers)
        np.testing.assert_allclose(found.channels["gate_gradient"][name], expected, rtol=1e-3, atol=1e-5, err_msg=name)
    assert found.channels["gate_gradient"]["grouped/head_dim"].all()  # of queries and values together


def test_a_loss_that_changes_when_a_channel_goes():
    """The slope along a gate, by finite differences: the kernel that reads the channel, a little larger."""
    model = randomize(mobile())
    x = samples(model)
    loss = lambda: float(keras.ops.sum(model(x) ** 2))  # noqa: E731
    found = gather(model, x, ["gate_gradient"], loss=lambda y, a: keras.ops.sum(a**2)).channels["gate_gradient"]
    kernel = model.get_layer("project").kernel
    before, slopes = kernel.numpy(), []
    factor = model.get_layer("squeeze").kernel
    factor_before = factor.numpy()
    for channel in range(4):
        ends = []
        for step in (0.01, -0.01):
            for variable, value in ((kernel, before), (factor, factor_before)):
                changed = value.copy()
                changed[:, :, channel] *= 1 + step
                variable.assign(changed)
            ends.append(loss())
        kernel.assign(before)
        factor.assign(factor_before)
        slopes.append((ends[0] - ends[1]) / 0.02 / len(x))
    np.testing.assert_allclose(found["expand"], slopes, rtol=2e-2, atol=1e-3 * np.abs(slopes).max())
