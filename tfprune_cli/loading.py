"""Keras models from files, without running code that is in them unless told."""

import re
from pathlib import Path

import keras

from tfprune.exporting.inputs import check_model, input_specs
from tfprune.tflite.model import TFLiteModel
from tfprune_cli.errors import InputError, one_line

_UNKNOWN_CLASS = re.compile(r"(?:Could not locate class|Unknown layer:|Unknown object:?) '?([^'\s]+)'?")
_MAX_REASON = 200


def load_model(path: Path, unsafe: bool) -> keras.Model:
    """Load a Keras model, without its optimizer and loss.

    Args:
        path: A `.keras` or `.h5` file.
        unsafe: Whether Python code that is stored in the file, as that of a Lambda layer, may run.

    Returns:
        The model.

    Raises:
        InputError: If Keras cannot load it, or it is no model.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not unsafe)
    except Exception as error:  # whatever a damaged or foreign file leads to
        raise InputError(_explain(path, error)) from error
    if not isinstance(model, keras.Model):
        raise InputError(f"'{path}' holds a {type(model).__name__}, not a keras.Model. Save the whole model.")
    return model


def input_names(model: keras.Model | Path) -> list[str]:
    """Return the names of a loaded model's or a `.tflite` file's inputs, as an exported file has them."""
    if isinstance(model, Path):
        return [door.name for door in TFLiteModel(model).inputs]
    return list(input_specs(check_model(model)))


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    if "safe_mode" in text:
        return (
            f"'{path}' holds Python code, such as a Lambda layer's, that would run on this machine. "
            "If you trust the file, pass --unsafe."
        )
    unknown = _UNKNOWN_CLASS.search(text)
    if unknown:
        return (
            f"'{path}' is made of a class of its own, {unknown[1]!r}, whose code is not in the file. "
            "Load it in Python, where the class is known, and call tfprune there."
        )
    if "No model config found" in text:
        return f"'{path}' holds weights without the model. Save the whole model: model.save('model.keras')."
    reason = one_line(Exception(text.rpartition("Exception encountered: ")[2]))
    reason = reason if len(reason) <= _MAX_REASON else reason[:_MAX_REASON] + "..."
    return f"Keras {keras.__version__} cannot load '{path}': {reason.rstrip('.')}. Save or copy it again."
