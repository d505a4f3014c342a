import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfprune
from tfprune.exporting.convert import float32_twin, to_tflite
from tfprune.exporting.operators import count_operators, output_scales, zero_fraction
from tfprune.tflite.model import TFLiteModel


def test_batch_is_static_and_names_and_order_are_kept(two_inputs):
    loaded = TFLiteModel(to_tflite(two_inputs, None, None, "float32"))
    assert {details.name: details.shape for details in loaded.inputs} == {"extra": (1, 3), "z_image": (1, 4, 4, 1)}
    assert [(details.name, details.shape) for details in loaded.outputs] == [("narrow", (1, 2)), ("wide", (1, 5))]
    graph = schema.ModelT.InitFromPackedBuf(loaded.content).subgraphs[0]
    assert all(tensor.shapeSignature is None or -1 not in tensor.shapeSignature for tensor in graph.tensors)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "in_file"), [("Image_In", "Image_In"), ("my input-é", "my_input__"), ("1st", "input_1st")]
)
def test_names_that_a_signature_cannot_hold_are_changed(name, in_file):
    inputs = keras.Input((2,), name=name)
    loaded = TFLiteModel(to_tflite(keras.Model(inputs, keras.layers.Dense(1)(inputs)), None, None, "float32"))
    assert [details.name for details in loaded.inputs] == [in_file]


def test_names_that_become_equal_are_refused():
    inputs = [keras.Input((2,), name="a b"), keras.Input((2,), name="a-b")]
    with pytest.raises(ValueError, match=r"called 'a_b' in a \.tflite file\. Rename one"):
        to_tflite(keras.Model(inputs, keras.layers.Add()(inputs)), None, None, "float32")


@pytest.mark.parametrize("quantize", ["dynamic", "int8"])
def test_dense_kernels_have_one_scale_for_old_runtimes(quantize):
    samples = {"x": np.random.default_rng(0).random((20, 64)).astype(np.float32)}
    model = keras.Sequential([keras.Input((64,), name="x"), keras.layers.Dense(64), keras.layers.Dense(64)])
    file = schema.ModelT.InitFromPackedBuf(to_tflite(model, quantize, samples, "int8").content)
    kernels = [tensor for tensor in file.subgraphs[0].tensors if list(tensor.shape) == [64, 64]]
    assert [tensor.type for tensor in kernels] == [schema.TensorType.INT8] * 2
    assert [len(tensor.quantization.scale) for tensor in kernels] == [1, 1]
    assert max(code.version for code in file.operatorCodes) < 12  # the version tflite-runtime 2.14 refuses


def test_operators_are_counted_by_name_and_dtype(net, images):
    file = to_tflite(net, "int8", {"image": images[:10]}, "float32")
    counts = {(op.name, op.dtype): op.count for op in count_operators(file)}
    assert counts == {
        ("CONV_2D", "int8"): 1,
        ("RESHAPE", "int8"): 1,
        ("FULLY_CONNECTED", "int8"): 2,
        ("SOFTMAX", "int8"): 1,
        ("QUANTIZE", "float32"): 1,
        ("DEQUANTIZE", "float32"): 1,
    }
    assert list(output_scales(file).values()) == [1 / 256]  # a softmax always has this scale


def test_the_interpreter_sees_the_same_operators(net):
    """The schema is public; the interpreter's own list, private, must agree apart from delegates."""
    file = to_tflite(net, None, None, "float32")
    details = TFLiteModel(file)._interpreter._get_ops_details()
    seen = sorted(detail["op_name"] for detail in details if detail["op_name"] != "DELEGATE")
    assert seen == sorted(op.name for op in count_operators(file) for _ in range(op.count))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8"])
def test_zeros_of_a_pruned_kernel_are_kept(quantize):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,), name="x"), keras.layers.Dense(64)])
    kernel, bias = model.get_weights()
    kernel[:48] = 0
    kernel[48:] = np.where(np.abs(kernel[48:]) < 0.02, 0.02, kernel[48:])  # no other value rounds to zero
    model.set_weights([kernel, bias])
    samples = {"x": np.random.default_rng(0).random((20, 64)).astype(np.float32)}
    assert zero_fraction(to_tflite(model, quantize, samples, "float32")) == 0.75


def test_float32_model_is_its_own_twin(net):
    assert float32_twin(net) is net


@pytest.mark.sampled(1)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_twin_of_a_half_precision_model_has_its_weights_and_computes_in_float32(policy):
    inner = keras.Sequential(
        [keras.Input((6, 4)), keras.layers.Bidirectional(keras.layers.LSTM(3, dtype=policy), dtype=policy)]
    )
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, keras.layers.Dense(2, dtype=policy)(inner(inputs)))
    twin = float32_twin(model)
    x = np.random.default_rng(0).random((3, 6, 4)).astype(np.float32)
    assert keras.backend.standardize_dtype(model(x).dtype) == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(twin(x).dtype) == "float32"
    np.testing.assert_allclose(twin(x), np.asarray(model(x)).astype(np.float32), atol=0.02)


def test_a_quantize_aware_model_in_half_precision_becomes_int8():
    inputs, policy = keras.Input((6,)), "mixed_float16"
    hidden = keras.layers.Dense(4, activation="relu", dtype=policy)(inputs)
    model = tfprune.quantize_aware(keras.Model(inputs, keras.layers.Dense(2, dtype=policy)(hidden)))
    model(np.random.default_rng(0).normal(size=(8, 6)), training=True)  # which sets the ranges
    operators = count_operators(to_tflite(model, "int8", None, "int8"))
    assert {operator.name: operator.dtype for operator in operators} == {"FULLY_CONNECTED": "int8"}


class WithoutConfig(keras.layers.Dense):
    def get_config(self):
        return {"units": self.kernel_size}  # which it does not have


def test_of_a_layer_that_stays_nobody_asks_the_config(tmp_path):
    model = keras.Sequential([keras.Input((4,)), WithoutConfig(3)])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    report = tfprune.export(model, tmp_path / "model.tflite", calibration=x)
    assert report.outputs[0].max_abs_error < 1e-5


class Looks(keras.layers.Layer):
    """Looks numbers up in a way that has no integer form."""

    def build(self, shape):
        self.table = self.add_weight(shape=(10, 4))

    def call(self, tokens):
        return keras.ops.take(self.table, tokens, axis=0)

    def compute_output_spec(self, tokens):
        return keras.KerasTensor((*tokens.shape, 4), "float32")


def test_a_model_in_which_nothing_is_integer_is_refused_as_such(tmp_path):
    aware = tfprune.quantize_aware(keras.Sequential([keras.Input((3,), dtype="int32"), Looks()]))
    tokens = np.arange(6, dtype="int32").reshape(2, 3)
    aware(tokens, training=True)
    with pytest.raises(RuntimeError, match=r"Nothing in model .* computes in integers"):
        tfprune.export(aware, tmp_path / "model.tflite", quantize="int8", calibration=tokens)


class OnlyEager(keras.layers.Layer):
    def call(self, x):
        return x * float(keras.ops.sum(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_layer_that_runs_eagerly_only_is_named_with_what_it_says(tmp_path):
    model = keras.Sequential([keras.Input((4,)), OnlyEager()])
    with pytest.raises(RuntimeError, match=r"cannot be run as a TensorFlow graph.*: \S+.*Write that layer"):
        tfprune.export(model, tmp_path / "model.tflite", calibration=np.ones((2, 4), "float32"))
    assert not list(tmp_path.iterdir())


def test_converter_failures_say_what_is_missing():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(keras.ops.erfinv)])
    with pytest.raises(RuntimeError, match=r"could not convert model .* LiteRT lacks the Custom ops: Erfinv\. Replace"):
        to_tflite(model, None, None, "float32")


def test_loops_are_refused_for_int8_and_unrolled_ones_pass():
    samples = {"x": np.random.default_rng(0).random((10, 3, 2)).astype(np.float32)}
    looped = keras.Sequential([keras.Input((3, 2), name="x"), keras.layers.SimpleRNN(2)])
    with pytest.raises(ValueError, match=r"loops or branches \(While\).*unroll=True"):
        to_tflite(looped, "int8", samples, "int8")
    unrolled = keras.Sequential([keras.Input((3, 2), name="x"), keras.layers.SimpleRNN(2, unroll=True)])
    assert TFLiteModel(to_tflite(unrolled, "int8", samples, "int8")).outputs[0].dtype == np.int8
