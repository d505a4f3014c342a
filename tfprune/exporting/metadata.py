"""Labels and normalization inside the file, where the task libraries of phones look for them.

The format is TFLite metadata (`metadata_schema.fbs`, published with the TFLite Task Library and MediaPipe): a
flatbuffer in a buffer called `TFLITE_METADATA`, and the label file in a zip archive behind the end of the model.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.tflite.model import TensorDetails, TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile, pack

LABEL_FILE = "labels.txt"
_METADATA_NAME = "TFLITE_METADATA"
_IO_DTYPES = ("float32", "uint8")
# Numbers that the schema gives to fields, members of unions and enumerations.
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES, _NORMALIZATION_OPTIONS, _AXIS_LABELS = 2, 1, 1, 2
_RGB = 1
_MIN_PARSER_VERSION = "1.0.0"


@dataclass(frozen=True)
class ImageMetadata:
    """What a phone's task library has to know of an image classifier: what goes in, and what the outputs are called.

    The model reads `(pixel - mean) / std`, with pixels from 0 to 255: for a model trained on `x / 255` that is mean 0
    and std 255; for one that scales its inputs in a layer of its own, mean 0 and std 1.

    Attributes:
        labels: The classes' names, in the order of the outputs.
        mean: What is subtracted from a pixel: one number, or one per channel.
        std: What is divided by then: one number, or one per channel.
        name: The model's name, shown to developers.
        description: What it does, shown to developers.

    Example:

    >>> ImageMetadata(labels=("cat", "dog"), mean=127.5, std=127.5).mean
    (127.5,)
    """

    labels: tuple[str, ...]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    name: str = "image classifier"
    description: str = "Says what is in an image."

    def __post_init__(self) -> None:
        if isinstance(self.labels, str) or not self.labels or not all(isinstance(each, str) for each in self.labels):
            raise ValueError(f"labels must be a sequence of class names. Received: {self.labels!r}.")
        broken = [label for label in self.labels if not label.strip() or "\n" in label]
        if broken:
            raise ValueError(f"labels are stored one a line, so none may be empty or have several. Received: {broken}.")
        object.__setattr__(self, "labels", tuple(self.labels))
        for name in ("mean", "std"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(map(float, value if isinstance(value, Sequence) else (value,))))
        if not all(value > 0 for value in self.std):  # type: ignore[union-attr]
            raise ValueError(f"std must be above 0. Received: {self.std}.")

    def check_io_dtype(self, io_dtype: str) -> None:
        """Raise a ValueError if task libraries do not take a file with such inputs and outputs."""
        if io_dtype not in _IO_DTYPES:
            raise ValueError(
                f"Task libraries read images as float32 or uint8, not as {io_dtype}. "
                'With metadata, pass io_dtype="uint8" or io_dtype="float32".'
            )


def add_metadata(file: TFLiteFile, metadata: ImageMetadata) -> TFLiteFile:
    """Return a file of an image classifier with labels and normalization for task libraries.

    Args:
        file: The file.
        metadata: What to add.

    Returns:
        The file, followed by an archive with the labels.

    Raises:
        ValueError: If it is not a file of an image classifier, or does not fit the metadata.
    """
    loaded = TFLiteModel(file)
    _check_fit(loaded, metadata)
    changed = file.editable()
    changed.metadata = [*(changed.metadata or []), schema.MetadataT(_METADATA_NAME.encode(), len(changed.buffers))]
    changed.buffers.append(schema.BufferT(np.frombuffer(_to_flatbuffer(loaded, metadata), np.uint8)))
    whole = io.BytesIO(pack(changed))
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        # without a date: the same file from the same model
        archive.writestr(zipfile.ZipInfo(LABEL_FILE), "\n".join(metadata.labels) + "\n")
    return TFLiteFile(whole.getvalue())


def _check_fit(loaded: TFLiteModel, metadata: ImageMetadata) -> None:
    if len(loaded.inputs) != 1 or len(loaded.inputs[0].shape) != 4 or loaded.inputs[0].shape[3] != 3:
        shapes = [details.shape for details in loaded.inputs]
        raise ValueError(
            f"Task libraries read RGB images: one input (1, height, width, 3). The file's inputs: {shapes}. "
            "Put a layer in front that makes one channel of three, or leave the metadata out."
        )
    image = loaded.inputs[0]
    if len(loaded.outputs) != 1 or loaded.outputs[0].shape != (1, len(metadata.labels)):
        shapes = [details.shape for details in loaded.outputs]
        raise ValueError(f"{len(metadata.labels)} labels need one output of that many scores. The file's: {shapes}.")
    for name, values in (("mean", metadata.mean), ("std", metadata.std)):
        if len(values) not in (1, image.shape[3]):  # type: ignore[arg-type]
            raise ValueError(f"{name} must be one number or one per channel ({image.shape[3]}). Received: {values}.")
    if image.scale:
        _check_pixels(image, metadata)


def _check_pixels(image: TensorDetails, metadata: ImageMetadata) -> None:
    """A task library writes pixels into a uint8 input as they are, whatever the normalization says."""
    pixels = np.arange(256)[:, None]
    wanted = (pixels - np.array(metadata.mean)) / np.array(metadata.std)
    largest = float(np.abs(image.dequantize(pixels) - wanted).max())
    if largest > image.scale:
        raise ValueError(
            f"A uint8 file gets pixels as they are. This one reads them as {image.scale:.5g} * (pixel - "
            f"{image.zero_point}), up to {largest:.3g} away from (pixel - mean) / std. Calibrate with images that hold "
            'the darkest and the brightest pixel, correct mean and std, or use io_dtype="float32".'
        )


def _to_flatbuffer(loaded: TFLiteModel, metadata: ImageMetadata) -> bytes:
    builder = flatbuffers.Builder(1024)
    (image,), (scores,) = loaded.inputs, loaded.outputs
    subgraph = _table(
        builder,
        10,
        {
            2: _vector(builder, [_image_tensor(builder, image, metadata)]),
            3: _vector(builder, [_scores(builder, scores)]),
        },
    )
    texts = {0: metadata.name, 1: metadata.description, 7: _MIN_PARSER_VERSION}
    fields = {slot: builder.CreateString(text) for slot, text in texts.items()}
    builder.Finish(_table(builder, 8, {**fields, 3: _vector(builder, [subgraph])}), file_identifier=b"M001")
    return bytes(builder.Output())


def _image_tensor(builder: Any, image: TensorDetails, metadata: ImageMetadata) -> int:
    _, height, width, _ = image.shape
    size = _table(builder, 2, {}, {0: width, 1: height}, builder.PrependUint32Slot)
    properties = _table(builder, 2, {1: size}, {0: _RGB}, builder.PrependInt8Slot)
    content = _table(builder, 3, {1: properties}, {0: _IMAGE_PROPERTIES}, builder.PrependUint8Slot)
    statistics = [(0, metadata.mean), (1, metadata.std)]
    numbers = {slot: builder.CreateNumpyVector(np.array(values, np.float32)) for slot, values in statistics}
    normalization = _table(builder, 2, numbers)
    unit = _table(builder, 2, {1: normalization}, {0: _NORMALIZATION_OPTIONS}, builder.PrependUint8Slot)
    name = builder.CreateString(image.name)
    return _table(builder, 7, {0: name, 3: content, 4: _vector(builder, [unit])})


def _scores(builder: Any, scores: TensorDetails) -> int:
    properties = _table(builder, 0, {})
    content = _table(builder, 3, {1: properties}, {0: _FEATURE_PROPERTIES}, builder.PrependUint8Slot)
    texts = {0: LABEL_FILE, 1: "The names of the classes, in the order of the scores."}
    names = {slot: builder.CreateString(text) for slot, text in texts.items()}
    labels = _table(builder, 5, names, {2: _AXIS_LABELS}, builder.PrependInt8Slot)
    name = builder.CreateString(scores.name)
    return _table(builder, 7, {0: name, 3: content, 6: _vector(builder, [labels])})


def _table(
    builder: Any,
    num_fields: int,
    offsets: dict[int, int],
    numbers: dict[int, int] | None = None,
    prepend: Callable[[int, int, int], None] | None = None,
) -> int:
    """Write one table: `offsets` of what it refers to and `numbers` it holds, by a field's place in the schema."""
    builder.StartObject(num_fields)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (numbers or {}).items():
        assert prepend is not None
        prepend(slot, number, 0)
    return builder.EndObject()


def _vector(builder: Any, tables: list[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for offset in reversed(tables):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
