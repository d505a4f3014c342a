"""Sensitivity: what pruning one group alone does, the same as removing its channels, and how it is kept and shown."""

import json

import keras
import numpy as np
import pytest
from networks import randomize, residual, same, weights_of

import tfprune
from tfprune import sensitivity
from tfprune.common.files import write_atomically
from tfprune.criteria import SNIP, Magnitude, Taylor, l1_norm
from tfprune.measure import partial_results, pruned_scores
from tfprune.statistics import gather

L = keras.layers
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(70, 8, 8, 2)).astype("float32"), random.integers(0, 3, 70)


@pytest.fixture(scope="module")
def model():
    model = residual(8, 12, normalized=True)
    randomize(model)
    model.compile("sgd", CROSS_ENTROPY)
    return model


@pytest.fixture(scope="module")
def found(model, data):
    before, optimizer = weights_of(model), [np.array(each) for each in model.optimizer.variables]
    report = sensitivity(model, data, progress=False)
    assert same(before, weights_of(model))
    assert same(optimizer, [np.array(each) for each in model.optimizer.variables])
    return report


def answers(model, x):
    return np.asarray(model(x, training=False), np.float64)


def loss(model, data):
    logits = answers(model, data[0])
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(chances[range(len(logits)), data[1]]).mean()


def test_scores_are_those_of_models_whose_channels_are_removed(model, data, found):
    assert (found.metric, found.better, found.num_samples) == ("loss", "lower", 70)
    assert found.dense == pytest.approx(loss(model, data), rel=1e-5)
    assert [(row.name, row.size, row.kept) for row in found.rows] == [("stem", 8, (6, 4, 2)), ("head", 12, (9, 6, 3))]
    for row, column in ((found.rows[0], 1), (found.rows[1], 2)):
        small = tfprune.prune_channels(model, tfprune.Widths({row.name: row.kept[column]}))
        tfprune.recalibrate(small, data[0])
        assert row.scores[column] == pytest.approx(loss(small, data), rel=1e-4)


def test_nothing_is_compiled_twice(monkeypatch):
    norm = L.BatchNormalization()
    model = keras.Sequential([keras.Input((4,)), L.Dense(8), norm, L.Dense(8), L.Dense(3)])
    traces, call = [], type(norm).call
    monkeypatch.setattr(type(norm), "call", lambda self, x, **given: traces.append(1) or call(self, x, **given))
    x, counts = np.random.default_rng(0).normal(size=(70, 4)), []
    for ratios in ([0.5], [0.2, 0.4, 0.6, 0.8]):
        traces.clear()
        sensitivity(model, x, ratios, progress=False)
        counts.append(len(traces))
    assert counts[0] == counts[1]


def test_divergence_by_definition():
    model = keras.Sequential([keras.Input((4,)), L.Dense(6, "relu", name="hidden"), L.Dense(3, "softmax")])
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    found = sensitivity(model, x, [0.5], progress=False)
    assert (found.metric, found.dense, found.baseline) == ("divergence", 0.0, 0.0)
    before, after = answers(model, x), answers(tfprune.prune_channels(model, 0.5), x)
    assert found.rows[0].scores[0] == pytest.approx((before * np.log(before / after)).sum(-1).mean(), rel=1e-4)


def test_metrics_and_single_weights(model, data):
    found = sensitivity(model, data, [0.9], criterion=Magnitude(), metric="accuracy", progress=False)
    assert (found.parts, found.metric, found.better) == ("weights", "accuracy", "higher")
    assert [(row.name, row.size, row.kept) for row in found.rows][:2] == [("stem", 144, (15,)), ("branch", 576, (58,))]
    assert found.dense == np.mean(answers(model, data[0]).argmax(-1) == data[1])
    kernel = model.get_layer("classes").kernel
    whole = kernel.numpy()
    try:
        smallest = np.sort(np.abs(whole).ravel())[int(0.9 * whole.size)]
        kernel.assign(np.where(np.abs(whole) >= smallest, whole, 0))
        statistics = weights_of(model)
        tfprune.recalibrate(model, data[0])
        assert found.rows[-1].scores[0] == np.mean(answers(model, data[0]).argmax(-1) == data[1])
        model.set_weights(statistics)
    finally:
        kernel.assign(whole)
    with pytest.raises(ValueError, match="widths are numbers of channels"):
        found.widths(0.1)


def report(scores, better="lower"):
    rows = tuple(
        tfprune.measure.SensitivityRow(f"layer{index}", 8, (6, 4, 2), tuple(row)) for index, row in enumerate(scores)
    )
    return tfprune.measure.Sensitivity(
        "net", "channels", "loss", better, (0.25, 0.5, 0.75), 0.9, 1.0, 64, rows, {"classes": "model output"}
    )


def test_suggestions_by_hand():
    found = report([[1.0, 1.05, 1.3], [1.2, 1.0, 1.0], [0.5, 0.9, 1.1]])
    np.testing.assert_allclose(found.harm()[0], [0.0, 0.05, 0.3])
    assert found.suggest(0.1) == {"layer0": 0.5, "layer1": 0.0, "layer2": 0.5}  # no ratio behind one that is too bad
    assert found.suggest(10) == dict.fromkeys(("layer0", "layer1", "layer2"), 0.75)
    assert dict(found.widths(0.1)) == {"layer0": 4, "layer1": 8, "layer2": 4}
    assert report([[0.99, 0.8, 1.5]], "higher").suggest(0.05) == {"layer0": 0.25}
    assert report([[0.99, 1.02, 1.5]], "").suggest(0.05) == {"layer0": 0.5}  # whichever way it moves
    with pytest.raises(ValueError, match="max_harm must be a number of at least 0"):
        found.suggest(-1)


def test_table_and_pictures(tmp_path):
    found = report([[1.0, 1.05, float("nan")], [1.2, 1.0, 1.0]])
    assert "| layer0 |  | 8 | 1 | 1.05 | nan |" in found.to_markdown()
    assert "| classes | model output |  |  |  |  |" in found.to_markdown()
    assert "recalibrated 1" in str(found)
    assert json.loads(found.save(tmp_path / "found.json").read_text())["dense"] == 0.9
    pytest.importorskip("matplotlib")
    drawn = found.plot(tmp_path / "picture.svg").read_text()
    assert all(name in drawn for name in ("layer0", "layer1", "rise of the loss"))
    assert found.plot(tmp_path / "again.svg").read_text() == drawn
    with pytest.raises(ValueError, match=r"must end in one of \['.svg', '.png'\]"):
        found.plot(tmp_path / "picture.pdf")


@pytest.fixture
def small():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), L.Dense(6, name="one"), L.Dense(5, name="two"), L.Dense(3)])


def test_work_that_was_cut_off_goes_on(small, tmp_path, monkeypatch):
    x, path = np.eye(4, dtype="float32"), tmp_path / "kept"
    whole = sensitivity(small, x, [0.5], progress=False)
    writes = []

    def cut_off(path, content):
        if len(writes) == 2:  # the model as it is, and the first group
            raise KeyboardInterrupt
        writes.append(path)
        return write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(partial_results, "write_atomically", cut_off)
        with pytest.raises(KeyboardInterrupt):
            sensitivity(small, x, [0.5], storage=path, progress=False)
    assert list(json.loads((path / "sensitivity.json").read_text())["results"]) == ["(nothing pruned)", "one"]
    scored = []
    score = pruned_scores.Bench.score_without
    monkeypatch.setattr(
        pruned_scores.Bench, "score_without", lambda self, masks: scored.append(1) or score(self, masks)
    )
    assert sensitivity(small, x, [0.5], storage=path, progress=False) == whole
    assert len(scored) == 1


def test_results_of_something_else_are_refused(small, tmp_path):
    x, path = np.eye(4, dtype="float32"), tmp_path / "kept.json"
    sensitivity(small, x, [0.5], storage=path, progress=False)
    with pytest.raises(ValueError, match=r"results of something else. ratios: \[0.5\] there, \[0.25\] now. Choose"):
        sensitivity(small, x, [0.25], storage=path, progress=False)
    with pytest.raises(ValueError, match=r"something else\. criterion: 'l2_norm' there, 'l1_norm' now"):
        sensitivity(small, x, [0.5], criterion=l1_norm, storage=path, progress=False)
    with pytest.raises(ValueError, match=r"something else\. data: "):
        sensitivity(small, x + 1, [0.5], storage=path, progress=False)
    small.layers[0].kernel.assign(small.layers[0].kernel * 2)
    with pytest.raises(ValueError, match=r"something else\. model: "):
        sensitivity(small, x, [0.5], storage=path, progress=False)
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds something else than results that were kept"):
        sensitivity(small, x, [0.5], storage=path, progress=False)


def test_criteria_that_read_data(small):
    x, y = np.eye(4, dtype="float32"), np.arange(4) % 3
    small.compile("sgd", CROSS_ENTROPY)
    found = sensitivity(small, (x, y), [0.4], criterion=Taylor(), progress=False)
    gates = gather(small, (x, y), ["gate_gradient"], loss="compiled")
    pruned = tfprune.prune_channels(
        small, tfprune.Widths({"one": found.rows[0].kept[0]}), criterion=Taylor(), data=gates
    )
    assert found.rows[0].scores[0] == pytest.approx(loss(pruned, (x, y)), rel=1e-5)
    found = sensitivity(small, (x, y), [0.5], criterion=SNIP(), progress=False)
    tfprune.prune_weights(small, {small.layers[0]: 0.5}, criterion=SNIP(), data=(x, y))
    assert found.rows[0].scores[0] == pytest.approx(loss(small, (x, y)), rel=1e-5)


def test_what_is_refused(small):
    x = np.eye(4)
    for ratios in ([], [1.0], [0.0], [-0.5]):
        with pytest.raises(ValueError, match="ratios"):
            sensitivity(small, x, ratios, progress=False)
    with pytest.raises(ValueError, match=r"Nothing of 'one' can be pruned"):
        sensitivity(keras.Sequential([keras.Input((4,)), L.Dense(3)], name="one"), x, progress=False)
    with pytest.raises(ValueError, match="metric must be one of"):
        sensitivity(small, x, metric="acuracy", progress=False)
    with pytest.raises(ValueError, match="Expected one array of labels"):
        sensitivity(small, x, metric="accuracy", progress=False)
    with pytest.raises(ValueError, match="has no loss"):
        sensitivity(small, (x, np.arange(4) % 3), metric="loss", progress=False)
