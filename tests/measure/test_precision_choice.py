"""Layers that get more bits, by measured error and bytes."""

from itertools import product

import keras
import numpy as np
import pytest

import tfprune
from tfprune import ExportOptions, choose_precisions, export
from tfprune.exporting.calibration import gather_samples
from tfprune.measure import precision_choice
from tfprune.measure.trial_files import TrialFiles

L = keras.layers


@pytest.fixture(scope="module")
def net():
    """A layer whose weights differ in size within each channel, so that few bits ruin it, between others."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4), name="image")
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(inputs)
    x = L.GlobalAveragePooling2D(name="pool")(L.Conv2D(32, 3, activation="relu", name="conv")(x))
    x = L.Dense(32, activation="tanh", name="uneven")(x)
    model = keras.Model(inputs, L.Dense(8, name="last")(x), name="net")
    kernel = np.random.default_rng(0).normal(size=(32, 32)).astype("float32")
    kernel[0] *= 40
    model.get_layer("uneven").kernel.assign(kernel)
    return model


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(40, 8, 8, 4)).astype("float32")


@pytest.fixture(scope="module")
def made(net, x):
    """The files of each mode, converted once."""
    samples = gather_samples(x, net, 40)
    modes = (("int8", "float32"), ("int4_weights", "float32"))
    return {mode: TrialFiles(net, samples, mode, dtype, None, 16) for mode, dtype in modes}


@pytest.fixture
def choose(net, x, made, monkeypatch):
    """The function, without the conversion."""
    monkeypatch.setattr(precision_choice, "TrialFiles", lambda model, samples, mode, *_: made[mode])
    return lambda mode, **limits: choose_precisions(net, x, quantize=mode, io_dtype="float32", **limits)


@pytest.fixture(scope="module")
def everything(made):
    """All choices of levels with what they measure, by brute force."""
    levels = made["int4_weights"].levels
    every = [dict(zip(levels, chosen, strict=True)) for chosen in product(*levels.values())]
    return [(chosen, made["int4_weights"].measure(chosen)) for chosen in every]


@pytest.mark.parametrize("max_error", [0.05, 0.01])
def test_file_is_exact_enough_and_about_as_small_as_any_that_is(choose, everything, max_error):
    choice = choose("int4_weights", max_error=max_error)
    assert choice.error <= max_error < choice.most_error
    smallest = min(trial.num_bytes for _, trial in everything if trial.error <= max_error)
    assert smallest <= choice.file_bytes <= 1.1 * smallest
    chosen = {row.layer: row.precision for row in choice.layers}
    assert chosen["depthwise"] == "float32"  # so few weights take less than their scales would
    assert (choice.error, choice.file_bytes) in [trial for each, trial in everything if each == chosen]


def test_budget_is_kept_and_used(choose, everything):
    sizes = sorted(trial.num_bytes for _, trial in everything)
    budget = sizes[len(sizes) // 2]
    choice = choose("int4_weights", max_bytes=budget)
    assert choice.file_bytes <= budget
    best = min(trial.error for _, trial in everything if trial.num_bytes <= budget)
    assert choice.error <= 1.5 * best < choice.most_error
    assert choice.least_bytes == min(sizes)
    with pytest.raises(ValueError, match=rf"smallest file has {min(sizes):,} bytes, and max_bytes is"):
        choose("int4_weights", max_bytes=min(sizes) - 1)


def test_layers_of_an_int8_file_stay_in_float(choose, net):
    most = choose("int8", max_error=1.0)
    assert {row.precision for row in most.layers if row.saved_bytes > 0} == {"int8"}
    choice = choose("int8", max_error=0.8 * most.error)
    assert choice.least_bytes == most.file_bytes < choice.file_bytes
    kept = [row.layer for row in choice.layers if row.precision == "float32"]
    assert len(kept) < len(choice.layers)
    assert [layer.name for layer in choice.precisions(net).exclude] == kept
    assert "Precisions of net" in str(choice)
    with pytest.raises(ValueError, match=r"No choice of layers brings the error below 1e-09: .* leave its outputs"):
        choose("int8", max_error=1e-9)


def test_export_writes_the_file_that_was_chosen(choose, net, x, tmp_path):
    for mode, limit in (("int4_weights", 0.05), ("int8", 0.01)):
        choice = choose(mode, max_error=limit)
        options = ExportOptions(precisions=choice.precisions(net))
        path = tmp_path / f"{mode}.tflite"
        report = export(net, path, quantize=mode, calibration=x, io_dtype="float32", options=options)
        assert report.file_bytes == choice.file_bytes
        assert report.outputs[0].relative_rms_error == pytest.approx(choice.error, rel=0.3)


def test_blocks_go_where_they_fit(net, x):
    files = TrialFiles(net, gather_samples(x, net, 8), "int4_weights", "float32", 32, 8)
    assert files.levels["conv"] == ("int8_weights", "float32")  # 3 x 3 x 4 weights for each channel
    assert files.levels["uneven"][0] == "int4_weights"
    precisions = files.precisions({name: levels[0] for name, levels in files.levels.items()})
    assert precisions.block_size == 32
    assert {layer.name for layer in precisions.overrides} == {"conv", "depthwise"}  # which has no form in 4 bits


def test_recurrent_layers_and_several_outputs_have_rows_too():
    inputs = keras.Input((3, 4), name="steps")
    x = L.LSTM(16, unroll=True, name="lstm")(inputs)
    model = keras.Model(inputs, [L.Dense(32, name="a")(x), L.Dense(3, name="b")(x)])
    data = np.random.default_rng(0).normal(size=(8, 3, 4))
    choice = choose_precisions(model, data, quantize="int8_weights", max_error=0.05)
    assert {row.layer for row in choice.layers} == {"lstm_cell", "a", "b"}
    assert choice.error <= 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Pass max_error, max_bytes, or both"),
        ({"max_error": 0.0}, "max_error must be above 0. Received: 0.0"),
        ({"max_bytes": -1}, "max_bytes must be above 0"),
        ({"max_error": 0.1, "quantize": "dynamic"}, "quantize must be one of .*no others mix. Received: 'dynamic'"),
        ({"max_error": 0.1, "block_size": 32}, "block_size is for quantize='int4_weights'"),
        ({"max_error": 0.1, "io_dtype": "int16"}, "io_dtype='int16'"),
    ],
)
def test_bad_arguments_are_refused_before_conversion(net, x, monkeypatch, arguments, message):
    monkeypatch.setattr(precision_choice, "TrialFiles", lambda *_: pytest.fail("converted something"))
    with pytest.raises(ValueError, match=message):
        choose_precisions(net, x, **arguments)


def test_quantize_aware_models_are_refused(x):
    aware = tfprune.quantize_aware(keras.Sequential([keras.Input((4,)), L.Dense(2)]))
    with pytest.raises(ValueError, match="has learned which numbers it rounds"):
        choose_precisions(aware, x, max_error=0.1)
