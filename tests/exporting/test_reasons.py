import keras
import numpy as np
import pytest

from tfprune.exporting import export
from tfprune.exporting.reasons import float_operators
from tfprune.tflite.unpacking import TFLiteFile, pack, unpack

IMAGES = np.random.default_rng(0).random((20, 8, 8, 3)).astype(np.float32)


def reasons(tmp_path, quantize, *layers):
    model = keras.Sequential([keras.Input((8, 8, 3), name="image"), keras.layers.Conv2D(4, 1), *layers])
    report = export(model, tmp_path / "model.tflite", quantize=quantize, calibration=IMAGES)
    return {operator.name: operator.reason for operator in report.float_operators}, report


def test_operators_without_an_integer_form_are_named(tmp_path):
    found, report = reasons(tmp_path, "int8", keras.layers.ELU())
    assert found == {"ELU": "TensorFlow's converter has no int8 form of it"}
    assert "in float: 1 ELU" in str(report)
    saved = {"name": "ELU", "count": 1, "reason": "TensorFlow's converter has no int8 form of it"}
    assert report.to_dict()["float_operators"] == (saved,)


def test_int16_has_fewer_forms_and_io_dtypes_are_no_reason(tmp_path):
    found, report = reasons(tmp_path, "int16x8", keras.layers.Activation("hard_swish"))
    assert found == {"HARD_SWISH": "TensorFlow's converter has no int16 form of it"}
    assert {"QUANTIZE", "DEQUANTIZE"} <= {operator.name for operator in report.operators}


def test_small_kernels_of_dynamic_files_are_named(tmp_path):
    found, _ = reasons(tmp_path, "dynamic", keras.layers.Conv2D(64, 3), keras.layers.Activation("tanh"))
    assert found == {"CONV_2D": "its kernel has fewer than 1024 weights, too few to be worth it to the converter"}


def test_a_file_in_float_is_explained_from_its_first_operator_on(tmp_path):
    """Read as if it should be int8: the graph alone tells what follows what, and what is read or used by nothing."""
    reasons(tmp_path, None, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2))
    file = unpack((tmp_path / "model.tflite").read_bytes())
    convolution, _, last = file.subgraphs[0].operators
    found = {operator.name: operator.reason for operator in float_operators(TFLiteFile(pack(file)), "int8")}
    assert found == {
        "CONV_2D": "TensorFlow's converter has no int8 form of it",
        "MEAN": "it follows CONV_2D, which stays in float",
        "FULLY_CONNECTED": "it follows MEAN, which stays in float",
    }
    convolution.inputs = convolution.inputs[1:]  # its kernel and bias
    last.inputs, last.outputs = [0, *last.inputs[1:]], [0, last.outputs[0]]
    last.outputs[0] = _add_tensor_that_nothing_reads(file)
    found = {operator.name: operator.reason for operator in float_operators(TFLiteFile(pack(file)), "int8")}
    assert found["CONV_2D"] == "it reads nothing but constants, which the converter quantizes only behind it"
    assert found["FULLY_CONNECTED"] == "one of its results is used by nothing, so that no range was measured for it"


def _add_tensor_that_nothing_reads(file):
    tensors = file.subgraphs[0].tensors
    tensors.append(tensors[file.subgraphs[0].outputs[0]])
    return len(tensors) - 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("quantize", [None, "float16", "int8_weights"])
def test_modes_that_compute_in_float_need_no_reason(tmp_path, quantize):
    found, report = reasons(tmp_path, quantize, keras.layers.ELU())
    assert found == {}
    assert "left in float" not in str(report)
