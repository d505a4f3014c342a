import numpy as np
import pytest
from criterion_views import member
from networks import chain, dense, randomize, residual

from tfprune.criteria import BatchNormGamma, ChannelView
from tfprune.graph import channel_groups
from tfprune.parts.channels import view_of
from tfprune.parts.ranking import Ranking


def test_by_hand():
    gamma = member([-0.5, 0.25], "affine", effect="scale", name="gamma")
    beta = member([9.0, 9.0], "affine", effect="shift", name="beta")
    depthwise = member([9.0, 9.0], "affine", effect="scale", name="kernel")
    ((scored, scores),) = BatchNormGamma().score(ChannelView("conv", 2, (beta, gamma, depthwise)))
    assert scored is gamma
    assert scores.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", [2.0, 2.0]), ("sum", [4.0, 4.0]), ("max", [3.0, 2.0]), ("product", [3.0, 4.0])]
)
def test_several_gammas_are_reduced_by_the_ranking(reduce, expected):
    model = randomize(residual(width=2))
    model.get_layer("stem_bn").gamma.assign([1.0, 2.0])
    model.get_layer("branch_bn").gamma.assign([-3.0, -2.0])
    group = channel_groups(model).free[0]
    assert Ranking(reduce=reduce).scores(group, BatchNormGamma()).tolist() == expected


def test_channels_without_a_gamma_are_refused():
    group = channel_groups(randomize(dense())).free[0]
    with pytest.raises(ValueError, match=r"cannot score 'hidden': 4 of its 4 channels pass through no gamma.*exclude"):
        BatchNormGamma().score(view_of(group))


def test_channels_of_which_some_have_a_gamma_are_refused():
    gamma = member([1.0], "affine", effect="scale", name="gamma", channels=[1])
    with pytest.raises(ValueError, match="1 of its 2 channels"):
        BatchNormGamma().score(ChannelView("half", 2, (gamma,)))


def test_a_gamma_is_found_behind_the_kernel_that_it_scales():
    model = randomize(chain())
    model.get_layer("first_bn").gamma.assign([4.0, -3.0, 2.0, 1.0])
    group = channel_groups(model).free[0]
    assert Ranking().scores(group, BatchNormGamma()).tolist() == [4.0, 3.0, 2.0, 1.0]
    view = view_of(group, np.array([True, False, True, False]))
    assert [scores.tolist() for _, scores in BatchNormGamma().score(view)] == [[4.0, 2.0]]
