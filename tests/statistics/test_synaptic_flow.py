"""The flow through a network made linear and positive, against matrix products and sums over paths."""

import keras
import numpy as np
import pytest
from networks import randomize, residual, same, weights_of

import tfprune
from tfprune.criteria import SynFlow
from tfprune.masking import recorded_mask
from tfprune.parts.kernels import kernels
from tfprune.statistics.synaptic_flow import SynapticFlow

L = keras.layers


def shares(model):
    """|w d log R / dw| of each kernel."""
    variables = [kernel.variable for kernel in kernels(model)]
    flow = SynapticFlow(model, variables)()
    return [np.abs(variable.numpy().astype(float)) * flow[variable.path] for variable in variables]


def test_share_of_each_weight_is_that_of_all_paths_through_it():
    model = randomize(
        keras.Sequential([keras.Input((3,)), L.Dense(4, "relu"), L.Dense(5, "tanh"), L.Dense(2, "softmax")])
    )
    a, b, c = (np.abs(layer.kernel.numpy()) for layer in model.layers)
    paths = np.einsum("ij,jk,kl->ijkl", a, b, c)
    expected = [paths.sum((2, 3)), paths.sum((0, 3)), paths.sum((0, 1))]
    for found, each in zip(shares(model), expected, strict=True):
        np.testing.assert_allclose(found, each / paths.sum(), rtol=1e-5)


def test_layers_of_a_chain_have_equal_sums_and_the_model_is_left_alone():
    layers = [
        L.Rescaling(1 / 127.5, offset=-1),
        L.Conv2D(4, 3, activation="relu", padding="same"),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.Conv2D(6, 3, strides=2, use_bias=False),
        L.LeakyReLU(),
        L.Flatten(),
        L.Dense(5, "gelu"),
        L.LayerNormalization(),
        L.Dense(3, "softmax"),
    ]
    model = randomize(keras.Sequential([keras.Input((8, 8, 2)), *layers]))

    def attributes():
        return [(layer.dtype_policy.name, vars(layer).get("activation"), "call" in vars(layer)) for layer in layers]

    before, attributes_before = weights_of(model), attributes()
    np.testing.assert_allclose([found.sum() for found in shares(model)], np.ones(4), rtol=1e-5)
    assert same(before, weights_of(model))
    assert attributes() == attributes_before


def test_branches_share_the_flow():
    stem, branch, head, classes = shares(randomize(residual()))
    np.testing.assert_allclose([stem.sum(), head.sum(), classes.sum()], 1, rtol=1e-5)
    assert 0.01 < branch.sum() < 0.99


def test_deep_network_overflows_nothing():
    model = keras.Sequential([keras.Input((8,)), *(L.Dense(8, use_bias=False) for _ in range(20))])
    model.set_weights([np.full((8, 8), 1e6, "float32")] * 20)  # R = 8 * (8e6)^20, about 1e139
    np.testing.assert_allclose(shares(model), np.full((20, 8, 8), 1 / 64), rtol=1e-5)


def test_embedding_counts_as_a_product_with_ones():
    model = randomize(keras.Sequential([keras.Input((4,), dtype="int32"), L.Embedding(7, 3), L.Flatten(), L.Dense(2)]))
    table, dense = shares(model)
    np.testing.assert_allclose([table.sum(), dense.sum()], 1, rtol=1e-5)
    assert (table > 0).all()


def test_no_layer_collapses_at_a_thousandth():
    keras.utils.set_random_seed(0)
    layers = [L.Dense(width, "relu", use_bias=False) for width in (256, 16)]
    model = keras.Sequential([keras.Input((100,)), *layers, L.Dense(10, use_bias=False)])
    tfprune.prune_weights(model, 0.999, SynFlow())
    masks = [recorded_mask(kernel.variable) for kernel in kernels(model)]
    size = sum(mask.size for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == size - int(size * 0.999)
    assert min(int(mask.sum()) for mask in masks) >= 3
    reached = np.ones(100, bool)
    for mask in masks:
        reached = (reached[:, None] & mask).any(axis=0)
    assert reached.any()  # data still flows from the inputs to the outputs


def test_network_through_which_nothing_can_flow_is_refused():
    model = randomize(keras.Sequential([keras.Input((3,)), L.Dense(4, name="a"), L.Dense(2)]))
    model.get_layer("a").kernel.assign(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"Nothing can be said about the flow .*outputs sum to 0\.0"):
        shares(model)


def test_model_with_a_call_of_its_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x)

    own = Own()
    own(np.ones((1, 3)))
    np.testing.assert_allclose(shares(own)[0].sum(), 1, rtol=1e-5)
