"""Keras models from files, without running code that is in them unless told."""

import os
import re
import zipfile
from pathlib import Path

import keras

from tfprune.common.files import HDF5, check_expansion

SUFFIXES = (".keras", ".h5", ".hdf5")

_UNKNOWN_CLASS = re.compile(r"(?:Could not locate class|Unknown layer:|Unknown object:?) '?([^'\s]+)'?")
_MAX_REASON = 200


def load_model(path: str | os.PathLike[str], *, unsafe: bool = False, compiled: bool = False) -> keras.Model:
    """Load a Keras model from a file.

    Args:
        path: A `.keras` file, or an `.h5` file with the whole model.
        unsafe: Whether Python code that is stored in the file, as that of a Lambda layer, may run.
        compiled: Whether optimizer, loss and metrics come along, if they are in the file.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        IsADirectoryError: If it is a folder.
        ValueError: If it is no Keras model, is damaged, needs code that is in it or nowhere, or would fill memory; see
            `tfprune.common.files.check_expansion`.

    Example:

    >>> load_model("small.tflite")
    Traceback (most recent call last):
    ...
    ValueError: 'small.tflite' is an exported file, and a Keras model is needed: .keras or .h5.
    """
    path = check_model_path(path)
    try:
        model = keras.saving.load_model(path, compile=compiled, safe_mode=not unsafe)
    except Exception as error:  # whatever a damaged or foreign file leads to
        raise ValueError(_explain(path, str(error))) from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"'{path}' holds a {type(model).__name__}, not a keras.Model. Save the whole model.")
    return model


def check_model_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that ends and begins as a Keras model does, or raise as `load_model` does."""
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        raise IsADirectoryError(
            f"'{path}' is a SavedModel, from which Keras 3 makes no model with layers. Save it as one file, where "
            "it was made: model.save('model.keras')."
        )
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder. Give the path of a file.")
    if path.suffix == ".tflite":
        raise ValueError(f"'{path}' is an exported file, and a Keras model is needed: .keras or .h5.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file at '{path}'. Check the path, or save the model first.")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"Expected a path that ends in .keras or .h5. Received: '{path}'.")
    with path.open("rb") as file:
        start = file.read(len(HDF5))
    if not (zipfile.is_zipfile(path) if path.suffix == ".keras" else start == HDF5):
        state = "is empty" if not start else f"is no {path.suffix} file, or is cut short"
        raise ValueError(f"'{path}' {state}. Save or copy it again.")
    check_expansion(path)
    return path


def _explain(path: Path, text: str) -> str:
    if "safe_mode" in text:
        return (
            f"'{path}' holds Python code, such as a Lambda layer's, that would run on this machine: it is unsafe. If "
            "you trust the file, load it with keras.saving.load_model(path, safe_mode=False)."
        )
    unknown = _UNKNOWN_CLASS.search(text)
    if unknown:
        return (
            f"'{path}' is made of a class of its own, {unknown[1]!r}, whose code is not in the file. "
            "Load it in Python, where the class is known, and give tfprune the model."
        )
    if "No model config found" in text:
        return f"'{path}' holds weights without the model. Save the whole model: model.save('model.keras')."
    reason = " ".join(text.rpartition("Exception encountered: ")[2].split())
    reason = reason if len(reason) <= _MAX_REASON else reason[:_MAX_REASON] + "..."
    return f"Keras {keras.__version__} cannot load '{path}': {reason.rstrip('.')}. Save or copy it again."
