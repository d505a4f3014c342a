"""Images from a folder, as arrays."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfprune.graph import functional
from tfprune_cli.errors import InputError
from tfprune_cli.notes import note
from tfprune_cli.paths import IMAGES

_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}
_SCALES = {"none": (1.0, 0.0), "unit": (1 / 255, 0.0), "signed": (1 / 127.5, -1.0)}
_RANGES = {"none": "0 to 255, as they are", "unit": "0 to 1", "signed": "-1 to 1"}


@dataclass(frozen=True)
class ImageFolder:
    """Images, in a folder for each class or all in one without classes.

    Attributes:
        path: The folder.
        scale: What becomes of the pixels: `"none"`, `"unit"` for 0 to 1, `"signed"` for -1 to 1.
    """

    path: Path
    scale: str

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers; none where images lie in one folder."""
        return sorted(each.name for each in self.path.iterdir() if each.is_dir() and not each.name.startswith("."))

    def read(self, model: keras.Model) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the images in the size that a model takes, and the numbers of their classes.

        Args:
            model: A model with one input, of images.

        Returns:
            Pixels of shape (samples, height, width, channels), `uint8` unless they are scaled; and integers, or None
            where there are no classes.

        Raises:
            InputError: If the model takes something else, has another number of classes, or a file is no image.
        """
        height, width, channels = _image_shape(model)
        classes = self.classes
        _check_classes(self.path, classes, model)
        files = keras.utils.image_dataset_from_directory(
            str(self.path),
            labels="inferred" if classes else None,
            color_mode=_COLORS[channels],
            batch_size=None,
            image_size=(height, width),
            shuffle=False,
            verbose=False,
        )
        self._say_what_is_read(files.file_paths, (height, width), classes)
        dtype = "uint8" if self.scale == "none" else "float32"
        x = np.empty((len(files.file_paths), height, width, channels), dtype)
        y = np.empty(len(x), "int64")
        factor, offset = _SCALES[self.scale]
        decoded = iter(files)
        for index, path in enumerate(files.file_paths):
            try:
                element = next(decoded)
            except tf.errors.OpError as error:
                reason = error.message.partition(" [Op:")[0].rpartition(": ")[2].rstrip(".")  # behind names of nodes
                raise InputError(
                    f"{path!r} cannot be read as an image: {reason}. Repair it, or take it away."
                ) from error
            image, y[index] = element if classes else (element, 0)
            x[index] = np.rint(image) * factor + offset
        return x, y if classes else None

    def _say_what_is_read(self, paths: list[str], size: tuple[int, int], classes: list[str]) -> None:
        others = sum(each.is_file() and each.suffix.lower() not in IMAGES for each in self.path.rglob("*"))
        named = f"{len(classes)} classes, {_listed(classes)}" if classes else "no classes"
        left = f"; {others} files that are no images are left out" if others else ""
        note(
            f"note: '{self.path}': {len(paths):,} images of {named}, resized to {size[0]} x {size[1]}; pixels are "
            f"{_RANGES[self.scale]} (--scale){left}."
        )


def _image_shape(model: keras.Model) -> tuple[int, int, int]:
    shapes = [tuple(tensor.shape[1:]) for tensor in functional(model).inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3 or None in shapes[0] or shapes[0][2] not in _COLORS:
        raise InputError(
            f"A folder of images is for models with one input of shape (height, width, channels), with 1, 3 or 4 "
            f"channels. Received: a model with inputs of shape {', '.join(map(str, shapes))}. Save arrays instead: "
            "np.savez('data.npz', x=x, y=y)."
        )
    height, width, channels = shapes[0]
    return height, width, channels


def _check_classes(path: Path, classes: list[str], model: keras.Model) -> None:
    outputs = functional(model).outputs
    units = outputs[0].shape[-1]
    if classes and len(outputs) == 1 and len(classes) != max(units, 2):
        raise InputError(
            f"'{path}' has folders for {len(classes)} classes, {_listed(classes)}, and the model tells {max(units, 2)} "
            "apart. Give each class its folder, also one without images."
        )


def _listed(classes: list[str]) -> str:
    shown = [*classes[:3], "...", classes[-1]] if len(classes) > 5 else classes
    return ", ".join(shown)
