"""Layers that a file stores in another way than its mode says, and kernels in blocks."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import tfprune
from tfprune import ExportOptions, LayerPrecisions, export
from tfprune.exporting.convert import to_tflite
from tfprune.exporting.layer_operators import layer_operators, operator_settings
from tfprune.exporting.layer_storage import store_weights
from tfprune.exporting.stored_kernels import stored_kernels
from tfprune.exporting.zeros import zeros_kept
from tfprune.tflite.unpacking import TFLiteFile, operator_name, type_name

L = keras.layers


@pytest.fixture(scope="module")
def net():
    """BatchNormalization that becomes a part of a convolution, and kernels that no whole block fits into."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="image")
    first = L.ReLU(name="relu")(
        L.BatchNormalization(name="norm")(L.Conv2D(16, 3, padding="same", name="first")(inputs))
    )
    x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(first)
    x = L.Add(name="sum")([L.Conv2D(16, 1, activation="swish", name="second")(x), first])
    x = keras.Sequential([keras.Input((6, 6, 16)), L.Conv2D(4, 3, name="within")], name="inner")(x)
    return keras.Model(inputs, L.Dense(2, name="last")(L.Flatten(name="flat")(x)), name="net")


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(20, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def real(net):
    return to_tflite(net, None, None, "float32")


@pytest.fixture
def stored(net, real):
    """Stores the weights of the float file, and says in what: names of layers, and the file."""

    def store(quantize, **precisions):
        wanted = LayerPrecisions(**precisions)
        operators = layer_operators(real, net)
        settings = operator_settings(operators, net, wanted)
        file = store_weights(real, quantize, operators, settings, wanted.block_size)
        return dtypes(file), file

    return store


def dtypes(file):
    """What the kernels of a file are stored in, by the name of the layer."""
    (graph,) = file.model.subgraphs
    constants = [
        each for each in graph.tensors if len(each.shape) > 1 and file.model.buffers[each.buffer].data is not None
    ]
    return {each.name.decode().split("/")[-2].removesuffix("_1"): type_name(each) for each in constants}


MOSTLY = dict.fromkeys(["first", "second", "within", "last"], "int4") | {"depthwise": "float32"}


def test_int8_leaves_layers_in_float(net, x, tmp_path):
    options = ExportOptions(precisions=LayerPrecisions(exclude=[net.get_layer("second"), net.get_layer("inner")]))
    report = export(net, tmp_path / "a.tflite", quantize="int8", calibration=x, options=options)
    assert {(each.name, each.reason.partition(":")[2]) for each in report.float_operators} == {
        ("CONV_2D", " on request"),
        ("LOGISTIC", " on request"),
        ("MUL", " on request"),
    }
    assert sum(each.count for each in report.float_operators) == 4
    expected = dict.fromkeys(["first", "depthwise", "last"], "int8") | {"second": "float32", "within": "float32"}
    assert dtypes(TFLiteFile.read(tmp_path / "a.tflite")) == expected
    assert report.io_dtype == "int8"


def test_weights_of_layers_are_stored_in_bits_of_their_own(net, stored):
    layer = net.get_layer
    overrides = {layer("depthwise"): "int8_weights", layer("inner"): "int8_weights"}
    found, _ = stored("int4_weights", overrides=overrides, exclude=[layer("last")])
    assert found == MOSTLY | {"depthwise": "int8", "within": "int8", "last": "float32"}
    found, _ = stored("int8_weights", overrides=lambda layer: "int4_weights" if layer.name == "first" else None)
    assert found == dict.fromkeys(MOSTLY, "int8") | {"first": "int4"}
    overrides = {layer("inner"): "int8_weights", layer("inner").get_layer("within"): "int4_weights"}
    assert stored("int4_weights", overrides=overrides)[0] == MOSTLY  # the innermost decides


def test_a_function_that_excludes_all_leaves_the_float_file(stored, real):
    found, file = stored("int4_weights", exclude=lambda layer: True)
    assert set(found.values()) == {"float32"}
    for ours, theirs in zip(stored_kernels(file.model), stored_kernels(real.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def blocks():
    """A model of one kernel, the kernel as blocks rounded by hand, and the file."""
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((64,)), L.Dense(3, use_bias=False, name="only")])
    kernel = random.normal(size=(64, 3)).astype("float32")
    kernel[32:] *= 10  # one scale for both halves would leave the first nothing
    kernel[:32, 1] = 0
    model.get_layer("only").kernel.assign(kernel)
    file = to_tflite(model, "int4_weights", None, "float32", precisions=LayerPrecisions(block_size=32))
    rows = kernel.T.reshape(3, 2, 32)
    scales = np.abs(rows).max(axis=2, keepdims=True) / 7
    return model, (np.rint(rows / np.where(scales == 0, 1, scales)) * scales).reshape(3, 64), file


@pytest.mark.parametrize("resolver", ["AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"])
def test_blocks_are_computed_as_by_hand_in_every_kernel_of_the_runtime(blocks, resolver):
    _, rounded, file = blocks
    options = {"experimental_op_resolver_type": OpResolverType[resolver]}
    runner = Interpreter(model_content=file.content, **options).get_signature_runner()
    sample = np.random.default_rng(1).normal(size=(1, 64)).astype("float32")
    (found,) = runner(**{next(iter(runner.get_input_details())): sample}).values()
    np.testing.assert_allclose(found, sample @ rounded.T, rtol=1e-4, atol=1e-4)


def test_zeros_in_blocks_are_kept_and_found(blocks):
    model, _, file = blocks
    assert [each.shape for each in stored_kernels(file.model)] == [(3, 64)]
    assert zeros_kept(model, file) == 1.0


def test_blocks_of_convolutions_are_read_counted_and_packed(net, stored, tmp_path):
    kept = {net.get_layer("first"): "int8_weights"}  # 3 x 3 x 3 weights for each channel
    found, file = stored("int4_weights", overrides=kept, block_size=16)
    assert found == MOSTLY | {"first": "int8"}
    names = [operator_name(file.model, each) for each in file.model.subgraphs[0].operators]
    assert (names.count("DEQUANTIZE"), names.count("RESHAPE")) == (4, 4)  # one of them is Flatten
    (tmp_path / "a.tflite").write_bytes(file.content)
    sizes = {
        each.name.split("/")[-2]: each for each in tfprune.coded_size(tmp_path / "a.tflite").tensors if "/" in each.name
    }
    second = sizes["second_1"]
    assert (second.weights, second.stored_bytes) == (256, 128)
    assert second.values <= 15
    tfprune.pack(tmp_path / "a.tflite", tmp_path / "a.tfz")
    tfprune.unpack(tmp_path / "a.tfz", tmp_path / "b.tflite")
    assert (tmp_path / "b.tflite").read_bytes() == file.content


@pytest.mark.parametrize(
    ("quantize", "precisions", "message"),
    [
        (
            "dynamic",
            {"exclude": []},
            "cannot be used with quantize='dynamic'.* Use 'int8', 'int8_weights' or 'int4_wei",
        ),
        ("int16x8", {"exclude": []}, "cannot be used with quantize='int16x8'"),
        ("int8", {"overrides": {}}, "no converter mixes it with others. Use 'int8_weights' or 'int4_weights'"),
        (
            "int8_weights",
            {"block_size": 32},
            "block_size is for quantize='int4_weights'. Received: quantize='int8_weig",
        ),
        ("int4_weights", {"overrides": lambda layer: "int2"}, "int8_weights or int4_weights. Received: 'int2'"),
        ("int4_weights", {"exclude": [L.Dense(2, name="other")]}, r"are not in the model 'net': \['other'\]"),
    ],
)
def test_what_a_mode_cannot_store_is_refused_before_conversion(
    net, x, tmp_path, monkeypatch, quantize, precisions, message
):
    monkeypatch.setattr("tfprune.exporting.exporter.to_tflite", lambda *_: pytest.fail("converted something"))
    options = ExportOptions(precisions=LayerPrecisions(**precisions))
    with pytest.raises(ValueError, match=message):
        export(net, tmp_path / "a.tflite", quantize=quantize, calibration=x, options=options)


def test_a_quantize_aware_model_has_chosen_already(tmp_path):
    aware = tfprune.quantize_aware(keras.Sequential([keras.Input((4,)), L.Dense(2)]))
    options = ExportOptions(precisions=LayerPrecisions(exclude=[]))
    with pytest.raises(ValueError, match=r"which layers round was chosen when it was made"):
        export(aware, tmp_path / "a.tflite", quantize="int8", options=options)


def test_wrong_kinds_are_refused(net, stored):
    with pytest.raises(TypeError, match="For a layer by name"):
        stored("int4_weights", overrides={"first": "int8_weights"})
    with pytest.raises(TypeError, match="must be a dict from layer objects to modes"):
        LayerPrecisions(overrides="int8_weights")
    with pytest.raises(ValueError, match=r"one of \[16, 32, 64, 128, 256\], or None. Received: 48"):
        LayerPrecisions(block_size=48)
    with pytest.raises(TypeError, match=r"must be tfprune\.LayerPrecisions. Received: list"):
        ExportOptions(precisions=[])
    twins = keras.Sequential([keras.Input((8,)), L.Dense(8, name="same"), keras.Sequential([L.Dense(2, name="same")])])
    with pytest.raises(ValueError, match=r"called \['same'\].*Give them names of their own"):
        LayerPrecisions(exclude=[twins.layers[0]]).settings(twins)


def test_what_the_file_cannot_have_is_refused(net, stored):
    with pytest.raises(ValueError, match=r"\['norm'\] have no operator of their own"):
        stored("int4_weights", exclude=[net.get_layer("norm")])
    with pytest.raises(ValueError, match=r"divide into blocks of 16: first with relu\. .*overrides="):
        stored("int4_weights", block_size=16)
    with pytest.raises(ValueError, match="no convolution or Dense kernel is stored in 4 bits"):
        stored("int4_weights", exclude=lambda layer: True, block_size=32)


def test_int8_of_what_the_converter_renames_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2DTranspose(2, 3, name="transposed")])
    data = np.random.default_rng(0).normal(size=(8, 4, 4, 1))
    options = ExportOptions(precisions=LayerPrecisions(exclude=list(model.layers)))
    with pytest.raises(ValueError, match=r"does not leave \['transposed'\] in float"):
        export(model, tmp_path / "a.tflite", quantize="int8", calibration=data, options=options)
    assert list(tmp_path.iterdir()) == []
