import re

import keras
import numpy as np
import pytest

from tfprune.exporting import export
from tfprune.tflite.model import TensorDetails, TFLiteModel

DATA = np.random.default_rng(0).uniform(-1, 1, (64, 2)).astype(np.float32)
DATA[0], DATA[1] = -1, 1  # the ends of the range: scale 2/255, zero point -1


@pytest.fixture(scope="module")
def model():
    """y = (a + 0.5, -b): the outputs are in [-1, 1.5], so their scale is 2.5/255 and their zero point -26."""
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((2,)), dense])
    dense.set_weights([np.array([[1, 0], [0, -1]], np.float32), np.array([0.5, 0], np.float32)])
    return model


@pytest.fixture(scope="module")
def float_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "float.tflite"
    export(model, path)
    return path


@pytest.fixture(scope="module", params=["int8", "uint8"])
def integer_file(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "integer.tflite"
    export(model, path, quantize="int8", calibration=DATA, io_dtype=request.param)
    return path


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """Inputs named against the alphabet, and eleven outputs: y_i = left + 10 * right + i."""
    left, right = keras.Input((1,), name="b_left"), keras.Input((1,), name="a_right")
    outputs = [left + 10.0 * right + float(i) for i in range(11)]
    path = tmp_path_factory.mktemp("files") / "two.tflite"
    export(keras.Model([left, right], outputs), path)
    return TFLiteModel(path)


def test_quantizes_with_ties_to_even_and_clips():
    details = TensorDetails("x", (1, 5), np.dtype(np.int8), scale=0.5, zero_point=-1, index=0)
    values = np.array([0.25, 0.75, -0.75, 100.0, -100.0])  # 0.5, 1.5, -1.5, 200, -200 steps
    np.testing.assert_array_equal(details.quantize(values), np.array([-1, 1, -3, 127, -128], np.int8))
    np.testing.assert_array_equal(details.dequantize(np.array([-1, 1, 127], np.int8)), np.float32([0, 1, 64]))


def test_a_tensor_without_a_scale_takes_its_own_kind_only():
    words = TensorDetails("words", (1, 2), np.dtype(np.int32), scale=0.0, zero_point=0, index=0)
    assert words.quantize(np.array([1, 2], np.int64)).dtype == np.int32
    with pytest.raises(ValueError, match=r"Input 'words' is int32\. Received: float64\. Convert it first"):
        words.quantize(np.array([1.5, 2.5]))
    np.testing.assert_array_equal(words.dequantize(np.array([3], np.int32)), [3])


def test_float_file_gives_known_outputs_for_any_number_of_samples(float_file):
    loaded = TFLiteModel(float_file)
    for num_samples in (0, 1, 5):
        x = DATA[:num_samples]
        y = loaded.predict(x)
        assert y.shape == (num_samples, 2)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, np.stack([x[:, 0] + 0.5, -x[:, 1]], axis=1), atol=1e-6)


def test_takes_float64_and_lists(float_file):
    assert TFLiteModel(float_file.read_bytes()).predict([[0.25, 0.5]]).tolist() == [[0.75, -0.5]]


def test_integer_file_details_and_outputs_match_the_hand_computed(integer_file):
    loaded = TFLiteModel(integer_file)
    shift = 128 if loaded.inputs[0].dtype == np.uint8 else 0
    assert loaded.inputs[0].shape == (1, 2)
    assert loaded.inputs[0].scale == pytest.approx(2 / 255, rel=1e-4)
    assert loaded.inputs[0].zero_point == shift - 1
    assert loaded.outputs[0].scale == pytest.approx(2.5 / 255, rel=1e-4)
    assert loaded.outputs[0].zero_point == shift - 26
    # a = 0.5 is 63.75 -> 64 steps: 0.50196 + 0.5 = 102.2 -> 102 output steps; b = -1 is -127.5 -> 102 steps of 2.5/255
    np.testing.assert_allclose(loaded.predict(np.array([[0.5, -1.0]])), [[102 * 2.5 / 255] * 2], rtol=1e-4)


def test_arrays_of_the_stored_dtype_are_taken_as_they_are(integer_file):
    loaded = TFLiteModel(integer_file)
    stored = loaded.inputs[0].quantize(DATA)
    assert stored.dtype == loaded.inputs[0].dtype
    np.testing.assert_array_equal(loaded.predict(stored), loaded.predict(DATA))


def test_several_inputs_by_name_or_in_the_files_order_and_outputs_in_number_order(two_inputs):
    assert [details.name for details in two_inputs.inputs] == ["a_right", "b_left"]
    left, right = np.array([[1.0], [2.0]], np.float32), np.array([[3.0], [4.0]], np.float32)
    by_name = two_inputs.predict({"b_left": left, "a_right": right})
    by_order = two_inputs.predict([right, left])
    assert [outputs.ravel().tolist() for outputs in by_name] == [[31.0 + i, 42.0 + i] for i in range(11)]
    np.testing.assert_array_equal(np.stack(by_order), np.stack(by_name))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"left": DATA, "right": DATA}, r"dict with the inputs \['a_right', 'b_left'\]"),
        (DATA[:, :1], "Pass a dict by name, or a list"),
        ([DATA[:2, :1], DATA[:3, :1]], r"differ in their number of samples: \[2, 3\]"),
        ([DATA, DATA], r"shape \(samples, 1\). Received: \(64, 2\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(two_inputs, inputs, message):
    with pytest.raises(ValueError, match=message):
        two_inputs.predict(inputs)


def test_set_inputs_takes_one_sample(float_file):
    with pytest.raises(ValueError, match=r"Expected one sample\. Received: 2"):
        TFLiteModel(float_file).set_inputs(DATA[:2])


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file at"):
        TFLiteModel(tmp_path / "missing.tflite")
    for content in (b"", b"TFL3", b"PK\x03\x04 a zip archive"):
        (tmp_path / "foreign.tflite").write_bytes(content)
        with pytest.raises(ValueError, match=r"Expected a \.tflite file.*foreign"):
            TFLiteModel(tmp_path / "foreign.tflite")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_truncated_files_are_refused(float_file, tmp_path, share):
    content = float_file.read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=re.escape(f"{str(cut)!r} of {len(cut.read_bytes())} bytes is cut short")):
        TFLiteModel(cut)


def test_num_threads_must_be_positive(float_file):
    with pytest.raises(ValueError, match="num_threads must be 1 or more"):
        TFLiteModel(float_file, num_threads=0)
