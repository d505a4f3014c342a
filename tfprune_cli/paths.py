"""Paths on the command line, checked while it is read: before TensorFlow is loaded, which takes seconds."""

import zipfile
from argparse import ArgumentTypeError
from pathlib import Path

KERAS = (".keras", ".h5", ".hdf5")
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_HDF5, _NUMPY, _TFLITE = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"TFL3"


def keras_path(text: str) -> Path:
    """Return the path of a Keras model.

    Args:
        text: What stands on the command line.

    Returns:
        The path of a file that ends and begins as a Keras model does.

    Raises:
        ArgumentTypeError: If it is something else.
    """
    if Path(text).suffix == ".tflite":
        raise ArgumentTypeError(f"{text!r} is an exported file, and this command takes Keras models: .keras or .h5.")
    return _checked(text, KERAS)


def tflite_path(text: str) -> Path:
    """Return the path of a `.tflite` file; see `keras_path`."""
    if Path(text).suffix in KERAS:
        raise ArgumentTypeError(
            f"{text!r} is a Keras model, and this command runs .tflite files. Export it first: "
            f"`tfprune export {text} {Path(text).stem}.tflite`."
        )
    return _checked(text, (".tflite",))


def model_path(text: str) -> Path:
    """Return the path of a Keras model or a `.tflite` file; see `keras_path`."""
    return _checked(text, (*KERAS, ".tflite"))


def data_path(text: str) -> Path:
    """Return the path of a `.npz` or `.npy` file; see `keras_path`."""
    return _checked(text, (".npz", ".npy"))


def labelled_path(text: str) -> Path:
    """Return the path of a `.npz` or `.npy` file, or of a folder of images; see `keras_path`."""
    path = Path(text)
    if not path.is_dir():
        return data_path(text)
    expected = f"{path}/CLASS/IMAGE, with one folder for each class; images end in {', '.join(IMAGES)}"
    visible = (each for each in path.rglob("*") if not each.relative_to(path).parts[0].startswith("."))
    found = [each for each in visible if each.suffix.lower() in IMAGES]
    if not found:
        raise ArgumentTypeError(f"there are no images in the folder {text!r}. Expected {expected}.")
    beside = [each for each in found if each.parent == path]
    if beside and len(beside) < len(found):
        raise ArgumentTypeError(f"{str(beside[0])!r} lies beside the folders of the classes. Expected {expected}.")
    return path


def history_path(text: str) -> Path:
    """Return the path of a training history, `.json` or `.csv`; see `keras_path`."""
    return _checked(text, (".json", ".csv"))


def _checked(text: str, suffixes: tuple[str, ...]) -> Path:
    path, expected = Path(text), " or ".join((", ".join(suffixes[:-1]), suffixes[-1])) if suffixes[1:] else suffixes[0]
    if path.is_dir():
        raise ArgumentTypeError(f"{text!r} is a folder. Give the path of a file: {expected}.")
    if not path.exists():
        raise ArgumentTypeError(f"there is no file at {text!r}. Check the path.")
    if path.suffix not in suffixes:
        raise ArgumentTypeError(f"expected a path that ends in {expected}. Received: {text!r}.")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        sound = _begins_rightly(path, start)
    except OSError as error:
        raise ArgumentTypeError(f"{text!r} cannot be read: {error.strerror or error}.") from error
    if not start:
        raise ArgumentTypeError(f"{text!r} is empty. Save or copy it again.")
    if not sound:
        raise ArgumentTypeError(f"{text!r} is no {path.suffix} file, or is cut short. Save or copy it again.")
    return path


def _begins_rightly(path: Path, start: bytes) -> bool:
    if path.suffix in (".keras", ".npz"):
        return zipfile.is_zipfile(path)  # looks for the list of contents, which stands at the end
    if path.suffix in (".h5", ".hdf5"):
        return start.startswith(_HDF5)
    if path.suffix == ".npy":
        return start.startswith(_NUMPY)
    return path.suffix != ".tflite" or start[4:8] == _TFLITE
