"""Keras finds losses, metrics, weights and labels by the names of outputs: copies that round keep them."""

import keras
import numpy as np
import pytest
from keras import ops

import tfprune
from tfprune.tflite.model import TFLiteModel

L = keras.layers


def head(x):
    steps = [L.Dense(4, "relu"), L.Dense(2, "softmax", name="inside")]
    return keras.Sequential([keras.Input((8,)), *steps], name="head")(x)


def joined(x):
    parts = [L.Dense(2, name="left")(x), L.Dense(2, name="right")(x)]  # one range for all three outputs
    return [L.Concatenate(name="both")(parts), *parts]


ENDS = {
    "Dense": lambda x: L.Dense(3, name="scores")(x),
    "activation": lambda x: L.Dense(3, "softmax", name="scores")(x),
    "two steps": lambda x: L.Dense(3, "silu", name="scores")(x),
    "three steps": lambda x: L.Dense(3, "hard_sigmoid", name="scores")(x),
    "normalization": lambda x: L.BatchNormalization(name="normed")(L.Dense(3)(x)),
    "addition": lambda x: L.Add(name="sum")([x, L.Dense(8)(x)]),
    "operation": lambda x: ops.softmax(x + L.Dense(8)(x)),
    "layout": lambda x: L.Reshape((4, 2), name="boxes")(x),
    "nothing": lambda x: L.Dropout(0.1, name="dropped")(x),
    "float": lambda x: L.ELU(name="elu")(L.Dense(3)(x)),
    "Lambda": lambda x: L.Lambda(lambda x: x * 2, output_shape=(8,), name="twice")(x),
    "model": head,
    "one range": joined,
    "inside": lambda x: [x, L.Dense(3, name="end")(x)],
    "list": lambda x: [L.Dense(2, "sigmoid", name="b")(x), L.Dense(3, name="a")(x)],
    "dict": lambda x: {"k": L.Dense(2, name="a")(x), "j": L.Dense(3, "sigmoid", name="b")(x)},
}
FITTED = ("activation", "operation", "one range", "dict")


def ending(name):
    inputs = keras.Input((8,), name="größe in cm")
    return keras.Model(inputs, ENDS[name](L.Dense(8, "relu", name="hidden")(inputs)))


def compiled(model):
    """The model, compiled with losses, metrics and weights by name, and labels for 16 samples."""
    names = sorted(model.output) if isinstance(model.output, dict) else model.output_names
    model.compile(
        "sgd",
        dict.fromkeys(names, "mse"),
        metrics={name: ["mae"] for name in names},
        loss_weights=dict.fromkeys(names, 0.5),
        run_eagerly=True,  # fits of one step
    )
    return model, dict(zip(names, [np.zeros((16, *each.shape[1:])) for each in model.outputs], strict=True))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ENDS)
def test_every_output_keeps_its_name(name, tmp_path):
    model = ending(name)
    aware = tfprune.quantize_aware(model)
    assert aware.output_names == model.output_names
    assert tfprune.strip(aware).output_names == model.output_names
    aware.save(tmp_path / "aware.keras")
    loaded = keras.saving.load_model(tmp_path / "aware.keras", safe_mode=False)
    assert loaded.output_names == model.output_names
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    for ours, theirs in zip(keras.tree.flatten(loaded(x)), keras.tree.flatten(aware(x)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FITTED else pytest.mark.slow) for n in ENDS])
def test_losses_metrics_and_labels_by_name_go_on_working(name, tmp_path):
    model, y = compiled(ending(name))
    y = y if isinstance(model.output, dict) or len(y) > 1 else next(iter(y.values()))
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    logs = model.fit(x, y, verbose=0).history
    aware = tfprune.quantize_aware(model)
    assert set(aware.fit(x, y, verbose=0).history) == set(logs)
    assert set(tfprune.strip(aware).fit(x, y, verbose=0).history) == set(logs)
    report = tfprune.export(aware, tmp_path / "model.tflite", quantize="int8", calibration={"größe in cm": x})
    names = sorted(model.output) if isinstance(model.output, dict) else model.output_names
    if name not in ("operation", "inside"):  # one has a name of Keras' own making
        assert [each.name for each in report.outputs] == names
    assert [each.name for each in TFLiteModel(tmp_path / "model.tflite").inputs] == ["gr__e_in_cm"]


def test_layers_keep_their_names_where_they_can():
    aware = tfprune.quantize_aware(ending("activation"))
    assert [layer.name for layer in aware.layers if layer.name.startswith("quantize_")] == [
        "quantize_hidden",
        "quantize_scores",
    ]
    names = [layer.name for layer in tfprune.strip(aware).layers]
    assert names[1:] == ["hidden", "hidden_relu", "scores_1", "scores"]  # the output is what the activation makes


def test_weights_that_were_saved_by_other_names_load(tmp_path):
    """Keras saves weights by class and position."""
    first, second = (tfprune.quantize_aware(ending("activation")) for _ in range(2))
    for layer in first.layers:
        layer.name = f"old_{layer.name}"
    first.save_weights(tmp_path / "aware.weights.h5")
    second.load_weights(tmp_path / "aware.weights.h5")
    for ours, theirs in zip(second.weights, first.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
