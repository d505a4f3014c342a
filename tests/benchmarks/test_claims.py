"""A benchmark must be able to fail: hand-made numbers on both sides of each promise."""

import json
import math

import _shared
import fpgm_distances
import keras
import masking_overhead
import pruned_latency
import pytest
import quickstart_claims
import training_overhead


def failing(claims):
    return [claim.text for claim in claims if not claim.holds]


def quickstart_report(**changes):
    base = {"accuracy": 0.98, "macs": 100, "file_bytes": 600, "ratio": 1.0}
    rows = {
        "dense_float": base,
        "pruned_float": {**base, "macs": 50, "file_bytes": 200, "ratio": 0.7},
        "pruned_int8": {**base, "macs": 50, "file_bytes": 100, "ratio": 0.2, "accuracy": 0.975},
    }
    for name, change in changes.items():
        if name in rows:
            rows[name] = {**rows[name], **change}
    files = [{"path": f"{name}.tflite", **row} for name, row in rows.items()]
    return {"files": files, "wall_seconds": changes.get("wall_seconds", 100.0)}


class TestClaim:
    def test_limits_count_as_kept(self):
        assert _shared.Claim("at most", 1.0, 1.0).holds
        assert _shared.Claim("at least", 5.0, 5.0, at_least=True).holds

    def test_beyond_the_limit_fails(self):
        assert not _shared.Claim("at most", 1.01, 1.0).holds
        assert not _shared.Claim("at least", 4.99, 5.0, at_least=True).holds

    @pytest.mark.parametrize("at_least", [True, False])
    def test_nan_fails(self, at_least):
        assert not _shared.Claim("measured nothing", math.nan, 1.0, at_least).holds


class TestConclude:
    def test_exit_status_and_json_say_what_failed(self, tmp_path):
        claims = [_shared.Claim("good", 1, 2), _shared.Claim("bad", 3, 2)]
        out = tmp_path / "results" / "name.json"
        assert _shared.conclude(out, claims, {"seed": 0}, [_shared.spread([1, 2, 3])]) == 1
        result = json.loads(out.read_text())
        assert [claim["holds"] for claim in result["claims"]] == [True, False]
        assert result["measured"] == [{"median": 2.0, "low_quartile": 1.5, "high_quartile": 2.5, "count": 3}]
        assert result["environment"]["cores"] >= 1
        assert result["environment"]["packages"]["keras"]

    def test_all_kept_is_zero_and_none_made_is_not(self, tmp_path):
        assert _shared.conclude(tmp_path / "a.json", [_shared.Claim("good", 1, 2)], {}, []) == 0
        assert _shared.conclude(tmp_path / "a.json", [], {}, []) == 1


class TestMeasuring:
    def test_functions_take_turns_and_warm_up_is_left_out(self):
        calls = []
        now = iter(range(100))
        functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
        seconds = _shared.take_turns(functions, rounds=2, clock=lambda: next(now), warmup=1)
        assert calls == ["a", "b"] * 3
        assert seconds == {"a": [1, 1], "b": [1, 1]}

    def test_ratios_are_of_pairs(self):
        # the machine is ten times slower in the second round; the ratio does not notice
        assert _shared.ratio_spread([2, 20, 2], [1, 10, 1]) == _shared.Spread(2.0, 2.0, 2.0, 3)

    def test_unpaired_measurements_are_refused(self):
        with pytest.raises(ValueError, match="3 and 1"):
            _shared.ratio_spread([1, 2, 3], [1])


class TestQuickstart:
    def test_all_promises_kept(self):
        assert not failing(quickstart_claims.check([quickstart_report()] * 3))

    @pytest.mark.parametrize(
        ("changes", "promise"),
        [
            ({"wall_seconds": 241.0}, "wall time"),
            ({"pruned_int8": {"accuracy": 0.9}}, "test accuracy lost"),
            ({"pruned_float": {"macs": 51}}, "MACs"),
            ({"pruned_int8": {"file_bytes": 101}}, "bytes"),
            ({"pruned_float": {"ratio": 0.71}}, "latency"),
        ],
    )
    def test_one_bad_seed_breaks_its_promise(self, changes, promise):
        (text,) = failing(quickstart_claims.check([quickstart_report(), quickstart_report(**changes)]))
        assert promise in text

    def test_accuracy_is_judged_by_the_mean(self):
        bad, good = ({"pruned_int8": {"accuracy": accuracy}} for accuracy in (0.965, 0.98))
        assert not failing(quickstart_claims.check([quickstart_report(**bad), quickstart_report(**good)]))

    def test_a_small_gap_to_a_poor_net_does_not_count(self):
        poor = quickstart_report(dense_float={"accuracy": 0.9}, pruned_int8={"accuracy": 0.9})
        (text,) = failing(quickstart_claims.check([poor]))
        assert "dense float net" in text


class TestPrunedLatency:
    @pytest.mark.parametrize("kind", ["float", "int8"])
    def test_slower_than_dense_fails(self, kind):
        row = {name: {"latency_ratio_quartiles": [0.5, 0.9]} for name in ("float", "int8")}
        assert not failing(pruned_latency.check([{"network": "net", **row}]))
        slow = {"network": "net", **row, kind: {"latency_ratio_quartiles": [0.9, 1.1]}}
        assert failing(pruned_latency.check([slow])) == [f"net, {kind}: pruned over dense latency, upper quartile"]


class TestMaskingOverhead:
    def summary(self, masked, plain_again):
        seconds = {"plain": [1.0] * 4, "masked": [masked] * 4, "plain_again": [plain_again] * 4}
        return failing(masking_overhead.check(masking_overhead.summarize(seconds), 128))

    def test_small_overhead_holds(self):
        assert not self.summary(1.01, 1.0)

    def test_large_overhead_fails(self):
        (text,) = self.summary(1.05, 1.0)
        assert "hard FPGM" in text

    @pytest.mark.parametrize("plain_again", [0.95, 1.05])
    def test_a_noisy_machine_is_no_proof(self, plain_again):
        assert any("too noisy" in text for text in self.summary((1.0 + plain_again) / 2, plain_again))

    def test_fits_take_turns_and_only_one_of_them_is_pruned(self, monkeypatch):
        models = []

        def small():
            models.append(
                keras.Sequential(
                    [
                        keras.Input((32, 32, 3)),
                        *(keras.layers.Conv2D(5, 3) for _ in range(2)),
                        keras.layers.GlobalAveragePooling2D(),
                        keras.layers.Dense(10),
                    ]
                )
            )
            return models[-1]

        monkeypatch.setattr(masking_overhead, "resnet20", small)
        seconds = masking_overhead.measure(pieces=2, batches=2, batch_size=4, seed=0)
        assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(masking_overhead.FITS, 2)
        assert min(min(values) for values in seconds.values()) > 0
        pruned = [int((model.layers[0].kernel.numpy() == 0).all(axis=(0, 1, 2)).sum()) for model in models]
        assert pruned == [0, 2, 0]

    def test_a_fit_that_fails_ends_the_measurement(self, monkeypatch):
        def broken():
            raise RuntimeError("no network")

        monkeypatch.setattr(masking_overhead, "resnet20", broken)
        with pytest.raises(RuntimeError, match="no network"):
            masking_overhead.measure(pieces=1, batches=1, batch_size=4, seed=0)


class TestFPGMDistances:
    def row(self, speedup, difference):
        return {
            "filters": 512,
            "weights_per_filter": 4608,
            "speedup_cpu": _shared.spread([speedup]),
            "max_relative_difference": difference,
        }

    def test_slow_or_wrong_fails(self):
        assert not failing(fpgm_distances.check([self.row(5.1, 1e-12)]))
        assert "as fast" in failing(fpgm_distances.check([self.row(4.9, 1e-12)]))[0]
        assert "difference" in failing(fpgm_distances.check([self.row(5.1, 1e-3)]))[0]

    def test_the_promise_on_speed_is_for_the_first_shape(self):
        assert not failing(fpgm_distances.check([self.row(5.1, 0.0), self.row(2.0, 0.0)]))

    def test_runs_on_small_shapes(self, tmp_path):
        out = tmp_path / "fpgm.json"
        status = fpgm_distances.main(["--rounds", "2", "--out", str(out)], shapes=[(3, 3, 4, 8), (1, 1, 6, 5)])
        result = json.loads(out.read_text())
        assert status == (0 if all(claim["holds"] for claim in result["claims"]) else 1)
        assert [row["filters"] for row in result["measured"]] == [8, 5]
        assert result["claims"][1]["holds"]


@pytest.mark.parametrize(
    "script", [fpgm_distances, masking_overhead, pruned_latency, quickstart_claims, training_overhead]
)
def test_help_names_the_claim_and_the_command(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    printed = capsys.readouterr().out
    assert "Claim" in printed
    assert f"python benchmarks/{script.__name__}.py" in printed
    assert "--out" in printed
