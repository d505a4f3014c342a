"""Budgets of published networks: what is counted is what comes out, and it is used."""

import budget
import numpy as np
import pytest
import zoo

import tfprune
from tfprune.graph import analyse
from tfprune.graph.counting import SizeCounter


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetV2B0"])
def test_sizes_are_counted_exactly(name):
    model = zoo.build(name)
    analysis = analyse(model)
    random = np.random.default_rng(0)
    dead = [group.labels[group.keep_one_each(random.uniform(size=group.size) < 0.5)] for group in analysis.groups.free]
    stays = analysis.alive(analysis.spare(np.concatenate(dead)))
    small = tfprune.shrink(model, {group: np.flatnonzero(stays[group.labels]) for group in analysis.groups.free})
    found = tfprune.profile(small)
    counted = SizeCounter(model, analysis, folds=True)(stays * 1.0, ["parameters", "macs"])
    assert counted == {"parameters": found.parameters, "macs": found.macs}


@pytest.mark.zoo
@pytest.mark.parametrize("name", budget.NETWORKS)
@pytest.mark.parametrize("step", budget.LEAST)
def test_a_budget_is_filled(name, step):
    assert budget.LEAST[step] <= budget.used(budget.build(name), budget.LEFT, step)["share"] <= 1
