import io
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types as types

from tfprune.exporting import ExportOptions, ImageMetadata, export
from tfprune.exporting.metadata import add_metadata
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3)).astype(np.uint8)
IMAGES = PIXELS / np.float32(255)
METADATA = ImageMetadata(("cat", "dog"), mean=0, std=255, name="pets")


def build(size=(6, 8, 3), classes=2):
    return keras.Sequential(
        [
            keras.Input(size, name="image"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, activation="softmax", name="scores"),
        ]
    )


class Table:
    """One table of a flatbuffer, read by the places of its fields: independent of the writer."""

    def __init__(self, content, position):
        self.table = flatbuffers.table.Table(content, position)

    def _at(self, slot):
        offset = self.table.Offset(4 + 2 * slot)
        return self.table.Pos + offset if offset else None

    def text(self, slot):
        return self.table.String(self._at(slot)).decode()

    def number(self, slot, flags=types.Uint8Flags):
        position = self._at(slot)
        return self.table.Get(flags, position) if position else 0

    def child(self, slot):
        return Table(self.table.Bytes, self.table.Indirect(self._at(slot)))

    def children(self, slot):
        offset = self.table.Offset(4 + 2 * slot)
        start = self.table.Vector(offset)
        places = [start + 4 * row for row in range(self.table.VectorLen(offset))]
        return [Table(self.table.Bytes, self.table.Indirect(place)) for place in places]

    def floats(self, slot):
        return self.table.GetVectorAsNumpy(types.Float32Flags, self.table.Offset(4 + 2 * slot)).tolist()


def read(content):
    file = schema.ModelT.InitFromPackedBuf(content)
    (entry,) = [each for each in file.metadata if each.name == b"TFLITE_METADATA"]
    data = bytes(file.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    return Table(data, int.from_bytes(data[:4], "little"))


def test_labels_and_normalization_stand_where_the_schema_puts_them(tmp_path):
    path = tmp_path / "model.tflite"
    metadata = ImageMetadata(("cat", "dög"), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), name="pets")
    export(build(), path, options=ExportOptions(metadata=metadata))
    model = read(path.read_bytes())
    assert (model.text(0), model.text(7)) == ("pets", "1.0.0")
    (graph,) = model.children(3)
    (image,), (scores,) = graph.children(2), graph.children(3)
    assert (image.text(0), scores.text(0)) == ("image", "scores")
    assert image.child(3).number(0) == 2  # the content is an image
    properties = image.child(3).child(1)
    assert properties.number(0) == 1  # RGB
    assert [properties.child(1).number(slot, types.Uint32Flags) for slot in (0, 1)] == [8, 6]  # width, height
    (unit,) = image.children(4)
    assert unit.number(0) == 1  # normalization
    assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    (labels,) = scores.children(6)
    assert (labels.text(0), labels.number(2)) == ("labels.txt", 2)  # labels of the last axis
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert archive.read("labels.txt").decode() == "cat\ndög\n"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("quantize", "io_dtype"), [(None, None), ("dynamic", None), ("int8", "uint8")])
def test_a_file_with_metadata_computes_the_same_and_is_the_same_twice(tmp_path, quantize, io_dtype):
    model = build()
    arguments = {"quantize": quantize, "calibration": IMAGES, "io_dtype": io_dtype}
    export(model, tmp_path / "plain.tflite", **arguments)
    plain = TFLiteFile.read(tmp_path / "plain.tflite")
    export(model, tmp_path / "more.tflite", options=ExportOptions(metadata=METADATA), **arguments)
    loaded = TFLiteModel(tmp_path / "more.tflite")
    np.testing.assert_array_equal(loaded.predict(IMAGES), TFLiteModel(plain).predict(IMAGES))
    assert add_metadata(plain, METADATA).content == add_metadata(plain, METADATA).content


def test_constants_stay_aligned(tmp_path):
    export(build(), tmp_path / "model.tflite", options=ExportOptions(metadata=METADATA))
    content = (tmp_path / "model.tflite").read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    vectors = [model.Buffers(index) for index in range(model.BuffersLength()) if model.Buffers(index).DataLength()]
    starts = [each._tab.Vector(each._tab.Offset(4)) for each in vectors]
    assert len(starts) >= 5
    assert {start % 16 for start in starts} == {0}


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (build(), {"quantize": "int8"}, r"float32 or uint8, not as int8\. With metadata, pass io_dtype=\"uint8\""),
        (build(), {"quantize": "int16x8", "io_dtype": "int16"}, "not as int16"),
        (build(classes=3), {}, r"2 labels need one output of that many scores.*\(1, 3\)"),
    ],
)
def test_files_that_task_libraries_refuse_are_refused(tmp_path, model, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "a.tflite", calibration=IMAGES, options=ExportOptions(metadata=METADATA), **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_grayscale_and_wrong_numbers_of_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"read RGB images.*\(1, 6, 8, 1\)"):
        export(build((6, 8, 1)), tmp_path / "a.tflite", options=ExportOptions(metadata=METADATA))
    two = ImageMetadata(("cat", "dog"), mean=(0, 0), std=255)
    with pytest.raises(ValueError, match=r"mean must be one number or one per channel \(3\)"):
        export(build(), tmp_path / "a.tflite", options=ExportOptions(metadata=two))


def test_uint8_inputs_that_pixels_do_not_fit_are_refused(tmp_path):
    """A model trained on [-1, 1] and calibrated so: its uint8 input must not be told to be pixel / 255."""
    arguments = {"quantize": "int8", "io_dtype": "uint8", "calibration": IMAGES * 2 - 1}
    with pytest.raises(ValueError, match=r"gets pixels as they are\. This one reads them as 0\.0078"):
        export(build(), tmp_path / "a.tflite", options=ExportOptions(metadata=METADATA), **arguments)
    right = ExportOptions(metadata=ImageMetadata(("cat", "dog"), mean=127.5, std=127.5))
    assert export(build(), tmp_path / "a.tflite", options=right, **arguments).file_bytes
