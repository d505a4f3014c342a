"""What holds for every kind of layer: the file computes what the model does, and both survive saving and stripping."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from files import aware_file, distance, float_operators, output_scales, run
from networks import outputs, outputs_without_tfprune, same, weights_of
from quantize_rows import IMAGE, ROWS, Row

import tfprune
from tfprune.exporting.convert import float32_twin
from tfprune.quantization.int8_rules import Kind
from tfprune.quantization.placement import Operators

DEFAULT = (
    *("separable", "dense-bn", "squeeze-hard", "scaled-sum", "several", "mixed", "dead-channels"),
    "conv1d-one-channel",
)
LOAD = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
import tfprune
for name in json.load(open("names.json")):
    model = keras.models.load_model(name + ".keras")
    inputs = keras.tree.pack_sequence_as(model.input, [*np.load(name + ".npz").values()])
    np.savez(name + ".out.npz", *[np.asarray(each) for each in keras.tree.flatten(model(inputs, training=False))])
"""


@dataclass
class Trained:
    """A row's model, made quantize-aware and trained for two steps, beside what it was before."""

    name: str
    row: Row
    model: keras.Model
    aware: keras.Model
    content: bytes
    unchanged: bool


def samples(model, row, count, seed):
    """Random inputs in the structure that the model takes; the first has only the smallest, the next the largest."""
    random = np.random.default_rng(seed)
    arrays = [random.uniform(row.low, row.high, (count, *t.shape[1:])).astype("float32") for t in model.inputs]
    for array in arrays:
        array[:2] = np.array([row.low, row.high]).reshape(2, *[1] * (array.ndim - 1))
    return arrays


def packed(model, arrays):
    return keras.tree.pack_sequence_as(model.input, arrays) if isinstance(model.input, (list, dict)) else arrays[0]


def fit(model, row, seed=0):
    x = packed(model, samples(model, row, 16, seed))
    random = np.random.default_rng(seed)
    y = keras.tree.map_structure(lambda each: random.normal(size=each.shape).astype("float32"), model(x))
    losses = keras.tree.map_structure(lambda each: "mse", model.output)
    # Two steps are made faster than traced; test_aware.py traces.
    model.compile(keras.optimizers.SGD(0.01), losses, run_eagerly=True)
    return model.fit(x, y, batch_size=8, verbose=0).history["loss"]


def trained_row(name):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    row = ROWS[name]
    model = row.make()
    before, config = weights_of(model), json.dumps(model.get_config(), default=str) if name != "subclassed" else ""
    aware = tfprune.quantize_aware(model, **row.options(model))
    fit(aware, row)
    unchanged = same(before, weights_of(model)) and not model.compiled
    unchanged = unchanged and config in ("", json.dumps(model.get_config(), default=str))
    return Trained(name, row, model, aware, aware_file(aware), unchanged)


@pytest.fixture(scope="module", params=[pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in ROWS])
def trained(request):
    return trained_row(request.param)


@pytest.mark.sampled(7)
@pytest.mark.parametrize("reference", [True, False], ids=["reference", "xnnpack"])
def test_the_file_computes_what_the_model_does(trained, reference):
    model, scales = float32_twin(trained.aware), output_scales(trained.content)
    inputs = samples(model, trained.row, 12, seed=7)
    expected = outputs(model, packed(model, inputs))
    found = run(trained.content, inputs, reference)
    # What lies in the middle between two steps may go to either, and the operators behind it pass that on.
    assert distance(expected, found, scales) <= 2.1
    means = [float(np.abs(a - b).mean()) / s for a, b, s in zip(expected, found, scales, strict=True) if s]
    assert max(means, default=0) < 0.5


def test_every_operator_is_integer_or_has_a_reason(trained):
    assert float_operators(trained.content) == set(trained.row.floats)
    found = {
        type(n.operation).__name__: r.reason for n, r in Operators.of(trained.aware).calls() if r.kind is Kind.FLOAT
    }
    assert set(found) == set(trained.row.reasons)
    assert all(trained.row.reasons[name] in reason for name, reason in found.items())


@pytest.mark.sampled(1)
def test_saved_models_compute_the_same_and_train_on(trained, tmp_path):
    trained.aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    x = packed(loaded, samples(loaded, trained.row, 8, seed=3))
    assert same(outputs(trained.aware, x), outputs(loaded, x))
    assert all(np.isfinite(loss) for loss in fit(loaded, trained.row, seed=1))


@pytest.mark.sampled(5)
def test_stripped_models_compute_what_the_model_did(trained):
    model = trained.model
    plain = tfprune.strip(tfprune.quantize_aware(model, **trained.row.options(model)))
    assert not any(type(layer).__module__.startswith("tfprune") for layer in plain.layers)
    x = packed(plain, samples(plain, trained.row, 8, seed=3))
    tolerance = 2e-3 if trained.name == "mixed" else 1e-5
    for before, after in zip(outputs(model, x), outputs(plain, x), strict=True):
        np.testing.assert_allclose(before, after, rtol=tolerance, atol=tolerance)


def test_the_model_is_not_changed(trained):
    assert trained.unchanged


def save_rows(names, folder):
    expected: dict[str, Any] = {}
    for name in names:
        row = trained_row(name)
        inputs = samples(row.aware, row.row, 4, seed=3)
        row.aware.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", *inputs)
        expected[name] = outputs(row.aware, packed(row.aware, inputs))
    (folder / "names.json").write_text(json.dumps(list(names)))
    return expected


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("several", "exclude-attention"), marks=pytest.mark.slow),
        pytest.param([n for n in ROWS if "custom" not in n], marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_models_load_where_only_tfprune_was_imported(names, tmp_path):
    expected = save_rows(names, tmp_path)
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, arrays in expected.items():
        assert same(arrays, [*np.load(tmp_path / f"{name}.out.npz").values()]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("separable", "squeeze-hard"),
        pytest.param([n for n in ROWS if "custom" not in n], marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_stripped_models_load_without_tfprune(names, tmp_path):
    expected = {}
    x = np.random.default_rng(0).uniform(-2, 2, (4, *IMAGE)).astype("float32")
    for name in names:
        row = trained_row(name)
        if (
            isinstance(row.model.inputs, list)
            and row.model.inputs[0].shape[1:] == IMAGE
            and len(row.aware.outputs) == 1
        ):
            plain = tfprune.strip(row.aware)
            plain.save(tmp_path / f"{name}.keras")
            expected[name] = [plain.predict(x, verbose=0)]
    found = outputs_without_tfprune(tmp_path, expected, x)
    assert [name for name in expected if not same(expected[name], found[name])] == []
