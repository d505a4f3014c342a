"""benchmarks/dynamic_sparse.py on made-up images: that it goes on where it stopped, and what it makes of its runs."""

import json

import dynamic_sparse
import numpy as np
import pytest
from dynamic_sparse import METHODS, QUICK

ACCURACIES = {"dense": 90, "static": 80, "set": 85, "rigl": 86, "granet": 87, "magnitude": 89.8}


def images(train):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, train + 100).astype("int32")
    x = generator.random((len(y), 784), dtype=np.float32) * 0.5
    x[np.arange(len(y)), y] += 5.0
    return x[:train], y[:train], x[train:], y[train:]


def made_up_runs(accuracies):
    """Five seeds whose accuracy goes up and down for all methods alike, and a little for each on its own."""
    generator = np.random.default_rng(0)
    wave = np.array([0.01, -0.01, 0.02, 0.0, -0.02])
    return [
        {"method": method, "sparsity": sparsity, "seed": seed, "accuracy": accuracy, "units_without_inputs": seed}
        for method, mean in zip(("dense", *METHODS), accuracies.values(), strict=True)
        for sparsity in ([0.0] if method == "dense" else [0.9, 0.95])
        for seed, accuracy in enumerate(mean / 100 + wave + generator.normal(0, 1e-4, 5))
    ]


def failing(**changes):
    claims = dynamic_sparse.check(dynamic_sparse.summarize(made_up_runs({**ACCURACIES, **changes})))
    return [claim.text for claim in claims if not claim.holds]


@pytest.mark.slow
def test_quick_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dynamic_sparse, "fashion_mnist", images)
    out, plot = tmp_path / "result.json", tmp_path / "plot.svg"
    command = ["--quick", "--seeds", "0", "1", "--out", str(out), "--plot", str(plot)]
    plain, made = dynamic_sparse.train, []

    def interrupted(*args):
        if len(made) == 8:
            raise KeyboardInterrupt
        made.append(args[1:4])
        return plain(*args)

    monkeypatch.setattr(dynamic_sparse, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dynamic_sparse.main(command)
    assert not out.exists()
    made_before, made = made, []
    status = dynamic_sparse.main(command)
    result = json.loads(out.read_text())
    assert status == (0 if all(claim["holds"] for claim in result["claims"]) else 1)
    assert (len(made_before), len(made)) == (8, 4)
    assert len({*made_before, *made}) == 12
    runs = result["measured"]["runs"]
    assert [run["reached_sparsity"] for run in runs] == pytest.approx([0.0, *[0.9] * 5] * 2, abs=1e-5)
    assert all(run["live_by_layer"][-1] == 1000 for run in runs)
    assert "dense" in plot.read_text()
    assert "| dense | " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.svg", "result.json"]

    made.clear()
    written = json.loads(out.read_text())
    dynamic_sparse.main(command)
    assert not made
    assert json.loads(out.read_text()) == written


def test_runs_with_other_settings_are_not_mixed(tmp_path):
    out = tmp_path / "result.json"
    dynamic_sparse.write(out.with_suffix(".partial.json"), {"settings": {**QUICK, "epochs": 3}, "runs": []})
    with pytest.raises(SystemExit, match="was measured with"):
        dynamic_sparse.main(["--quick", "--out", str(out)])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("method", "times"), [("SET", range(2, 15, 2)), ("RigL", range(1, 16, 2)), ("GraNet", range(2, 20, 2))]
)
def test_masks_are_updated_as_often_as_said(method, times, monkeypatch):
    seen = []
    build = METHODS[method]

    def watched(*args):
        callback = build(*args)
        update = callback.update_masks
        monkeypatch.setattr(callback, "update_masks", lambda *given: seen.append(given[-1]) or update(*given))
        return callback

    monkeypatch.setitem(METHODS, method, watched)
    dynamic_sparse.train(images(QUICK["train"]), method, 0.9, 0, QUICK)
    assert seen == list(times)


def test_differences_are_paired_by_seed():
    runs = made_up_runs(ACCURACIES)
    summary = dynamic_sparse.summarize(runs)
    rows = {(row["of"], row["over"], row["sparsity"]): row for row in summary["differences"]}
    row = rows["SET", "fixed random mask", 0.9]
    by_method = {m: [run["accuracy"] for run in runs if (run["method"], run["sparsity"]) == (m, 0.9)] for m in METHODS}
    gaps = 100 * np.subtract(by_method["SET"], by_method["fixed random mask"])
    half = 2.776 * gaps.std(ddof=1) / 5**0.5  # Student's t, 4 degrees of freedom, 97.5%
    assert (row["low"], row["high"]) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=1e-4)
    assert (row["wins"], row["seeds"]) == (5, 5)
    (set_row,) = (r for r in summary["accuracy"] if (r["method"], r["sparsity"]) == ("SET", 0.9))
    assert (set_row["mean"], set_row["sd"]) == pytest.approx(
        (100 * np.mean(by_method["SET"]), 100 * np.std(by_method["SET"], ddof=1))
    )


def test_the_order_of_the_papers_holds():
    assert not failing()


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"dense": 88.9, "magnitude": 88.8}, "dense network"),
        ({"magnitude": 89.4}, "lost by magnitude"),
        ({"static": 85}, "SET over fixed random mask"),
        ({"set": 87}, "RigL over SET"),
        ({"granet": 85}, "GraNet over RigL"),
    ],
)
def test_another_order_fails(changes, promise):
    texts = failing(**changes)
    assert texts
    assert all(promise in text for text in texts)
