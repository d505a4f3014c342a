"""What `benchmarks/compress.py` claims, on rows by hand."""

import compress
import pytest


def row(task, seed, int8, way=compress.OURS, budget=0.5):
    return {"task": task, "seed": seed, "budget": budget, "way": way, "dense": 0.9, "int8": int8}


def test_points_are_means_over_tasks_of_means_over_seeds():
    rows = [row("a", 0, 0.88), row("a", 1, 0.86), row("b", 0, 0.9), row("b", 0, 0.5, budget=0.25)]
    assert compress.lost(rows, 0.5, compress.OURS) == pytest.approx(1.5)
    assert compress.lost(rows, 0.5, compress.FIRST_VERSION) is None


def test_claims_fail_where_too_much_is_lost_or_the_first_version_does_better():
    rows = [row("a", 0, 0.898), row("a", 0, 0.899, compress.FIRST_VERSION)]
    assert [claim.holds for claim in compress.check(rows)] == [True, False]
    assert [claim.holds for claim in compress.check([row("a", 0, 0.89)])] == [False]


def test_a_new_row_takes_the_place_of_an_old_one():
    assert compress.merged([row("a", 0, 0.8), row("a", 1, 0.7)], [row("a", 0, 0.9)], by="way") == [
        row("a", 0, 0.9),
        row("a", 1, 0.7),
    ]
