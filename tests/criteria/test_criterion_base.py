"""What may be given as a criterion, and what a criterion may ask for."""

import numpy as np
import pytest
from criterion_views import member

from tfprune.callbacks import FilterPruning
from tfprune.criteria import (
    ChannelCriterion,
    ChannelView,
    GroupNorm,
    WeightCriterion,
    WeightView,
    as_channel_criterion,
    l1_norm,
)

VIEW = ChannelView("hidden", 2, (member([[3.0, 0.0], [4.0, 1.0]], "producer", axis=1),))


class NeedsGradients(ChannelCriterion):
    """Gradient times weight, as statistics will bring it."""

    needs = ("gradients", "activations")

    def score(self, view):
        members = view.with_role("producer")
        return [(each, np.abs(each.weights * each.statistics["gradients"]).sum(axis=0)) for each in members]


class Largest(WeightCriterion):
    def score(self, view):
        return np.abs(view.weights)


def test_a_function_scores_each_kernel_that_makes_the_channels():
    twice = ChannelView("sum", 2, (*VIEW.members, member([[1.0, 1.0]], "producer", axis=1), member([5.0], "affine")))
    assert [scores.tolist() for _, scores in as_channel_criterion(l1_norm).score(twice)] == [[7.0, 1.0], [1.0, 1.0]]


def test_a_function_may_work_in_place():
    def halve(weights, axis):
        weights /= 2
        return weights.sum(axis=0)

    for _ in range(2):
        assert [scores.tolist() for _, scores in as_channel_criterion(halve).score(VIEW)] == [[3.5, 0.5]]


def test_an_object_is_taken_as_it_is():
    criterion = GroupNorm()
    assert as_channel_criterion(criterion) is criterion


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ("l1_norm", "criterion must be a ChannelCriterion or a function .*Received: 'l1_norm'"),
        (None, "criterion must be a ChannelCriterion or a function .*Received: None"),
        (GroupNorm, r"criterion must be an object: GroupNorm\(\), not the class GroupNorm"),
        (Largest(), "Largest scores single weights, and channels are to be scored here"),
    ],
)
def test_what_is_no_criterion_of_channels_is_refused(criterion, message):
    with pytest.raises(TypeError, match=message):
        as_channel_criterion(criterion)


def test_needs_that_nobody_provides_are_refused_before_training():
    message = (
        r"^NeedsGradients needs the statistics \['activations', 'gradients'\], which are not provided here. "
        r"Statistics that this version can provide: .*'gradient' by data= of prune_channels.*GroupNorm\(\)"
    )
    with pytest.raises(ValueError, match=message):
        as_channel_criterion(NeedsGradients())
    with pytest.raises(ValueError, match=message):
        FilterPruning(0.5, NeedsGradients())
    with pytest.raises(ValueError, match=r"needs the statistics \['activations'\]"):
        as_channel_criterion(NeedsGradients(), provided=("gradients",))


def test_needs_that_are_provided_are_read_from_the_view():
    gradients = {"gradients": np.array([[1.0, 1.0], [-1.0, 2.0]])}
    kernel = member([[3.0, 0.0], [4.0, 1.0]], "producer", axis=1, statistics=gradients)
    criterion = as_channel_criterion(NeedsGradients(), provided=("gradients", "activations"))
    ((_, scores),) = criterion.score(ChannelView("hidden", 2, (kernel,)))
    assert scores.tolist() == [7.0, 2.0]


def test_views_are_read_once_and_read_only():
    reads = []

    def read():
        reads.append(1)
        return np.array([[1.0, -2.0]])

    view = WeightView("kernel", read)
    assert reads == []
    assert Largest().score(view).tolist() == Largest().score(view).tolist() == [[1.0, 2.0]]
    assert reads == [1]
    with pytest.raises(ValueError, match="read-only"):
        view.weights[0, 0] = 5.0
    with pytest.raises(AttributeError):
        view.name = "other"
    with pytest.raises(TypeError):
        view.statistics["gradients"] = view.weights


def test_rows_and_totals_by_hand():
    kernel = member(np.arange(12.0).reshape(2, 3, 2), "consumer", axis=1, channels=[1, 0, 1])
    assert kernel.rows.tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    view = ChannelView("flat", 3, (kernel,))
    assert view.total([(kernel, kernel.rows.sum(axis=1))]).tolist() == [22.0, 14.0 + 30.0, 0.0]
    assert view.with_role("consumer", "producer") == (kernel,)
    assert view.with_role("affine") == ()
