"""Sparse storage, in every mode that allows it, and what becomes of zeros in every mode."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfprune.exporting import ExportOptions, export
from tfprune.exporting.modes import MODES
from tfprune.exporting.stored_kernels import dense, stored_kernels
from tfprune.exporting.zeros import zeros_kept
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile, unpack

IMAGES = np.random.default_rng(0).random((20, 12, 12, 4)).astype(np.float32)
SPARSE = ExportOptions(sparse=True)
LAYERS = keras.layers


def zeroed(layers, share=0.9, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((12, 12, 4), name="image"), *layers])
    for weight in model.weights:
        if len(weight.shape) > 1:
            values = np.asarray(keras.ops.convert_to_numpy(weight)).copy()
            values[np.abs(values) < np.quantile(np.abs(values), share)] = 0
            weight.assign(values)
    return model


def convolutional():
    return [
        LAYERS.Conv2D(32, 3, padding="same", use_bias=False),
        LAYERS.BatchNormalization(),
        LAYERS.ReLU(),
        LAYERS.DepthwiseConv2D(3, depth_multiplier=2),
        LAYERS.Conv2D(32, 1, activation="relu"),
        LAYERS.Conv2DTranspose(16, 3, strides=2),
        LAYERS.GlobalAveragePooling2D(),
        LAYERS.Dense(64, activation="relu"),
        LAYERS.Dense(5),
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("quantize", MODES)
def test_all_zeros_are_kept(tmp_path, quantize):
    model = zeroed(convolutional())
    report = export(model, tmp_path / "a.tflite", quantize=quantize, calibration=IMAGES)
    assert report.zeros_kept == 1.0
    assert report.zero_fraction >= 0.88
    assert "zeros of the model kept" in str(report)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("quantize", [mode for mode in MODES if not MODES[mode].no_sparsity])
def test_sparse_files_are_smaller_and_compute_the_same(tmp_path, quantize):
    model = zeroed(convolutional())
    arguments = {"quantize": quantize, "calibration": IMAGES}
    plain = export(model, tmp_path / "plain.tflite", **arguments)
    sparse = export(model, tmp_path / "sparse.tflite", options=SPARSE, **arguments)
    assert sparse.file_bytes < 0.9 * plain.file_bytes
    assert sparse.zeros_kept == 1.0
    assert sparse.zero_fraction == plain.zero_fraction
    assert sparse.sparse
    assert "stored sparse" in str(sparse)
    ours, theirs = (TFLiteModel(tmp_path / f"{name}.tflite").predict(IMAGES) for name in ("plain", "sparse"))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_int8_kernels_of_dense_layers_stay_dense(tmp_path):
    export(zeroed(convolutional()), tmp_path / "a.tflite", quantize="int8", calibration=IMAGES, options=SPARSE)
    file = unpack((tmp_path / "a.tflite").read_bytes())
    sparse = {tuple(tensor.shape) for tensor in file.subgraphs[0].tensors if tensor.sparsity is not None}
    assert (32, 3, 3, 4) in sparse or (32, 1, 1, 64) in sparse
    assert not {shape for shape in sparse if len(shape) == 2}


def test_files_that_would_not_get_smaller_are_refused(tmp_path):
    dense_only = zeroed([LAYERS.Flatten(), LAYERS.Dense(32)])
    with pytest.raises(ValueError, match="Int8 kernels of Dense layers are always stored dense"):
        export(dense_only, tmp_path / "a.tflite", quantize="int8", calibration=IMAGES, options=SPARSE)
    with pytest.raises(ValueError, match=r"at most 30% of the weights of a kernel are zero.*Prune more"):
        export(zeroed([LAYERS.Flatten(), LAYERS.Dense(25)], share=0.3), tmp_path / "a.tflite", options=SPARSE)
    assert not list(tmp_path.iterdir())


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "layers",
    [
        [LAYERS.Reshape((12, 48)), LAYERS.Conv1D(16, 3)],
        [LAYERS.Reshape((12, 48)), LAYERS.EinsumDense("abc,cde->abde", (12, 4, 8))],
        [LAYERS.DepthwiseConv2D(5, depth_multiplier=8)],
    ],
)
def test_zeros_of_other_layers_are_found(tmp_path, layers):
    report = export(zeroed(layers), tmp_path / "a.tflite", options=SPARSE)
    assert report.zeros_kept == 1.0


def test_lost_zeros_are_seen(tmp_path):
    model = zeroed([LAYERS.Flatten(), LAYERS.Dense(10)])
    export(model, tmp_path / "a.tflite")
    file = TFLiteFile.read(tmp_path / "a.tflite")
    kernel, bias = model.get_weights()
    model.set_weights(
        [np.where(np.arange(10) < 5, 0, kernel), bias]
    )  # half of the columns are zero now, not in the file
    zeros = np.count_nonzero(model.get_weights()[0] == 0)
    also = np.count_nonzero((model.get_weights()[0] == 0) & (kernel == 0))
    assert zeros_kept(model, file) == also / zeros < 1
    assert zeros_kept(zeroed([LAYERS.Flatten(), LAYERS.Dense(10)], share=0.0), file) is None


def test_blocks_and_halves_of_bytes_are_unpacked():
    """[[1, 2, 0, 0], [0, 0, 3, 4]] in blocks of two: rows dense, columns of blocks compressed, inside dense."""
    kinds = schema.DimensionType
    indices = [schema.Uint8VectorT(np.array(values)) for values in ([0, 1, 2], [0, 1])]
    levels = [
        schema.DimensionMetadataT(kinds.DENSE, 2),
        schema.DimensionMetadataT(kinds.SPARSE_CSR, 0, 3, indices[0], 3, indices[1]),
        schema.DimensionMetadataT(kinds.DENSE, 2),
    ]
    sparsity = schema.SparsityParametersT(np.array([0, 1, 2]), np.array([1]), levels)
    tensor = schema.TensorT(shape=np.array([2, 4]), type=schema.TensorType.INT8, sparsity=sparsity)
    np.testing.assert_array_equal(dense(tensor, np.array([1, 2, 3, 4])), [[1, 2, 0, 0], [0, 0, 3, 4]])
    halves = schema.TensorT(shape=np.array([1, 3]), type=schema.TensorType.INT4)
    np.testing.assert_array_equal(dense(halves, np.array([0x21, 0x0F])), [[1, 2, -1]])


def test_int4_kernels_are_counted(tmp_path):
    export(zeroed([LAYERS.Flatten(), LAYERS.Dense(8)]), tmp_path / "a.tflite", quantize="int4_weights")
    (kernel,) = stored_kernels(unpack((tmp_path / "a.tflite").read_bytes()))
    assert kernel.shape == (8, 576)
    assert set(np.unique(kernel)) <= set(range(-8, 8))
