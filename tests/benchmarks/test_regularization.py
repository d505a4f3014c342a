"""benchmarks/regularization.py on made-up images: that it goes on where it stopped, and what it makes of its runs."""

import json
import tempfile

import keras
import numpy as np
import pytest
import regularization
from _regularization import METHODS, macs, prune_by_gamma, uniform_ratio
from _trainings import NETWORKS, Job

import tfprune

ACCURACIES = {"dense": 0.9, "Scratch-E": 0.88, "Scratch-B": 0.89, "L1 one-shot": 0.87, "FPGM": 0.86}


def images(train, validation):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, train + 40).astype("int32")
    x = generator.random((len(y), 28, 28, 1), dtype=np.float32)
    return x[:train], y[:train], x[train:], y[train:]


def made_up_runs(**changes):
    return [
        {
            **vars(Job("VGG", method, left, seed)),
            "accuracy": accuracy + 0.01 * (seed - 1),
            "pruned_accuracy": None,
            "macs_left": left,
            "parameters": 1000,
            **({} if method == "dense" else {"latency_ratio": left, "latency_ratio_quartiles": [left, left]}),
            **changes,
        }
        for method, accuracy in ACCURACIES.items()
        for left in ([1.0] if method == "dense" else [0.5, 0.3])
        for seed in range(3)
    ]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Run the benchmark in this process, and return its exit status, result and plot."""
    monkeypatch.setattr(regularization, "images", images)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()

    def call(*options):
        out, plot = tmp_path / "result.json", tmp_path / "plot.svg"
        status = regularization.main(["--quick", "--processes", "1", "--out", str(out), "--plot", str(plot), *options])
        return status, json.loads(out.read_text()), plot.read_text()

    return call


@pytest.mark.slow
def test_quick_run_goes_on_where_it_stopped(quick, tmp_path, monkeypatch, capsys):
    options = ["--methods", "dense", "L1 one-shot", "--networks", "VGG", "--seeds", "1"]
    plain, made = regularization.run, []

    def interrupted(job, *args):
        if made:
            raise KeyboardInterrupt
        made.append(job)
        return plain(job, *args)

    monkeypatch.setattr(regularization, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(*options)
    assert not (tmp_path / "result.json").exists()
    before, made = made, []
    status, result, plot = quick(*options)
    assert [job.method for job in before + made] == ["dense", "L1 one-shot"]
    assert status == (0 if all(claim["holds"] for claim in result["claims"]) else 1)
    dense, small = result["measured"]["runs"]
    assert dense["macs_left"] == 1
    assert small["macs_left"] <= 0.5
    assert small["latency_ratio"] > 0
    assert "L1 one-shot" in plot
    assert "| L1 one-shot | " in capsys.readouterr().out

    made.clear()
    assert quick(*options)[1] == result
    assert not made


@pytest.mark.slow
def test_all_methods_stay_within_the_budget(quick):
    runs = quick("--seeds", "1")[1]["measured"]["runs"]
    assert len(runs) == 2 * len(METHODS) - 1
    assert all(run["macs_left"] <= run["left"] for run in runs)


def test_differences_are_paired_by_seed():
    summary = regularization.summarize(made_up_runs())
    rows = {(row["method"], row["left"], row["over"]): row for row in summary["differences"]}
    assert rows["FPGM", 0.3, "Scratch-B"]["mean"] == pytest.approx(-3)
    assert rows["FPGM", 0.3, "Scratch-B"]["sd"] == pytest.approx(0, abs=1e-9)
    assert rows["Scratch-E", 0.5, "dense"]["mean"] == pytest.approx(-2)
    means = {(row["method"], row["left"]): (row["mean"], row["sd"]) for row in summary["accuracy"]}
    assert means["L1 one-shot", 0.3] == pytest.approx((87, 1))


@pytest.mark.parametrize(
    ("change", "count"), [({}, 0), ({"accuracy": 0.8}, 1), ({"macs_left": 0.51}, 2), ({"latency_ratio": 1.1}, 2)]
)
def test_claims_can_fail(change, count):
    claims = regularization.check(regularization.summarize(made_up_runs(**change)))
    assert sum(not claim.holds for claim in claims) == count


def test_second_of_two_runs_with_one_beginning_comes_later():
    jobs = regularization.plan(["VGG", "residual"], list(METHODS), (0.5, 0.3), range(3))
    lasso = [job.left for job in jobs if job.method == "GroupLasso"]
    assert lasso == [0.5] * 6 + [0.3] * 6
    assert {job.network for job in jobs if job.method == "SSS"} == {"residual"}
    assert [job.left for job in jobs if job.method == "dense"] == [1.0] * 6


@pytest.mark.sampled(1)
@pytest.mark.parametrize("network", NETWORKS)
def test_uniform_ratio_is_the_smallest_that_fits(network):
    model = NETWORKS[network](8)
    ratio = uniform_ratio(model, 0.5)
    assert macs(tfprune.prune_channels(model, ratio)) <= 0.5 * macs(model)
    assert macs(tfprune.prune_channels(model, ratio - 0.02)) > 0.5 * macs(model)


def test_smallest_gammas_go_first():
    def gammas(model):
        return [layer.gamma for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]

    model = NETWORKS["VGG"](8)
    gammas(model)[2].assign(np.linspace(0.1, 0.9, 16))
    small = prune_by_gamma(model, 0.8, "mean")
    left = [len(gamma.numpy()) for gamma in gammas(small)]
    assert macs(small) <= 0.8 * macs(model)
    assert left == [4, 8, left[2], 16, 24]
    np.testing.assert_array_equal(gammas(small)[2], gammas(model)[2].numpy()[-left[2] :])
