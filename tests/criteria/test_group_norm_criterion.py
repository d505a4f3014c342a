import keras
import numpy as np
import pytest
from criterion_views import member
from networks import chain, randomize, residual

from tfprune.criteria import ChannelView, GroupNorm
from tfprune.graph import channel_groups
from tfprune.parts.channels import view_of
from tfprune.parts.ranking import Ranking

L = keras.layers


def test_by_hand():
    # Channel 0: 1, 2 | gamma 2 | 4, 0: sum of squares 1 + 4 + 4 + 16 = 25. Channel 1: 0, 2 | 1 | 2, 4: 4 + 1 + 20 = 25.
    kernel = member([[1.0, 0.0], [2.0, 2.0]], "producer", axis=1)
    gamma = member([2.0, 1.0], "affine", effect="scale", name="gamma")
    beta = member([100.0, 200.0], "affine", effect="shift", name="beta")
    mean = member([300.0, 400.0], "statistics", name="moving_mean")
    reader = member([[4.0, 0.0], [2.0, 4.0]], "consumer", axis=0)
    view = ChannelView("conv", 2, (kernel, gamma, beta, mean, reader))
    assert GroupNorm().score(view).tolist() == [5.0, 5.0]
    assert GroupNorm(p=1).score(view).tolist() == [9.0, 9.0]
    assert GroupNorm().score(ChannelView("conv", 2, (kernel, beta))).tolist() == [5**0.5, 2.0]


def test_positions_of_one_channel_add_up():
    kernel = member([[3.0, 4.0, 1.0]], "producer", axis=1, channels=[0, 0, 1])
    assert GroupNorm().score(ChannelView("twice", 2, (kernel,))).tolist() == [5.0, 1.0]


def test_of_a_network_is_the_norm_of_what_is_tied():
    """Independent of views: what a channel of the residual trunk is made of, scaled by and read with."""
    model = randomize(residual())
    value = {weight.path.removeprefix("residual/"): weight.numpy().astype("float64") for weight in model.weights}
    out = [value[f"{name}/kernel"].reshape(-1, 5) for name in ("stem", "branch")]
    gammas = [value[f"{name}_bn/gamma"][None] for name in ("stem", "branch")]
    read = [np.moveaxis(value[f"{name}/kernel"], 2, -1).reshape(-1, 5) for name in ("branch", "head")]
    expected = np.sqrt((np.concatenate([*out, *gammas, *read]) ** 2).sum(axis=0))
    group = channel_groups(model).free[0]
    np.testing.assert_allclose(GroupNorm().score(view_of(group)), expected, rtol=1e-12)
    np.testing.assert_allclose(Ranking().scores(group, GroupNorm()), expected, rtol=1e-12)


def test_depthwise_kernels_scale_their_channel():
    layers = [keras.Input((4, 4, 1)), L.Conv2D(2, 1, use_bias=False), L.DepthwiseConv2D(2, use_bias=False)]
    model = keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(1, name="end")])
    model.layers[0].kernel.assign([[[[2.0, 0.0]]]])
    model.layers[1].kernel.assign(np.array([[[1.0], [3.0]]] * 4).reshape(2, 2, 2, 1))
    model.get_layer("end").kernel.assign([[1.0], [0.0]])
    assert GroupNorm().score(view_of(channel_groups(model).free[0])).tolist() == [3.0, 6.0]


@pytest.mark.parametrize("p", [0, -1, float("nan"), float("inf"), "2", True])
def test_orders_that_are_no_norm_are_refused(p):
    with pytest.raises(ValueError, match=r"^p must be"):
        GroupNorm(p)


def test_a_kernel_that_nobody_reads_matters_less():
    model = randomize(chain())
    group = channel_groups(model).free[0]
    before = Ranking().scores(group, GroupNorm())
    kernel = model.get_layer("second").kernel.numpy()
    kernel[:, :, 2] = 0.0
    model.get_layer("second").kernel.assign(kernel)
    after = Ranking().scores(group, GroupNorm())
    assert after[2] < before[2]
    assert np.array_equal(np.delete(after, 2), np.delete(before, 2))
