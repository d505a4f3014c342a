"""The table of layer kinds says what layers do: each row is checked against what the layer computes.

One more kind of layer is one more row in `KERNELS` (if it has a kernel) or `OTHERS`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from tfprune.graph import KernelAxes, LayerKind, multiply_accumulates, register_kind, walk
from tfprune.graph.kinds import KINDS, exact_kind, find_kind, kernel_axes
from tfprune.parts.kernels import kernels

L = keras.layers


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).uniform(0.5, 1.5, shape).astype("float32")


def states(cell: Any, first: np.ndarray, carry: np.ndarray) -> list[np.ndarray]:
    return [first, carry] if "LSTM" in type(cell).__name__ else [first]


def step(cell: Any, x: np.ndarray) -> Any:
    state = numbers(len(x), *x.shape[1:-1], UNITS)
    return cell(x, states(cell, state, state))[0]


def step_from(cell: Any, state: np.ndarray) -> Any:
    x = numbers(len(state), *state.shape[1:-1], INPUTS)
    return cell(x, states(cell, state, numbers(*state.shape, seed=1)))[0]


def identity(layer: Any, x: np.ndarray) -> Any:
    """The first half of a separable convolution."""
    kernel = layer.pointwise_kernel
    kernel.assign(np.eye(kernel.shape[-1]).reshape(kernel.shape))
    return layer(x)


@dataclass
class Case:
    """One kernel of one class: a layer, the shape of what the kernel reads, and how to see what it makes."""

    build: Callable[[], Any]
    shape: tuple[int, ...]
    run: Callable[[Any, np.ndarray], Any] = lambda layer, x: layer(x)
    built_on: tuple[int, ...] | None = None
    also_reads: bool = False  # the channels that it reads come to the same channels on another way too

    def layer(self) -> Any:
        layer = self.build()
        layer.build((None, *(self.built_on or self.shape)))
        for seed, variable in enumerate(layer.variables):
            if variable.dtype == "float32":
                # Divided by how many are summed up, so that no gate is far open or closed.
                variable.assign(numbers(*variable.shape, seed=seed) / np.prod(variable.shape[:-1]))
        return layer


INPUTS, UNITS = 2, 3


def recurrent(cell: type, name: str) -> Case:
    if name == "kernel":
        return Case(lambda: cell(UNITS), (INPUTS,), step)
    return Case(lambda: cell(UNITS), (UNITS,), step_from, (INPUTS,), also_reads=True)


def convolutional(layer: type, rank: int, name: str) -> Case:
    window = (4,) * rank
    size, run = (INPUTS, step) if name == "cell.kernel" else (UNITS, step_from)
    return Case(
        lambda: layer(UNITS, 3, padding="same"),
        (*window, size),
        lambda each, x: run(each.cell, x),
        (2, *window, INPUTS),
        also_reads=name != "cell.kernel",
    )


def words(layer: Any, x: np.ndarray) -> Any:
    return layer(np.arange(5)[None])


KERNELS = {
    (L.Conv1D, "kernel"): Case(lambda: L.Conv1D(3, 2), (5, 2)),
    (L.Conv2D, "kernel"): Case(lambda: L.Conv2D(3, 2), (4, 4, 2)),
    (L.Conv3D, "kernel"): Case(lambda: L.Conv3D(3, 2), (3, 3, 3, 2)),
    (L.Conv1DTranspose, "kernel"): Case(lambda: L.Conv1DTranspose(3, 2), (5, 2)),
    (L.Conv2DTranspose, "kernel"): Case(lambda: L.Conv2DTranspose(3, 2), (4, 4, 2)),
    (L.Conv3DTranspose, "kernel"): Case(lambda: L.Conv3DTranspose(3, 2), (2, 2, 2, 2)),
    (L.DepthwiseConv1D, "kernel"): Case(lambda: L.DepthwiseConv1D(2, depth_multiplier=2), (5, 3)),
    (L.DepthwiseConv2D, "kernel"): Case(lambda: L.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 3)),
    **{
        (kind, name): Case(lambda kind=kind, each=each: kind(6, 2, depth_multiplier=each), (*window, 3), run)
        for kind, window in ((L.SeparableConv1D, (5,)), (L.SeparableConv2D, (4, 4)))
        # With a multiplier of 1, the pointwise kernel reads the channels of the input.
        for name, each, run in (("depthwise_kernel", 2, identity), ("pointwise_kernel", 1, Case.run))
    },
    (L.Dense, "kernel"): Case(lambda: L.Dense(3), (2,)),
    (L.EinsumDense, "kernel"): Case(lambda: L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), (4, 2)),
    (L.Embedding, "embeddings"): Case(lambda: L.Embedding(5, 3), (4,), words),
    **{
        (cell, name): recurrent(cell, name)
        for cell in (L.SimpleRNNCell, L.GRUCell, L.LSTMCell)
        for name in ("kernel", "recurrent_kernel")
    },
    **{
        (layer, name): convolutional(layer, rank, name)
        for rank, layer in enumerate((L.ConvLSTM1D, L.ConvLSTM2D, L.ConvLSTM3D), start=1)
        for name in ("cell.kernel", "cell.recurrent_kernel")
    },
}
if hasattr(L, "ReversibleEmbedding"):
    KERNELS |= {
        (L.ReversibleEmbedding, "embeddings"): Case(lambda: L.ReversibleEmbedding(5, 3), (4,), words),
        (L.ReversibleEmbedding, "reverse_embeddings"): Case(
            lambda: L.ReversibleEmbedding(5, 3, tie_weights=False), (4, 3), lambda layer, x: layer(x, reverse=True)
        ),
    }

OTHERS = {
    L.BatchNormalization: Case(lambda: L.BatchNormalization(), (4, 4, 3)),
    L.LayerNormalization: Case(lambda: L.LayerNormalization(), (4, 3)),
    L.GroupNormalization: Case(lambda: L.GroupNormalization(2), (4, 4)),
    L.RMSNormalization: Case(lambda: L.RMSNormalization(), (4, 3)),
    L.PReLU: Case(lambda: L.PReLU(shared_axes=[1]), (4, 3), lambda layer, x: layer(-x)),
    L.RNN: Case(lambda: L.RNN(L.LSTMCell(UNITS)), (4, 3)),
    **{kind: Case(lambda kind=kind: kind(UNITS), (4, 3)) for kind in (L.SimpleRNN, L.GRU, L.LSTM)},
    L.MultiHeadAttention: Case(lambda: Itself(L.MultiHeadAttention(2, 3)), (4, 3)),
    L.GroupQueryAttention: Case(lambda: Itself(L.GroupQueryAttention(3, 2, 1)), (4, 3)),
    L.Identity: Case(lambda: L.Identity(), (4, 3)),
    L.Dropout: Case(lambda: L.Dropout(0.5), (4, 3)),
    **{
        getattr(L, f"{name}{rank}D"): Case(
            lambda name=name, rank=rank, given=given: getattr(L, f"{name}{rank}D")(*given), (*(4,) * rank, 3)
        )
        for name, *given in (
            *(("AveragePooling", 2), ("MaxPooling", 2), ("GlobalAveragePooling",), ("GlobalMaxPooling",)),
            *(("ZeroPadding",), ("Cropping",)),
        )
        for rank in (1, 2, 3)
    },
    **{
        getattr(L, f"SpatialDropout{rank}D"): Case(
            lambda rank=rank: getattr(L, f"SpatialDropout{rank}D")(0.5), (*(4,) * rank, 3)
        )
        for rank in (1, 2, 3)
    },
}


class Itself(L.Wrapper):
    """Attention of a tensor to itself."""

    def build(self, shape):
        self.layer.build(shape, shape)
        self.built = True

    def call(self, x):
        return self.layer(x, x)


def name(value: Any) -> str | None:
    return value.__name__ if isinstance(value, type) else None


def channels(case: Case, layer: Any, x: np.ndarray) -> np.ndarray:
    """What comes out, a row for each channel."""
    found = np.asarray(case.run(layer, x))
    return np.moveaxis(found, -1, 0).reshape(found.shape[-1], -1)


def different(first: np.ndarray, second: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.abs(first - second).max(axis=1) > 1e-6).tolist())


def changed(case: Case, layer: Any, x: np.ndarray, variable: Any, place: Any) -> set[int]:
    """The channels that change when a part of a variable does."""
    before, values = channels(case, layer, x), variable.numpy()
    other = values.copy()
    other[place] += 0.25
    variable.assign(other)
    after = channels(case, layer, x)
    variable.assign(values)
    return different(before, after)


def place(shape: tuple[int, ...], axes: tuple[int, ...], position: int) -> tuple[Any, ...]:
    """The slice at one position on flattened axes."""
    index = np.unravel_index(position, [shape[axis] for axis in axes])
    chosen: list[Any] = [slice(None)] * len(shape)
    for axis, number in zip(axes, index, strict=True):
        chosen[axis] = int(number)
    return tuple(chosen)


def axes_of(kind: type, attribute: str, layer: Any) -> KernelAxes:
    return next(each for each in exact_kind(layer).kernels if each.attribute == attribute)


each_kernel = pytest.mark.parametrize(("kind", "attribute"), KERNELS, ids=lambda value: name(value) or value)


@pytest.mark.sampled(12)
@each_kernel
def test_a_slice_on_the_output_axes_makes_one_channel(kind, attribute):
    case = KERNELS[kind, attribute]
    layer = case.layer()
    axes = axes_of(kind, attribute, layer)
    kernel, x = axes.of(layer), numbers(2, *case.shape)
    slices = int(np.prod([kernel.shape[axis] for axis in axes.output_axes]))
    width = len(channels(case, layer, x))
    assert slices == width * axes.gates
    for position in range(slices):
        found = changed(case, layer, x, kernel, place(kernel.shape, axes.output_axes, position))
        assert found == {position % width}
    spread = axes.along_outputs(kernel, np.arange(slices))
    assert np.broadcast_to(spread, kernel.shape)[place(kernel.shape, axes.output_axes, slices - 1)].min() == slices - 1


@pytest.mark.sampled(14)
@each_kernel
def test_a_slice_on_the_input_axis_reads_one_channel(kind, attribute):
    case = KERNELS[kind, attribute]
    layer = case.layer()
    axes = axes_of(kind, attribute, layer)
    if case.run is words:  # a lookup reads no channels
        assert axes.input_axes == axes.output_axes == (-1,)
        return
    kernel, x = axes.of(layer), numbers(2, *case.shape)

    def readers(channel: int) -> bool:
        other = x.copy()
        other[..., channel] += 0.25
        found = different(channels(case, layer, x), channels(case, layer, other))
        return bool(found - {channel} if case.also_reads else found)

    values = kernel.numpy()
    assert [readers(channel) for channel in range(case.shape[-1])] == [True] * case.shape[-1]
    for gone in range(case.shape[-1]):
        without = values.copy()
        without[place(kernel.shape, (axes.input_axis,), gone)] = 0
        kernel.assign(without)
        assert [readers(channel) for channel in range(case.shape[-1])] == [k != gone for k in range(case.shape[-1])]
    assert (axes.input_axis in axes.output_axes) == axes.depthwise  # nothing is summed
    window = axes.positions(len(kernel.shape))
    assert [kernel.shape[axis] for axis in window] == list(kernel.shape[: len(window)])


ALL = {**OTHERS, **{kind: case for (kind, _), case in KERNELS.items()}}
each_kind = pytest.mark.parametrize("kind", ALL, ids=name)


@pytest.mark.sampled(32)
@each_kind
def test_scale_shift_and_statistics_belong_to_their_channel(kind):
    case, layer = ALL[kind], ALL[kind].layer()
    row, x = find_kind(layer), numbers(2, *case.shape)
    for variable in (row.scale_of(layer), row.shift_of(layer)):
        if variable is not None:
            width = len(channels(case, layer, x))
            # A bias of its own for each gate, or for what is read and what is carried on, ends in the same channel.
            for position in range(variable.shape[-1]):
                assert changed(case, layer, x, variable, (..., position)) == {position % width}
    for attribute in row.statistics:
        variable = getattr(layer, attribute, None)
        for position in range(0 if variable is None else variable.shape[-1]):
            assert changed(case, layer, x, variable, (..., position)) == {position}


def rows_inside(layer: Any) -> list[Any]:
    return [layer, *layer._flatten_layers(include_self=False)]


@each_kind
def test_no_weight_is_forgotten(kind):
    known = set()
    layer = ALL[kind].layer()
    for each in rows_inside(layer):
        row = find_kind(each)
        held = [kernel.of(each) for kernel in row.kernels] + [row.scale_of(each), row.shift_of(each)]
        held += [getattr(each, attribute, None) for attribute in row.statistics]
        known |= {variable.path for variable in held if variable is not None}
    assert [weight.path for weight in layer.weights if weight.path not in known] == []


@each_kind
def test_factors_go_where_the_row_says(kind):
    case, layer = ALL[kind], ALL[kind].layer()
    row, x = exact_kind(layer), numbers(2, *case.shape)
    expected = channels(case, layer, x)
    factor = np.linspace(0.0, 2.0, len(expected)).astype("float32")
    if row.factors in ("input", "input_if_positive"):
        assert np.allclose(channels(case, layer, x * factor), factor[:, None] * expected, atol=1e-5)
        assert np.allclose(channels(case, layer, x * 3), 3 * expected, atol=1e-5)
        any_factor = np.allclose(channels(case, layer, x * -factor), -factor[:, None] * expected, atol=1e-5)
        assert any_factor == (row.factors == "input")
    elif row.factors == "weights":
        last = row.kernels[-1] if row.kernels else None
        main = row.scale_of(layer) if last is None else last.of(layer)
        spread = factor if last is None else last.along_outputs(main, factor)
        for variable, times in ((main, spread), (row.shift_of(layer), factor)):
            if variable is not None:
                variable.assign(variable.numpy() * times)
        assert np.allclose(channels(case, layer, x), factor[:, None] * expected, atol=1e-5)
        assert row.activation_of(layer) is keras.activations.linear


@pytest.mark.parametrize(
    "layer",
    [
        *(L.Conv1D(3, 2, strides=2), L.Conv2D(4, 2, groups=2), L.Conv3D(3, 2), L.Conv2D(3, 2, dilation_rate=2)),
        *(L.Conv1DTranspose(3, 2), L.Conv2DTranspose(3, 2, strides=2), L.Conv3DTranspose(3, 2)),
        *(L.DepthwiseConv1D(2), L.DepthwiseConv2D(2, depth_multiplier=2), L.Dense(3), L.EinsumDense("ab,bc->ac", 3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_macs_are_the_products_that_are_summed(layer):
    window = (5,) * (getattr(layer, "rank", None) or 0)
    model = keras.Sequential([keras.Input((*window, 2)), layer])
    layer.kernel.assign(np.ones(layer.kernel.shape))
    # Each product is 1 and no border is cut off: the sum of the outputs counts them.
    total = np.asarray(model(np.ones((1, *window, 2)))).sum()
    (node,) = walk(model)
    assert multiply_accumulates(node) == total


def test_macs_of_a_separable_convolution_are_those_of_two():
    def macs(*parts: Any) -> int:
        return sum(map(multiply_accumulates, walk(keras.Sequential([keras.Input((6, 6, 3)), *parts]))))

    options = {"strides": 2, "padding": "same", "depth_multiplier": 2}
    assert macs(L.SeparableConv2D(5, 3, **options)) == macs(L.DepthwiseConv2D(3, **options), L.Conv2D(5, 1)) > 0


@each_kernel
def test_int8_scales_lie_along_the_outputs(kind, attribute):
    axes = axes_of(kind, attribute, KERNELS[kind, attribute].layer())
    # Dense has one scale for all.
    assert axes.scale_axes in (None, () if kind is L.Dense else axes.output_axes)


WITHOUT_WEIGHTS_ELEMENT_BY_ELEMENT = {
    *("Activation", "ActivityRegularization", "AlphaDropout", "ELU", "GaussianDropout", "GaussianNoise", "LeakyReLU"),
    *("Masking", "ReLU", "Rescaling", "Softmax", "UnitNormalization"),
}
WITHOUT_WEIGHTS_OF_SEVERAL_TENSORS = {
    *("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"),
}
WITHOUT_WEIGHTS_ALONG_POSITIONS = {
    *(f"Adaptive{how}Pooling{rank}D" for how in ("Average", "Max") for rank in (1, 2, 3)),
    *("CenterCrop", "Flatten", "Permute", "RepeatVector", "Reshape", "Resizing"),
    *(f"UpSampling{rank}D" for rank in (1, 2, 3)),
}
WITHOUT_WEIGHTS_BEFORE_THE_MODEL_ON_IMAGES = {
    *("AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization"),
    *("MaxNumBoundingBoxes", "MixUp", "RandAugment", "Solarization", "Pipeline"),
    *(f"Random{what}" for what in ("Brightness", "ColorDegeneration", "ColorJitter", "Contrast", "Crop", "Erasing")),
    *(f"Random{what}" for what in ("ElasticTransform", "Flip", "GaussianBlur", "Grayscale", "Hue", "Invert")),
    *(f"Random{what}" for what in ("Perspective", "Posterization", "Rotation", "Saturation", "Sharpness")),
    *(f"Random{what}" for what in ("Shear", "Translation", "Zoom")),
}
WITHOUT_WEIGHTS_BEFORE_THE_MODEL_ON_WORDS = {
    *("CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "MelSpectrogram"),
    *("StringLookup", "TextVectorization"),
}
WITHOUT_WEIGHTS_BUT_THOSE_OF_LAYERS_INSIDE = {"Bidirectional", "StackedRNNCells", "TimeDistributed", "Wrapper"}
WITHOUT_WEIGHTS_TO_DERIVE_FROM = {"InputLayer", "Lambda", "Layer"}
NUMBERS_THAT_NO_CHANNEL_GOES_WITH = {
    "AdditiveAttention",  # what scores are weighted by
    "Attention",  # the same, one number
    "Normalization",  # of the data, measured before training; its channels are frozen
    "STFTSpectrogram",  # a Fourier transform
    "SpectralNormalization",  # an estimate of the largest singular value of the layer inside, which has the row
}
OF_ANOTHER_FRAMEWORK = {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"}

NO_WEIGHTS = (
    WITHOUT_WEIGHTS_ELEMENT_BY_ELEMENT
    | WITHOUT_WEIGHTS_OF_SEVERAL_TENSORS
    | WITHOUT_WEIGHTS_ALONG_POSITIONS
    | WITHOUT_WEIGHTS_BEFORE_THE_MODEL_ON_IMAGES
    | WITHOUT_WEIGHTS_BEFORE_THE_MODEL_ON_WORDS
    | WITHOUT_WEIGHTS_BUT_THOSE_OF_LAYERS_INSIDE
    | WITHOUT_WEIGHTS_TO_DERIVE_FROM
)
NO_ROW = NO_WEIGHTS | NUMBERS_THAT_NO_CHANNEL_GOES_WITH | OF_ANOTHER_FRAMEWORK


def public_layers() -> dict[str, type]:
    found = {value: key for key, value in vars(L).items() if isinstance(value, type) and issubclass(value, L.Layer)}
    return {kind.__name__: kind for kind in found}


def test_every_layer_of_keras_has_a_row_or_a_reason():
    without = {key for key, kind in public_layers().items() if kind not in KINDS}
    assert without - NO_ROW == set(), "add a row to tfprune/graph/kinds.py, or the name to a list here"
    assert NO_ROW & {kind.__name__ for kind in KINDS} == set()
    assert {kind for kind in KINDS if kind.__module__.startswith("keras.")} - set(public_layers().values()) == set()


@pytest.mark.parametrize("key", sorted(NO_WEIGHTS & set(public_layers()) - WITHOUT_WEIGHTS_TO_DERIVE_FROM))
def test_what_has_no_row_makes_no_weights(key):
    classes = [each for each in public_layers()[key].__mro__ if issubclass(each, L.Layer) and each is not L.Layer]
    assert not any("self.add_weight(" in inspect.getsource(each) for each in classes)


def test_every_row_is_checked():
    rows = {kind for kind in KINDS if kind.__module__.startswith("keras.")}
    assert rows == set(ALL)
    listed = {(kind, kernel.attribute) for kind in rows for kernel in find_kind(ALL[kind].layer()).kernels}
    assert {pair for pair in listed if pair[0] not in (L.MultiHeadAttention, L.GroupQueryAttention)} == set(KERNELS)


class TestLayersOfTheUser:
    @pytest.fixture
    def layer_class(self):
        class Gain(L.Layer):
            def build(self, shape):
                self.matrix = self.add_weight(shape=(3, shape[-1]), name="matrix")

            def call(self, x):
                return keras.ops.matmul(x, keras.ops.transpose(self.matrix))

        yield Gain
        KINDS.pop(Gain, None)

    def test_weights_of_a_layer_of_ones_own_are_found(self, layer_class):
        model = keras.Sequential([keras.Input((4, 2)), layer_class(name="own")])
        assert kernels(model) == ()
        register_kind(layer_class, LayerKind((KernelAxes("matrix", (-1,), (-2,), applied_at="outputs"),)))
        (kernel,) = kernels(model)
        assert (kernel.name, kernel.input_axis, kernel.variable) == ("own", -1, model.layers[0].matrix)
        assert kernel_axes(model.layers[0], kernel.variable).output_axis == -2
        assert sum(map(multiply_accumulates, walk(model))) == 4 * 2 * 3

    def test_a_subclass_counts_where_only_the_place_matters(self, layer_class):
        class Other(layer_class):
            pass

        kind = LayerKind((KernelAxes("matrix", (-1,), (-2,), applied_at="outputs"),))
        register_kind(layer_class, kind)
        assert (find_kind(Other()), exact_kind(Other())) == (kind, LayerKind())
        model = keras.Sequential([keras.Input((2,)), Other()])
        assert len(kernels(model)) == 1
        assert sum(map(multiply_accumulates, walk(model))) == 0

    def test_arguments_may_decide(self, layer_class):
        register_kind(layer_class, lambda layer: LayerKind((KernelAxes("matrix", (-1,), (-2,)),), hides=0))
        assert find_kind(layer_class()).hides == 0

    def test_what_is_no_class_is_refused(self, layer_class):
        with pytest.raises(TypeError, match="must be a class of layers, such as MyLayer"):
            register_kind(layer_class(), LayerKind())

    def test_int8_scales_are_refused(self, layer_class):
        kernel = KernelAxes("matrix", (-1,), (-2,), scale_axes=(-2,))
        with pytest.raises(ValueError, match=r"it has none for Gain\. Leave them out"):
            register_kind(layer_class, LayerKind((kernel,)))
        assert layer_class not in KINDS
