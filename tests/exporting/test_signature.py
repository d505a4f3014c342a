import keras
import numpy as np
import pytest

from tfprune.exporting import export
from tfprune.tflite.model import TFLiteModel

L = keras.layers


def one(name=None):
    return keras.Sequential([keras.Input((3,), name="x"), L.Dense(2, name=name)])


def several(*names):
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, [L.Dense(size, name=name)(inputs) for size, name in enumerate(names, start=1)])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("model", "names"),
    [
        (one("logits"), ["logits"]),
        (one("my.scores-2b"), ["my_scores_2b"]),
        (one(), ["output_0"]),
        (one("dense_7"), ["output_0"]),  # a name that Keras could have made up
        (several("zebra", "ant", "mule"), ["zebra", "ant", "mule"]),  # the model's order, not the alphabet's
        (several("zebra", None), ["output_0", "output_1"]),
        (several("head_2", "head_1"), ["output_0", "output_1"]),  # would be sorted by number
        (several("a.b", "a-b"), ["output_0", "output_1"]),
    ],
)
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_outputs_have_the_names_of_the_layers_in_the_models_order(tmp_path, model, names, quantize):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    report = export(model, tmp_path / "model.tflite", quantize=quantize, calibration=x)
    assert [error.name for error in report.outputs] == names
    loaded = TFLiteModel(tmp_path / "model.tflite")
    assert [details.name for details in loaded.outputs] == names
    outputs = loaded.predict(x)
    expected = keras.tree.flatten(model(x))
    for ours, theirs in zip(outputs if len(names) > 1 else [outputs], expected, strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-5 if quantize is None else 0.2)


def test_automatic_names_are_those_that_keras_makes():
    """Names are told apart by how Keras makes them from a class; this fails when it does so differently."""
    from tfprune.exporting.signature import _is_automatic

    layers = [L.Dense(1), L.Conv2D(1, 1), L.LSTM(1), L.PReLU(), L.RMSNormalization(), L.UpSampling2D(), L.ReLU()]
    layers += [
        L.Dense(1),
        L.GlobalAveragePooling2D(),
        keras.Sequential([]),
        keras.Model(inputs := keras.Input((1,)), inputs),
    ]
    assert all(_is_automatic(layer.name, layer) for layer in layers)
    assert not _is_automatic("dense_scores", L.Dense(1))
