"""Images come scaled, shuffled and split, or not at all."""

import example_data
import keras
import numpy as np
import pytest


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 9, 9, 3)).astype("uint8")


def test_mnist5k_is_split_by_class_and_scaled():
    data = example_data.load_images("mnist5k")
    assert data.x_train.shape == (4000, 28, 28, 1)
    assert data.x_test.shape == (1000, 28, 28, 1)
    assert data.num_classes == 10
    np.testing.assert_array_equal(np.bincount(data.y_train), [400] * 10)
    np.testing.assert_array_equal(np.bincount(data.y_test), [100] * 10)
    assert (data.x_train.min(), data.x_train.max()) == (0.0, 1.0)
    # Shuffled: the file is sorted by class, and recipes calibrate with the first images.
    assert np.bincount(data.y_train[:500], minlength=10).min() > 25


def test_training_and_test_set_share_no_image(images, tmp_path):
    y = np.repeat(np.arange(5), 10)
    data = example_data.load_images(save(tmp_path / "a.npz", x=images, y=y))
    assert len(data.x_train) == 40
    both = np.concatenate([data.x_train, data.x_test]).reshape(50, -1)
    assert len(np.unique(both, axis=0)) == 50


def test_images_keep_their_labels(tmp_path):
    y = np.arange(40) % 4
    x = np.broadcast_to(y[:, None, None], (40, 8, 8)).astype("uint8")
    data = example_data.load_images(save(tmp_path / "a.npz", x=x, y=y[:, None]))  # CIFAR's labels are a column
    np.testing.assert_array_equal(np.rint(data.x_train[:, 0, 0, 0] * 255), data.y_train)
    np.testing.assert_array_equal(np.rint(data.x_test[:, 0, 0, 0] * 255), data.y_test)


def test_the_split_is_the_same_every_time(images, tmp_path):
    path = save(tmp_path / "a.npz", x=images, y=np.arange(50) % 2)
    first, second = example_data.load_images(path), example_data.load_images(path)
    np.testing.assert_array_equal(first.x_test, second.x_test)


def test_a_test_set_of_its_own_is_kept(images, tmp_path):
    y = np.arange(50) % 3
    path = save(tmp_path / "a.npz", x_train=images[:30], y_train=y[:30], x_test=images[30:], y_test=y[30:])
    data = example_data.load_images(path)
    np.testing.assert_array_equal(data.x_test, images[30:].astype("float32") * np.float32(1 / 255))


def test_real_numbers_are_taken_as_scaled(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 1)).astype("float32")
    data = example_data.load_images(save(tmp_path / "a.npz", x=x, y=np.arange(20) % 2))
    seen = np.concatenate([data.x_train, data.x_test])
    np.testing.assert_array_equal(np.sort(seen, axis=None), np.sort(x, axis=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((50, 4, 4))}, "at least 8 x 8"),
        ({"x": np.zeros((50, 81))}, "must hold images"),
        ({"x": np.full((50, 9, 9), np.nan)}, "NaN"),
        ({"y": np.zeros(49, int)}, "50 images, but 49 labels"),
        ({"y": np.zeros(50)}, "whole numbers"),
        ({"y": np.full(50, -1)}, "whole numbers"),
        ({"y": np.arange(50)}, "test set of .* 0 images"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused(change, message, images, tmp_path):
    path = save(tmp_path / "a.npz", **{"x": images, "y": np.arange(50) % 2, **change})
    with pytest.raises(ValueError, match=message):
        example_data.load_images(path)


def test_missing_arrays_are_named(tmp_path):
    with pytest.raises(ValueError, match="It holds pictures"):
        example_data.load_images(save(tmp_path / "a.npz", pictures=np.zeros(3)))


def test_sets_that_do_not_fit_are_refused(images, tmp_path):
    y = np.zeros(50, int)
    path = save(tmp_path / "a.npz", x_train=images, y_train=y, x_test=images[..., :1], y_test=y)
    with pytest.raises(ValueError, match="do not fit"):
        example_data.load_images(path)


def test_a_failed_download_says_what_works_without_one(monkeypatch):
    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(OSError, match=r"URL fetch failure\. Try mnist5k"):
        example_data.load_images("cifar10")


def test_downloads_are_scaled_and_given_channels(images, monkeypatch):
    sets = ((images[:30, ..., 0], np.arange(30) % 3), (images[30:, ..., 0], np.arange(20) % 3))
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", lambda: sets)
    data = example_data.load_images("fashion_mnist")
    assert data.x_train.shape == (30, 9, 9, 1)
    assert data.x_test.max() <= 1
