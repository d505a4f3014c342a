import numpy as np
import pytest

from tfprune.exporting.convert import to_tflite
from tfprune.exporting.inputs import random_samples
from tfprune.exporting.verify import ExportMismatchError, compare, verify


def test_differences_of_hand_made_arrays():
    expected = np.array([[0.0, 2.0], [4.0, 2.0]])  # mean 2, std sqrt(2), rms sqrt(6)
    actual = np.array([[0.5, 2.0], [4.0, 5.0]])
    error = compare(expected, actual, tolerance=0.1, lsb=0.25, name="y")
    assert error.name == "y"
    assert error.max_abs_error == 3.0
    assert error.mean_abs_error == 3.5 / 4
    assert error.rms_error == pytest.approx(np.sqrt(9.25 / 4))
    assert error.relative_rms_error == pytest.approx(np.sqrt(9.25 / 4) / np.sqrt(2))
    assert error.max_error_lsb == 12.0
    assert error.top1_agreement == 0.5
    assert error.allowed_rms_error == pytest.approx(0.1 * np.sqrt(6))  # the smaller of the two terms


def test_float_outputs_have_no_lsb_and_single_columns_no_top1():
    error = compare(np.array([[1.0], [2.0]]), np.array([[1.0], [2.0]]), tolerance=0.1)
    assert error.max_error_lsb is None
    assert error.top1_agreement is None
    assert error.relative_rms_error == 0.0


def passes(expected, actual, tolerance=0.25, **steps):
    error = compare(np.array(expected), np.array(actual), tolerance, **steps)
    return error.rms_error <= error.allowed_rms_error


def test_one_step_is_free_where_outputs_hardly_vary():
    """An untrained softmax: 0.1 everywhere, and int8 steps of 1/256."""
    assert passes([[0.1001, 0.0999]], [[0.1016, 0.1016]], lsb=1 / 256)
    assert not passes([[0.1001, 0.0999]], [[0.1016, 0.1016]])


def test_a_file_that_ignores_its_input_fails_in_spite_of_a_large_mean():
    assert not passes([[40.0], [45.0], [35.0]], [[40.0], [40.0], [40.0]], lsb=0.2)


def test_a_step_as_large_as_the_outputs_is_no_excuse():
    assert not passes([[1.0, -1.0]], [[0.0, 0.0]], lsb=8.0)


def test_nan_of_the_file_fails_and_nan_of_the_model_is_its_own_error():
    assert not passes([[1.0, 2.0]], [[1.0, np.nan]])
    with pytest.raises(ValueError, match="The Keras model's output 'output_0' has NaN"):
        compare(np.array([[1.0, np.nan]]), np.array([[1.0, 2.0]]), tolerance=0.1)


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_constant_outputs_pass_if_equal(constant):
    expected = np.full((4, 2), constant)
    assert compare(expected, expected, tolerance=0.1).relative_rms_error == 0.0
    assert passes(expected, expected)
    assert not passes(expected, expected + 1.0, lsb=0.5)


def test_a_constant_output_is_measured_against_its_size():
    assert compare(np.full((4, 2), 2.0), np.full((4, 2), 3.0), tolerance=0.1).relative_rms_error == 0.5


def test_other_shapes_fail():
    with pytest.raises(ExportMismatchError, match=r"Keras gives shape \(1, 2\), the file \(1, 3\)"):
        compare(np.zeros((1, 2)), np.zeros((1, 3)), tolerance=0.1)


def test_a_file_of_other_weights_fails_and_its_own_passes(net, other_net):
    file, samples = to_tflite(net, None, None, "float32"), random_samples(net)
    (error,) = verify(file, net, samples, tolerance=1e-4)
    assert error.relative_rms_error < 1e-5
    with pytest.raises(ExportMismatchError, match="Output 'output_0': RMS error"):
        verify(file, other_net, samples, tolerance=1e-4)


def test_a_small_error_in_one_weight_fails_in_float(net, other_net):
    other_net.set_weights(net.get_weights())
    weights = other_net.get_weights()
    weights[-1][0] += 0.01
    other_net.set_weights(weights)
    with pytest.raises(ExportMismatchError):
        verify(to_tflite(other_net, None, None, "float32"), net, random_samples(net), tolerance=1e-4)
