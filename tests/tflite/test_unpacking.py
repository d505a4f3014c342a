"""Damaged files: found before the interpreter, which some of them would kill, sees them."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfprune.exporting import ExportOptions, export
from tfprune.quantization import quantize_aware
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.sparse_tensors import positions
from tfprune.tflite.unpacking import pack, unpack

DAMAGE = Path(__file__).with_name("damage.py")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(16, 3), keras.layers.ReLU(), keras.layers.Conv2D(32, 1), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 3), name="image"), *layers, keras.layers.Dense(4)])
    for weight in model.weights:
        weight.assign(np.where(np.random.default_rng(0).random(weight.shape) < 0.9, 0, weight))
    images = np.random.default_rng(0).random((20, 8, 8, 3)).astype(np.float32)
    folder = tmp_path_factory.mktemp("files")
    export(model, folder / "float.tflite")
    export(model, folder / "sparse.tflite", options=ExportOptions(sparse=True))
    export(model, folder / "int8.tflite", quantize="int8", calibration=images)
    return {path.stem: path for path in folder.iterdir()}


def check_damage(first, count, files):
    """`damage.py` lives to the end, and a good part of what it changes is found."""
    command = [sys.executable, str(DAMAGE), str(first), str(count), *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, f"{done.stdout[-20:]}: {done.stderr[-2000:]}"
    assert int(done.stdout.split()[-1]) >= count / 10


def test_damaged_files_never_kill_the_process(files):
    check_damage(0, 60, files)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, 1000))
def test_ten_thousand_damaged_files(files, mixed, first):
    check_damage(first, 1000, {**files, **mixed})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Many operators, a loop, several outputs by name: in float, int8 by calibration, and quantize-aware."""
    layers, folder = keras.layers, tmp_path_factory.mktemp("mixed")
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu6")(inputs)
    x = layers.UpSampling2D(2)(layers.MaxPooling2D(2)(layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)))
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, 1, padding="same")(x), x[..., :2]])
    outputs = {
        "scores": layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x)),
        "map": layers.Activation("sigmoid")(layers.Permute((2, 1, 3))(x)),
        "padded": layers.LeakyReLU()(layers.ZeroPadding2D(1)(x)),
    }
    images = np.random.default_rng(0).random((20, 8, 8, 3)).astype(np.float32)
    plain, looped = (
        keras.Model(inputs, {**outputs, **more})
        for more in ({}, {"state": layers.LSTM(4)(layers.Reshape((64, 10))(x))})
    )
    aware = quantize_aware(plain)
    aware(images, training=True)
    export(looped, folder / "loop.tflite")
    export(plain, folder / "mixed.tflite", quantize="int8", calibration=images)
    export(aware, folder / "aware.tflite", quantize="int8")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["float", "sparse", "int8"])
def test_a_file_packed_again_computes_the_same(files, name):
    content = files[name].read_bytes()
    x = np.random.default_rng(1).random((5, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(TFLiteModel(pack(unpack(content))).predict(x), TFLiteModel(content).predict(x))


def kernel_of(file):
    return next(tensor for tensor in file.subgraphs[0].tensors if tensor.sparsity is not None)


def rows_of(file):
    return next(level for level in kernel_of(file).sparsity.dimMetadata if level.arraySegments is not None)


def moved(vector, place, value):
    vector.values = np.array(vector.values)
    vector.values[place] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.subgraphs.clear(), "no graph"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "shape", [1, 2**20, 2**20]), "impossible shape"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "shape", [1, -2]), r"impossible shape \[1, -2\]"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "buffer", 999), "refers to buffer 999, but has"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "type", 99), "unknown type 99"),
        (lambda file: setattr(file.subgraphs[0].operators[0], "inputs", [0, 999]), "refers to tensor 999"),
        (lambda file: setattr(file.subgraphs[0].operators[0], "opcodeIndex", 99), "operator code 99"),
        (lambda file: setattr(file.signatureDefs[0].outputs[0], "tensorIndex", 999), "refers to tensor 999"),
        (lambda file: setattr(file.subgraphs[0].tensors[0], "name", b"\xff"), "the name of a tensor is no text"),
        (lambda file: setattr(file.signatureDefs[0], "signatureKey", b"a\x80"), "the name of a signature is no text"),
        (lambda file: setattr(file.signatureDefs[0].inputs[0], "name", b"\xc3"), "an input or output is no text"),
        (lambda file: setattr(file.signatureDefs[0].outputs[0], "name", None), "an input or output has no name"),
        (lambda file: setattr(file.operatorCodes[0], "customCode", b"\xe9"), "a custom operator is no text"),
        (lambda file: setattr(kernel_of(file), "shape", [2, 2]), "a sparse constant"),
        (lambda file: setattr(kernel_of(file).sparsity.dimMetadata[0], "denseSize", 10**9), "indices along an axis"),
        (lambda file: moved(rows_of(file).arraySegments, 1, 250), "rows that do not follow each other"),
        (lambda file: moved(rows_of(file).arrayIndices, 0, 250), "outside of its shape"),
        (lambda file: setattr(rows_of(file), "arrayIndices", None), "no positions"),
        (lambda file: setattr(kernel_of(file).sparsity, "traversalOrder", [0, 0, 1, 2]), "wrong order of axes"),
    ],
)
def test_what_a_file_refers_to_must_be_there(files, damage, message):
    file = unpack(files["sparse"].read_bytes())
    damage(file)
    with pytest.raises(ValueError, match=message):
        unpack(pack(file))
    with pytest.raises(ValueError, match=r"is cut short or damaged: .*Copy or export it again"):
        TFLiteModel(pack(file))


def test_a_constant_must_be_as_long_as_its_shape_says(files):
    file = unpack(files["float"].read_bytes())
    buffer = max(file.buffers, key=lambda each: 0 if each.data is None else len(each.data))
    buffer.data = buffer.data[:-4]
    with pytest.raises(ValueError, match=r"a constant of shape .* has \d+ bytes instead of \d+"):
        unpack(pack(file))


def test_blocks_must_fit():
    levels = [schema.DimensionMetadataT(0, size) for size in (1, 2, 3)]
    sparsity = schema.SparsityParametersT([0, 1, 2], [1], levels)
    with pytest.raises(ValueError, match="blocks of 3"):
        positions(sparsity, (1, 4))
    sparsity.blockMap = [5]
    with pytest.raises(ValueError, match="blocks along wrong axes"):
        positions(sparsity, (1, 4))
