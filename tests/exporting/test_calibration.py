import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.exporting.calibration import check_ranges, gather_samples

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.zeros(20)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[:4]


@pytest.mark.parametrize(
    "calibration",
    [
        lambda: X,
        lambda: X.astype(np.float64),
        lambda: X.astype(np.uint8),
        lambda: tf.constant(X),
        lambda: (X, Y),
        lambda: {"x": X},
        lambda: tf.data.Dataset.from_tensor_slices(X).batch(6),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(6),
        lambda: tf.data.Dataset.from_tensor_slices({"x": X}).batch(6),
        lambda: Batches(),
        lambda: [X[:10], X[10:]],
        lambda: ((X[i : i + 5], Y[:5]) for i in range(0, 20, 5)),
    ],
)
def test_every_form_gives_the_same_samples(model, calibration):
    samples = gather_samples(calibration(), model, max_samples=100)
    assert list(samples) == ["x"]
    assert samples["x"].dtype == np.float32
    np.testing.assert_array_equal(samples["x"], X)


@pytest.mark.parametrize(
    "calibration",
    [
        lambda a, b: {"z_image": a, "extra": b},
        lambda a, b: [b, a],  # the order of model.inputs
        lambda a, b: ([b, a], Y),
        lambda a, b: tf.data.Dataset.from_tensor_slices(({"z_image": a, "extra": b}, Y)).batch(8),
        lambda a, b: (([b[i : i + 2], a[i : i + 2]], Y[:2]) for i in range(0, 20, 2)),
    ],
)
def test_several_inputs(two_inputs, calibration):
    image, extra = np.random.default_rng(0).random((20, 4, 4, 1)), np.arange(60.0).reshape(20, 3)
    samples = gather_samples(calibration(image, extra), two_inputs, max_samples=100)
    assert list(samples) == ["extra", "z_image"]
    np.testing.assert_allclose(samples["z_image"], image, rtol=1e-6)
    np.testing.assert_allclose(samples["extra"], extra)


def test_arrays_are_thinned_evenly_and_datasets_cut(model):
    np.testing.assert_array_equal(gather_samples(X, model, max_samples=2)["x"], X[[0, 19]])
    endless = tf.data.Dataset.from_tensor_slices(X).batch(8).repeat()
    np.testing.assert_array_equal(gather_samples(endless, model, max_samples=11)["x"], X[:11])


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (X[:, :2], r"shape \(samples, 3\) for input 'x'. Received: \(20, 2\)"),
        (X[0], r"Received: \(3,\).*stack samples"),
        (list(X), r"Received: \(3,\).*stack samples"),
        (tf.data.Dataset.from_tensor_slices(X), r"Received: \(3,\). Batch the dataset"),
        ([X[:, :2]], r"Received: \(20, 2\)"),
        (X[:0], "has no samples"),
        ([], "has no samples. A generator can be read only once"),
        (np.where(X == 4, np.nan, X), "NaN or infinite"),
        (np.where(X == 4, np.inf, X), "NaN or infinite"),
        (X.astype(str), r"input 'x' is float32. Received: <U"),
        (X.astype(complex), "Received: complex128"),
        ({"image": X}, r"has the inputs \['x'\].*Received: \['image'\]"),
    ],
)
def test_data_that_does_not_fit_is_refused(model, calibration, message):
    with pytest.raises(ValueError, match=message):
        gather_samples(calibration, model, max_samples=100)


def test_floats_for_an_integer_input_are_refused():
    words = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 2)])
    with pytest.raises(ValueError, match=r"is int32\. Received: float32\. Convert it first"):
        gather_samples(X, words, max_samples=100)


def test_inputs_of_different_length_are_refused(two_inputs):
    with pytest.raises(
        ValueError, match=r"calibration differ in their number of samples: \{'extra': 2, 'z_image': 3\}"
    ):
        gather_samples({"z_image": np.zeros((3, 4, 4, 1)), "extra": np.zeros((2, 3))}, two_inputs, max_samples=100)
    with pytest.raises(
        ValueError, match=r"has the inputs \['extra', 'z_image'\]: give x in calibration as a dict by name, or a list"
    ):
        gather_samples(np.zeros((3, 4, 4, 1)), two_inputs, max_samples=100)


def test_other_types_and_counts_are_refused(model):
    with pytest.raises(TypeError, match=r"Received: int\."):
        gather_samples(3, model, max_samples=100)
    with pytest.raises(ValueError, match="max_samples must be a whole number of at least 1"):
        gather_samples(X, model, max_samples=0)


def test_features_that_one_scale_is_too_coarse_for_are_told_of():
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 4)).astype("float32") * np.float32([1, 2000, 3, 900]) + np.float32([0, 4000, 0, 0])
    message = r"input 'rows' .*feature 1 goes up to 7.*of 2 others \(0, 2\) lie within two steps"
    with pytest.warns(UserWarning, match=message):
        check_ranges({"rows": x}, 256)
    check_ranges({"rows": x / np.abs(x).max(axis=0)}, 256)  # warnings are errors
    check_ranges({"rows": x}, 2**16)  # the steps of int16 are fine enough


def test_an_input_that_is_always_zero_is_told_of():
    samples = {"left": np.random.default_rng(0).normal(size=(20, 3)), "right": np.zeros((20, 2))}
    with pytest.warns(UserWarning, match="input 'right' is 0 in every sample: no range is known"):
        check_ranges(samples, 256)
