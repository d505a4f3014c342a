"""What keeps a layer in float is not in the file, and the file computes what it did with it."""

import keras
import numpy as np
import pytest
from files import run, to_file

import tfprune
from tfprune.exporting.operators import count_operators
from tfprune.quantization import lowered, without_barriers
from tfprune.tflite.unpacking import TFLiteFile

L = keras.layers


def several_islands():
    """Two in a row, one whose output leaves the model, and one that several operators read."""
    inputs = keras.Input((6,))
    first = L.ELU()(L.Dense(4)(inputs))
    second = L.LayerNormalization()(L.Dense(4)(L.ELU(0.5)(first)))
    both = L.Add()([L.Dense(4)(first), L.Dense(4)(second)])
    return keras.Model(inputs, [both, second, L.ELU()(both)])


def test_casts_are_taken_out_and_nothing_else_changes():
    aware = tfprune.quantize_aware(several_islands())
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    aware(x, training=True)
    written = TFLiteFile(to_file(lowered(aware)))
    cleaned = without_barriers(written)
    before, after = ({(op.name, op.dtype): op.count for op in count_operators(file)} for file in (written, cleaned))
    casts = {key: count for key, count in before.items() if key[0] == "CAST"}
    assert sum(casts.values()) >= 8
    assert after == {key: count for key, count in before.items() if key not in casts}
    assert not any(tensor.type == 10 for graph in cleaned.model.subgraphs for tensor in graph.tensors)  # FLOAT64
    for expected, found in zip(run(written.content, [x]), run(cleaned.content, [x]), strict=True):
        assert np.array_equal(expected, found)


def test_a_file_without_casts_is_returned_as_it_is():
    aware = tfprune.quantize_aware(keras.Sequential([keras.Input((4,)), L.Dense(3)]))
    aware(np.ones((4, 4), "float32"), training=True)
    file = TFLiteFile(to_file(lowered(aware)))
    assert without_barriers(file) is file


@pytest.mark.sampled(1)
@pytest.mark.parametrize("excluded", ["first", "last"])
def test_no_operator_of_the_library_is_reported_as_the_users(excluded, tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), L.Conv2D(4, 3, name="first"), L.ReLU(), L.Flatten(), L.Dense(3, name="last")]
    )
    aware = tfprune.quantize_aware(model, exclude=[model.get_layer(excluded)])
    aware(np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32"), training=True)
    report = tfprune.export(aware, tmp_path / "model.tflite", quantize="int8")
    expected = {"first": "CONV_2D", "last": "FULLY_CONNECTED"}[excluded]
    assert [(op.name, op.count) for op in report.float_operators] == [(expected, 1)]
    assert report.float_operators[0].reason == f"{excluded}: left in float on request"
