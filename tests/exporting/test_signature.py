import keras
import numpy as np
import pytest

import tfprune
from tfprune.exporting import export
from tfprune.tflite.model import TFLiteModel

L = keras.layers


def one(name=None):
    return keras.Sequential([keras.Input((3,), name="x"), L.Dense(2, name=name)])


def several(*names):
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, [L.Dense(size, name=name)(inputs) for size, name in enumerate(names, start=1)])


@pytest.mark.sampled(2)
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


def structured(outputs):
    """A model whose outputs have this structure, each with a size of its own."""
    inputs = {"b in": keras.Input((3,), name="b in"), "ä": keras.Input((2,), name="ä")}
    hidden = L.Concatenate()(list(inputs.values()))
    sizes = iter(range(1, 20))
    return keras.Model(inputs, keras.tree.map_structure(lambda _: L.Dense(next(sizes))(hidden), outputs))


STRUCTURES = {
    "against the alphabet": ({"b": 0, "a": 0}, ["a", "b"]),
    "numbered": ({"head_10": 0, "head_2": 0, "head_1": 0}, ["head_1", "head_10", "head_2"]),
    "the converter's own": ({"output_1": 0, "output_0": 0, "output_10": 0}, ["output_0", "output_1", "output_10"]),
    "any text": ({"": 0, "2nd": 0, "größe/cm": 0, "a b": 0, "a-b": 0}, ["", "2nd", "a b", "a-b", "größe/cm"]),
    "nested": ({"head": {"box": 0, "cls": [0, 0]}, "aux": 0}, ["aux", "head_box", "head_cls_0", "head_cls_1"]),
    "in a list": ([{"x": 0}, {"x": 0}, 0], ["output_0_x", "output_1_x", "output_2"]),
    "the same when joined": ({"a": {"b": 0}, "a_b": 0}, ["output_0", "output_1"]),
    "one": ({"only": 0}, ["only"]),
}
QUICK = ("any text", "nested", "in a list")


def check_by_name(model, path, names, atol, **options):
    rng = np.random.default_rng(0)
    x = {"b in": rng.normal(size=(40, 3)).astype("float32"), "ä": rng.normal(size=(40, 2)).astype("float32")}
    report = export(model, path, calibration=x, **options)
    assert [error.name for error in report.outputs] == names
    loaded = TFLiteModel(path)
    assert [details.name for details in loaded.outputs] == names
    found = loaded.predict_by_name({"b_in": x["b in"], "input__": x["ä"]})
    for name, expected in zip(names, keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_allclose(found[name], expected, atol=atol)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in STRUCTURES])
def test_keys_of_dicts_are_the_names(tmp_path, name):
    outputs, names = STRUCTURES[name]
    check_by_name(structured(outputs), tmp_path / "model.tflite", names, 1e-4)


SOME = ("int8", "int8_weights")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "quantize",
    [
        pytest.param(mode, marks=() if mode in SOME else pytest.mark.slow)
        for mode in ("float16", "dynamic", "int8", "int16x8", "int8_weights", "int4_weights")
    ],
)
def test_keys_of_dicts_are_the_names_in_every_mode(tmp_path, quantize):
    model = structured({"cls": 0, "box": 0, "obj": 0})
    check_by_name(model, tmp_path / "model.tflite", ["box", "cls", "obj"], 0.5, quantize=quantize)


def test_keys_of_dicts_are_the_names_of_quantize_aware_models(tmp_path):
    aware = tfprune.quantize_aware(structured({"cls": 0, "head": {"z": 0, "a": 0}}))
    x = {"b in": np.ones((8, 3)), "ä": np.ones((8, 2))}
    aware.compile("sgd", "mse", run_eagerly=True)
    aware.fit(x, keras.tree.map_structure(lambda each: np.zeros(each.shape), aware(x)), verbose=0)
    check_by_name(aware, tmp_path / "model.tflite", ["cls", "head_a", "head_z"], 0.1, quantize="int8")


def test_tensors_that_are_two_outputs(tmp_path):
    inputs = keras.Input((3,), name="in")  # a word of Python's
    hidden = L.Dense(4)(inputs)
    model = keras.Model(inputs, {"first": hidden, "again": hidden, "input": inputs})
    export(model, tmp_path / "model.tflite")
    loaded, x = TFLiteModel(tmp_path / "model.tflite"), np.ones((2, 3), "float32")
    assert [details.name for details in loaded.inputs] == ["input_in"]
    found = loaded.predict_by_name(x)
    np.testing.assert_array_equal(found["first"], found["again"])
    np.testing.assert_array_equal(found["input"], x)


def test_a_chain_that_ends_in_a_dict(tmp_path):
    inputs = keras.Input((4,))
    heads = keras.Model(inputs, {"b": L.Dense(2)(inputs), "a": L.Dense(3)(inputs)})
    model = keras.Sequential([keras.Input((3,)), L.Dense(4), heads])
    assert [error.name for error in export(model, tmp_path / "model.tflite").outputs] == ["a", "b"]
    assert set(tfprune.quantize_aware(model).output) == {"a", "b"}
