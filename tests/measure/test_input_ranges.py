"""Inputs that are scaled otherwise than in training are told, others are not."""

import dataclasses

import keras
import numpy as np
import pytest
from networks import images

import tfprune
from tfprune.drivers.compression.fitness import warn_of_ranges
from tfprune.drivers.data import Data
from tfprune.measure import ComparedModel, Comparison, Latency
from tfprune.measure.comparison import slower_in_integers
from tfprune.measure.input_ranges import file_ranges, keras_ranges, misses
from tfprune.tflite.model import TFLiteModel

L = keras.layers
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype("float32")


def model_of(*first):
    return keras.Sequential(
        [keras.Input((8, 8, 3), name="image"), *first, L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(3)]
    )


def adapted():
    layer = L.Normalization()
    layer.adapt(PIXELS)
    return layer


def normalized():
    """A model whose first BatchNormalization has seen pixels."""
    model = model_of(L.BatchNormalization(name="first", momentum=0.5))
    for _ in range(8):
        model(PIXELS, training=True)
    return model


def aware(scale=1.0):
    model = tfprune.quantize_aware(model_of())
    model(PIXELS * scale, training=True)
    return model


def deep():
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Conv2D(4, 3), L.Flatten()])
    inputs = keras.Input((8, 8, 3), name="image")
    return keras.Model(inputs, L.Dense(3)(inner(L.RandomFlip()(inputs))))


FOR_PIXELS = {
    "rescaled": lambda: model_of(L.Rescaling(1 / 255)),
    "rescaled to -1": lambda: model_of(L.Rescaling(1 / 127.5, offset=-1)),
    "inside, behind augmentation": deep,
    "adapted": lambda: model_of(adapted()),
    "batch normalization": normalized,
    "quantize-aware": aware,
}


def notes(model, x):
    return misses(keras_ranges(model, ["image"]), {"image": x}, "it")


@pytest.mark.parametrize("name", FOR_PIXELS)
def test_models_for_pixels(name):
    model = FOR_PIXELS[name]()
    assert notes(model, PIXELS) == []
    for wrong in (PIXELS / 255, PIXELS / 127.5 - 1, PIXELS * 257):
        (note,) = notes(model, wrong)
        assert "'it' do not look as in its training: they go from" in note
        assert "Scale them as in training" in note
    assert notes(model, np.zeros_like(PIXELS)) == []  # nothing can be said of them
    assert notes(model, PIXELS[:1]) == []


@pytest.mark.parametrize(
    "first", [[], [L.Rescaling(2.0)], [L.Normalization(mean=0.0, variance=1.0)], [L.BatchNormalization()], [L.ReLU()]]
)
def test_models_that_tell_nothing(first):
    model = model_of(*first)
    if not isinstance(model.layers[0], L.Normalization):
        assert notes(model, PIXELS) == notes(model, PIXELS / 255) == []
    assert notes(model, PIXELS / 127.5 - 1) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("io_dtype", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("path", ["calibrated", "aware"])
def test_files_for_small_numbers(tmp_path, io_dtype, path):
    x, made = PIXELS / 255, aware(1 / 255) if path == "aware" else model_of()
    given = {} if path == "aware" else {"calibration": x}
    tfprune.export(made, tmp_path / "m.tflite", quantize="int8", io_dtype=io_dtype, **given)
    ranges = file_ranges(TFLiteModel(tmp_path / "m.tflite"))
    assert [float(each) for each in ranges["image"][:2]] == pytest.approx([0, 1], abs=0.02)
    assert misses(ranges, {"image": x}, "it") == []
    (note,) = misses(ranges, {"image": PIXELS}, "it")
    assert "they go from 0 to 255, and 'image' stores 0 to 1" in note


def test_a_comparison_says_it(tmp_path):
    made = model_of(L.Rescaling(1 / 255))
    tfprune.export(made, tmp_path / "m.tflite", quantize="int8", calibration=PIXELS)
    y = np.arange(20) % 3
    result = tfprune.compare({"model": made, "file": tmp_path / "m.tflite"}, (PIXELS / 255, y), runs=1)
    wrong = [note for note in result.notes if "training" in note]
    assert [note.split("'")[1] for note in wrong] == ["model", "file"]
    assert "do not look as in its training" in str(result).replace("\n", " ")
    assert [row.integers for row in result.models] == [None, "int8"]
    result = tfprune.compare([tmp_path / "m.tflite"], (PIXELS, y), runs=1)
    assert result.notes == ()


def row(name, ratio, macs, integers=None):
    latency = Latency(1, ratio, ratio, ratio, 0.9 * ratio, 1.1 * ratio)
    return ComparedModel(name, 0.9, 10, 9, macs, 2000, 1500, latency, latency, None, integers)


def test_a_file_that_is_slower_in_integers_is_named_with_what_it_is_slower_than():
    rows = [row("dense", 1.0, 100), row("pruned", 0.5, 50), row("int8", 0.8, 50, "int8")]
    (note,) = slower_in_integers(rows)
    assert "'int8' computes in int8 and is slower than 'pruned' in float" in note
    assert "1.60 times as long" in note
    assert note in Comparison(tuple(rows), "accuracy", 9, 5, (note,)).to_table().caption.plain
    assert slower_in_integers([row("dense", 1.0, 100), row("int8", 1.3, 40, "int8")])  # the first stands for it
    for others in (
        [row("pruned", 0.5, 50), row("int8", 0.55, 50, "int8")],  # within what varies
        [row("int8", 3.0, 100, "int8")],
        [row("int8", 1.0, 70, "int8"), row("float", 0.1, 50)],  # another network
        [row("float", 1.0, 70), row("other float", 9.0, 70)],
    ):
        assert slower_in_integers(others) == []


@pytest.mark.parametrize("wrong", ["data", "validation"])
def test_compress_warns_before_it_trains(wrong):
    made = model_of(L.Rescaling(1 / 255) if wrong == "data" else L.ReLU())
    small, y = (PIXELS / 255, np.arange(20) % 3), np.arange(20) % 3
    data = Data(small, small, split=False) if wrong == "data" else Data((PIXELS, y), small, split=False)
    with pytest.warns(UserWarning, match=made.name if wrong == "data" else "'validation' do not look as in its"):
        warn_of_ranges(made, data)
    warn_of_ranges(made, dataclasses.replace(data, training=(PIXELS, y), validation=(PIXELS[:7], y[:7])))


def test_other_inputs_are_left_alone():
    words = keras.Sequential([keras.Input((5,), dtype="int32"), L.Embedding(9, 4), L.Flatten(), L.Dense(3)])
    assert keras_ranges(words, ["words"]) == {}
    assert misses({}, {"image": images(4)[0]}, "it") == []


def test_one_sample_with_a_range_for_each_feature_says_nothing_of_how_much_is_filled():
    layer = L.Normalization()
    layer.adapt(np.array([[0.0, 100.0], [2.0, 300.0], [4.0, 200.0]]))
    ranges = keras_ranges(keras.Sequential([keras.Input((2,)), layer, L.Dense(2)]), ["x"])
    assert misses(ranges, {"x": np.array([[1.0, 150.0]])}, "it") == []
    assert misses(ranges, {"x": np.array([[1.0, 150.0]] * 9) + np.arange(9)[:, None]}, "it") == []
    assert misses(ranges, {"x": np.array([[100.0, 1.0]])}, "it") != []
