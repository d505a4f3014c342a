"""The memory of an update of masks: what the benchmark claims, and at a smaller size that it holds."""

import json
import sys

import pytest
import update_memory


def row(peak, copy=1.0):
    return {"peak_over_weights": peak, "copy_over_weights": copy}


def test_a_large_peak_and_a_measurement_that_misses_a_copy_fail():
    def failing(measured):
        return [claim.text for claim in update_memory.check(measured) if not claim.holds]

    assert failing({"uniform": row(1.5)}) == []
    assert failing({"uniform": row(1.6)}) == ["peak of an update over the weights, uniform"]
    assert failing({"global": row(1.0, copy=0.5)}) == ["control, global: how far one copy of the weights is from 1"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_update_takes_at_most_one_and_a_half_times_the_weights(tmp_path):
    out = tmp_path / "memory.json"
    status = update_memory.main(["--weights", "20000000", "--out", str(out)])
    result = json.loads(out.read_text())
    assert [(claim["text"], claim["holds"]) for claim in result["claims"] if not claim["holds"]] == []
    assert status == 0
