"""The benchmark of soft pruning: what it claims, and that it runs."""

import json

import pytest
import soft_filter_pruning
from _shared import RESULTS


def row(hard, soft):
    return {
        f"{mode}, {start}": value
        for mode, value in (("hard", hard), ("soft", soft))
        for start in ("trained", "scratch")
    }


def test_claims_compare_with_hard_pruning_at_the_worst_width():
    found = soft_filter_pruning.check([row(0.9, 0.75), row(0.9, 0.9)])
    assert [claim.value for claim in found] == pytest.approx([15.0, 15.0])
    assert all(claim.holds for claim in soft_filter_pruning.check([row(0.9, 0.85), row(0.9, 0.95)]))
    assert not any(claim.holds for claim in soft_filter_pruning.check([row(0.9, 0.75)]))


def test_its_networks_have_the_width_and_learn_digits():
    x, y, test_x, test_y = soft_filter_pruning.digits(0)
    assert (len(x), len(y), len(test_x), len(test_y)) == (1200, 1200, 597, 597)
    model = soft_filter_pruning.network(6, 0.1)
    assert [layer.filters for layer in model.layers if hasattr(layer, "filters")] == [6] * 5
    assert model.compute_output_shape((None, *x.shape[1:])) == (None, 10)


def test_the_results_name_every_method_at_every_width():
    stored = json.loads((RESULTS / "soft_filter_pruning.json").read_text())
    assert [each["width"] for each in stored["measured"]] == list(soft_filter_pruning.WIDTHS)
    names = {f"{name}, {start}" for name in soft_filter_pruning.METHODS for start in soft_filter_pruning.RATES}
    assert all(names <= set(each) for each in stored["measured"])
