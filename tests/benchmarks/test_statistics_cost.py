"""What the benchmark of statistics claims: hand-made numbers on both sides."""

import statistics_cost


def failing(**changes):
    time = {"first_epoch": 4.0, "epoch": 1.0, "pass": 2.0, "pass_over_one_batch": 1.0}
    measured = {name: time | changes.get(name, {}) for name in statistics_cost.NETWORKS}
    measured["memory"] = {"peak_over_weights": 3.0, "copy_over_weights": 1.0} | changes.get("memory", {})
    return [claim.text for claim in statistics_cost.check(measured) if not claim.holds]


def test_a_slow_pass_fails():
    assert failing() == []
    assert failing(mobile={"pass": 2.3}) == ["samples of a pass over an epoch, mobile"]
    assert failing(residual={"pass": 6.0, "pass_over_one_batch": 5.0}) == ["a pass over a first epoch, residual"]


def test_a_large_pass_and_a_measurement_that_misses_a_copy_fail():
    assert failing(memory={"peak_over_weights": 3.1}) == ["peak of a pass over the weights"]
    assert failing(memory={"copy_over_weights": 0.5}) == ["control: how far one copy of the weights is from 1"]
