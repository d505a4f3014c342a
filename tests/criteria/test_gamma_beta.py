"""What a ReLU makes of a normalized channel, against the mean of many numbers drawn."""

import numpy as np
import pytest
from criterion_views import member

from tfprune.criteria import ChannelView, GammaBeta


def view(gammas, betas, **options):
    members = [member(gammas, "affine", name="gamma", effect="scale", layer="norm", **options)]
    if betas is not None:
        members.append(member(betas, "affine", name="beta", effect="shift", layer="norm", **options))
    return ChannelView("conv", len(gammas), tuple(members))


def test_is_the_mean_of_relu():
    gammas, betas = np.array([1.0, -2.0, 0.5, 0.3]), np.array([0.0, 1.0, -1.0, 2.0])
    drawn = betas + gammas * np.random.default_rng(0).normal(size=(400_000, 4))
    ((_, scores),) = GammaBeta().score(view(gammas, betas))
    np.testing.assert_allclose(scores, np.maximum(drawn, 0).mean(0), rtol=0.02)


def test_without_variance_it_is_relu_of_beta():
    ((_, scores),) = GammaBeta().score(view([0.0, 0.0, 1e-9], [2.0, -2.0, -1.0]))
    assert scores.tolist() == [2.0, 0.0, 0.0]


def test_without_beta_it_is_gamma():
    ((_, scores),) = GammaBeta().score(view([1.0, -3.0], None))
    np.testing.assert_allclose(scores, np.array([1.0, 3.0]) / np.sqrt(2 * np.pi))


def test_beta_is_that_of_the_same_layer():
    other = member([5.0, 5.0], "affine", name="beta", effect="shift", layer="other")
    ((_, scores),) = GammaBeta().score(ChannelView("conv", 2, (*view([1.0, 1.0], None).members, other)))
    np.testing.assert_allclose(scores, 1 / np.sqrt(2 * np.pi))


def test_a_channel_without_gamma_is_refused():
    with pytest.raises(ValueError, match=r"GammaBeta cannot score 'conv': 1 of its 3 channels pass through no gamma"):
        GammaBeta().score(ChannelView("conv", 3, view([1.0, 1.0], None).members))
