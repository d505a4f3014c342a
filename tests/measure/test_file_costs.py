"""What a `.tflite` file costs, against closed forms and against `profile` of the model it came from."""

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from networks import chain, densely_connected, randomize, residual

import tfprune
from tfprune.measure.file_costs import file_costs
from tfprune.measure.memory import peak_memory
from tfprune.tflite.unpacking import TFLiteFile

L = keras.layers


@pytest.fixture
def costs(tmp_path):
    """The costs of the file that a model exports to."""

    def measure(model, **options):
        tfprune.export(model, tmp_path / "model.tflite", **options)
        return file_costs(TFLiteFile.read(tmp_path / "model.tflite"))

    return measure


def sequential(shape, *layers):
    return randomize(keras.Sequential([keras.Input(shape), *layers]))


def attention():
    inputs = keras.Input((6, 8))
    return randomize(keras.Model(inputs, L.MultiHeadAttention(2, 4)(inputs, inputs)))


def kinds_of_convolution():
    return sequential(
        (9, 9, 4),
        L.Conv2D(6, 3, groups=2),
        L.DepthwiseConv2D(3, depth_multiplier=2),
        L.SeparableConv2D(5, 3, strides=2, padding="same"),
        L.Conv2DTranspose(4, 3, strides=2, padding="same"),
        L.Conv2D(3, 3, dilation_rate=2, padding="same"),
    )


NETWORKS = {
    "chain": chain,
    "residual": residual,
    "densely_connected": densely_connected,
    "attention": attention,
    "kinds_of_convolution": kinds_of_convolution,
    "volumes": lambda: sequential((5, 5, 5, 2), L.Conv3D(3, 2), L.Conv3DTranspose(2, 2, strides=2)),
    "positions": lambda: sequential((12, 3), L.Conv1D(5, 4, strides=2), L.Dense(4), L.Flatten(), L.Dense(2)),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_those_of_the_model(name, costs):
    model = NETWORKS[name]()
    assert costs(model).macs == tfprune.profile(model).macs > 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8"])
def test_weights_and_their_zeros_in_every_mode(quantize, costs):
    model = sequential((32,), L.Dense(64, name="hidden"), L.ReLU(), L.Dense(3, name="classes"))
    kernel = model.get_layer("hidden").kernel.numpy()
    kernel[:8] = 0.0
    model.get_layer("hidden").kernel.assign(kernel)
    counted = costs(model, quantize=quantize, calibration=np.random.default_rng(0).normal(size=(40, 32)))
    assert counted.parameters == 32 * 64 + 64 + 64 * 3 + 3
    assert counted.macs == 32 * 64 + 64 * 3
    rounded = 0 if quantize in (None, "float16") else 40  # small weights that eight bits round to zero
    assert 0 <= counted.parameters - 8 * 64 - counted.nonzeros <= rounded


def test_operations_by_hand(costs):
    model = sequential((8, 6, 3), L.Conv2D(4, 3, strides=2, padding="same"), L.Flatten(), L.Dense(5))
    assert costs(model) == (
        3 * 3 * 3 * 4 + 4 + 48 * 5 + 5,
        3 * 3 * 3 * 4 + 4 + 48 * 5 + 5,
        (4 * 3) * 3 * 3 * 3 * 4 + 48 * 5,
    )


@pytest.mark.parametrize(
    ("kind", "stored", "shape", "expected"),
    [
        ("INT4", [0x10, 0x02], (3,), (3, 2)),  # 0, 1, 2 and nothing in the last four bits
        ("INT2", [0b00_01_10_00], (2, 2), (4, 2)),
        ("BFLOAT16", [0, 0, 0x80, 0x3F, 0, 0x80], (3,), (3, 1)),  # 0, 1 and -0
        ("INT32", [1, 0, 0, 0], (1,), (0, 0)),  # an axis
    ],
)
def test_weights_of_kinds_that_are_rare(kind, stored, shape, expected):
    tensor = schema.TensorT()
    tensor.type, tensor.shape, tensor.buffer = getattr(schema.TensorType, kind), shape, 1
    buffer, graph, model = schema.BufferT(), schema.SubGraphT(), schema.ModelT()
    buffer.data, graph.tensors = stored, [tensor]
    model.buffers, model.subgraphs = [schema.BufferT(), buffer], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    assert file_costs(TFLiteFile(bytes(builder.Output())))[:2] == expected


def test_what_the_converter_leaves_out_is_not_counted(costs):
    model = sequential((4, 3), L.LSTM(5, unroll=True))
    first_state = 5 * 4 * 5  # is zero, and its product with the recurrent kernel a constant
    assert costs(model).macs == tfprune.profile(model).macs - first_state


def test_loops_hide_their_operations(costs):
    model = sequential((4, 3), L.LSTM(5))
    assert costs(model).macs is None


def test_memory_grows_with_the_weights(tmp_path):
    small, large = sequential((64,), L.Dense(8)), sequential((1024,), L.Dense(2048))
    measured = []
    for index, model in enumerate((small, large)):
        path = tmp_path / f"{index}.tflite"
        tfprune.export(model, path)
        measured.append(peak_memory(path))
    if None not in measured:
        megabytes = (measured[1] - measured[0]) / 2**20
        assert 8 < megabytes < 40  # 8 MiB of weights, and at most a few copies
