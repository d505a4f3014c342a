"""The benchmark of repair without training: how results are merged and what it claims."""

import json

import informed_choice
import pytest
from _informed_rows import WAYS, lost, merged
from _shared import RESULTS


def row(task, seed, best, budget=0.5, choice="L2"):
    lower = dict(zip(WAYS, (best - 0.3, best - 0.2, best - 0.1, best), strict=True))
    named = {"task": task, "seed": seed, "budget": budget, "choice": choice}
    return {**named, "dense": 0.9, "cpu_of_an_epoch": 0.4, **lower}


def test_new_rows_take_the_place_of_old_ones():
    rows = merged([row("a", 0, 0.5), row("b", 0, 0.6)], [row("a", 0, 0.8), row("a", 1, 0.7)])
    assert [(each["task"], each["seed"], each["all"]) for each in rows] == [("a", 0, 0.8), ("a", 1, 0.7), ("b", 0, 0.6)]


def test_losses_are_means_over_tasks_of_means_over_seeds():
    points = lost([row("a", 0, 0.9), row("a", 1, 0.8), row("b", 0, 0.7)], 0.5)
    assert points["L2", "all"] == pytest.approx((5 + 20) / 2)
    assert points["L2", "recalibrated"] == pytest.approx((35 + 50) / 2)


def test_claims_take_the_best_way_at_each_budget():
    found = informed_choice.check([row("a", 0, 0.88), row("a", 0, 0.86, choice="random"), row("a", 0, 0.8, budget=0.3)])
    assert [claim.holds for claim in found] == [True, False, True]
    assert found[0].text == "points lost at 0.5 of the MACs by L2, all"


def test_the_results_hold_every_choice_at_every_budget():
    rows = json.loads((RESULTS / "informed_choice.json").read_text())["measured"]
    for task, seed in {(each["task"], each["seed"]) for each in rows}:
        found = {(each["budget"], each["choice"]) for each in rows if (each["task"], each["seed"]) == (task, seed)}
        assert found == {
            (budget, choice) for budget in informed_choice.BUDGETS for choice in informed_choice.choices(0, None, None)
        }
