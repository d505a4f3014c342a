"""Networks that nobody drew by hand."""

import keras
import numpy as np
import pytest
from files import aware_file, distance, float_operators, output_scales, run
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import outputs

import tfprune

L = keras.layers
CHANNELS = 4
STEPS = (
    "conv",
    "conv_bn",
    "conv_relu",
    "depthwise",
    "bn",
    "relu",
    "sigmoid",
    "add",
    "concat",
    "max",
    "average",
    "drop",
)


def step(kind, x, other):
    if kind.startswith("conv"):
        x = L.Conv2D(CHANNELS, 3, padding="same", bias_initializer="normal")(x)
        x = L.BatchNormalization(momentum=0.5)(x) if kind == "conv_bn" else x
        return L.ReLU()(x) if kind == "conv_relu" else x
    if kind == "concat":
        return L.Concatenate()([x, other])
    if kind == "add":
        return L.Add()([x, other]) if x is not other and x.shape == other.shape else x
    layers = {
        "depthwise": lambda: L.DepthwiseConv2D(3, padding="same", bias_initializer="normal"),
        "bn": lambda: L.BatchNormalization(momentum=0.5),
        "relu": L.ReLU,
        "sigmoid": lambda: L.Activation("sigmoid"),
        "max": lambda: L.MaxPooling2D(3, 1, padding="same"),
        "average": lambda: L.AveragePooling2D(3, 1, padding="same"),
        "drop": lambda: L.Dropout(0.2),
    }
    return layers[kind]()(x)


def build(choices):
    """Each step reads the tensors made so far, counted from the last one."""
    made = [keras.Input((6, 6, CHANNELS))]
    for kind, first, second in choices:
        made.append(step(kind, made[-1 - first % len(made)], made[-1 - second % len(made)]))
    return keras.Model(made[0], L.Conv2D(3, 1)(made[-1]))


graphs = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 5)), min_size=2, max_size=7)


def check(choices):
    keras.utils.set_random_seed(0)
    aware = tfprune.quantize_aware(build(choices))
    random = np.random.default_rng(0)
    for _ in range(2):
        aware(random.normal(size=(8, 6, 6, CHANNELS)).astype("float32"), training=True)
    x = random.normal(size=(6, 6, 6, CHANNELS)).astype("float32")
    content, expected = aware_file(aware), outputs(aware, x)
    scales = output_scales(content)
    assert float_operators(content) == set()
    for reference in (True, False):
        found = run(content, [x], reference)
        # One step in the middle of a network becomes several where sums and steep functions follow.
        assert distance(expected, found, scales) <= 6.1
        assert np.abs(expected[0] - found[0]).mean() < scales[0]


@settings(max_examples=3)
@given(graphs)
def test_random_graphs(choices):
    check(choices)


@pytest.mark.slow
@settings(max_examples=60)
@given(graphs)
def test_more_random_graphs(choices):
    check(choices)
