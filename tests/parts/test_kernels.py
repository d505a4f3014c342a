"""Which kernels of a model can be pruned one by one."""

import keras
import numpy as np
import pytest

from tfprune.parts.kernels import Kernel, kernels

L = keras.layers


def model_of(*layers, shape=(4,), name="model"):
    return keras.Sequential([keras.Input(shape), *layers], name=name)


def names(model, exclude=None):
    return [kernel.name for kernel in kernels(model, exclude)]


def described(model):
    return [(k.name, tuple(k.variable.shape), k.input_axis, k.depthwise) for k in kernels(model)]


def numbers(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype("float32")


def zero(kernel: Kernel, axis: int, index: int = 1) -> None:
    values = kernel.variable.numpy()
    np.moveaxis(values, axis, 0)[index] = 0
    kernel.variable.assign(values)


def other_feature(x, index: int = 1):
    changed = x.copy()
    changed[..., index] *= -2  # a shift of all keys alike would not show
    return changed


def depends(call, x) -> bool:
    """Whether the result depends on input feature 1."""
    return not np.allclose(call(x), call(other_feature(x)), atol=1e-5)


READING = [
    (L.Conv1D(2, 3, name="a"), (8, 4), (3, 4, 2), -2),
    (L.Conv2D(2, 3, name="a"), (5, 5, 4), (3, 3, 4, 2), -2),
    (L.Conv3D(2, 3, name="a"), (4, 4, 4, 4), (3, 3, 3, 4, 2), -2),
    (L.Conv1DTranspose(2, 3, name="a"), (5, 4), (3, 2, 4), -1),
    (L.Conv2DTranspose(2, 3, name="a"), (4, 4, 4), (3, 3, 2, 4), -1),
    (L.Conv3DTranspose(2, 2, name="a"), (3, 3, 3, 4), (2, 2, 2, 2, 4), -1),
    (L.Dense(3, name="a"), (4,), (4, 3), -2),
    (L.EinsumDense("abc,cd->abd", (None, 3), name="a"), (5, 4), (4, 3), -2),
    (L.EinsumDense("abc,dc->abd", (None, 3), name="a"), (5, 4), (3, 4), -1),
    (L.EinsumDense("...x,xyz->...yz", (2, 3), name="a"), (4,), (4, 2, 3), -3),
    (L.EinsumDense("abc,bcd->ad", (3,), name="a"), (5, 4), (5, 4, 3), -2),
]
RECURRENT = [
    (L.SimpleRNN(3, name="a"), (5, 4), (4, 3), (3, 3)),
    (L.LSTM(3, name="a"), (5, 4), (4, 12), (3, 12)),
    (L.GRU(3, name="a"), (5, 4), (4, 9), (3, 9)),
    (L.RNN(L.LSTMCell(3), name="a"), (5, 4), (4, 12), (3, 12)),
    (L.ConvLSTM1D(3, 2, name="a"), (5, 6, 4), (2, 4, 12), (2, 3, 12)),
    (L.ConvLSTM2D(3, 2, name="a"), (3, 4, 4, 4), (2, 2, 4, 12), (2, 2, 3, 12)),
    (L.ConvLSTM3D(3, 2, name="a"), (2, 3, 3, 3, 4), (2, 2, 2, 4, 12), (2, 2, 2, 3, 12)),
]


def fresh(layer):
    return type(layer).from_config(layer.get_config())


def kind(value):
    return type(value).__name__ if isinstance(value, L.Layer) else None


class TestKinds:
    @pytest.mark.parametrize(("layer", "shape", "kernel_shape", "axis"), READING, ids=kind)
    def test_a_layer_with_one_kernel(self, layer, shape, kernel_shape, axis):
        model = model_of(fresh(layer), shape=shape)
        assert described(model) == [("a", kernel_shape, axis, False)]
        (kernel,) = kernels(model)
        assert kernel.layer is model.layers[0]
        assert kernel.path == kernel.variable.path
        x = numbers(2, *shape)
        assert depends(model, x)
        zero(kernel, axis)
        assert not depends(model, x)

    @pytest.mark.parametrize(
        ("layer", "shape", "kernel_shape"),
        [
            (L.DepthwiseConv1D(3, depth_multiplier=2, name="a"), (8, 4), (3, 4, 2)),
            (L.DepthwiseConv2D(3, name="a"), (5, 5, 4), (3, 3, 4, 1)),
        ],
        ids=kind,
    )
    def test_depthwise(self, layer, shape, kernel_shape):
        model = model_of(fresh(layer), shape=shape)
        assert described(model) == [("a", kernel_shape, -2, True)]
        zero(kernels(model)[0], -2)
        assert not depends(model, numbers(2, *shape))

    @pytest.mark.parametrize("part", [0, 1])
    @pytest.mark.parametrize("layer", [L.SeparableConv1D(2, 3, name="a"), L.SeparableConv2D(2, 3, name="a")], ids=kind)
    def test_separable(self, layer, part):
        rank = layer.rank
        shape = (6,) * rank + (4,)
        model = model_of(fresh(layer), shape=shape)
        assert described(model) == [
            ("a/depthwise_kernel", (3,) * rank + (4, 1), -2, True),
            ("a/pointwise_kernel", (1,) * rank + (4, 2), -2, False),
        ]
        zero(kernels(model)[part], -2)
        assert not depends(model, numbers(2, *shape))

    @pytest.mark.parametrize(("layer", "shape", "kernel_shape", "recurrent_shape"), RECURRENT, ids=kind)
    def test_recurrent(self, layer, shape, kernel_shape, recurrent_shape):
        model = model_of(fresh(layer), shape=shape)
        assert described(model) == [
            ("a/kernel", kernel_shape, -2, False),
            ("a/recurrent_kernel", recurrent_shape, -2, False),
        ]
        kernel, recurrent = kernels(model)
        assert kernel.layer is recurrent.layer is model.layers[0]
        x = numbers(2, *shape)
        assert depends(model, x)
        zero(kernel, -2)
        assert not depends(model, x)
        # One step: the old state 1 reaches other units through the recurrent kernel only.
        # The state of a convolutional cell has the size of its output.
        states = [numbers(2, *(size - 1 for size in shape[1:-1]), 3)] * 2

        def step(state):
            result = model.layers[0].cell(x[:, 0], [state, states[1]])[0]
            return np.delete(np.array(result), 1, axis=-1)

        assert depends(step, states[0])
        zero(recurrent, -2)
        assert not depends(step, states[0])

    def test_embedding(self):
        model = model_of(L.Embedding(7, 4, name="a"), shape=(5,))
        assert described(model) == [("a", (7, 4), -1, False)]
        zero(kernels(model)[0], -1)
        assert not np.array(model(np.ones((1, 5))))[..., 1].any()

    @pytest.mark.parametrize(
        ("layer", "heads"),
        [(L.MultiHeadAttention(2, 3, name="a"), 2), (L.GroupQueryAttention(3, 2, 1, name="a"), 1)],
        ids=kind,
    )
    def test_attention(self, layer, heads):
        inputs = [keras.Input((5, 4)), keras.Input((6, 4)), keras.Input((6, 4))]
        attention = fresh(layer)
        model = keras.Model(inputs, attention(inputs[0], inputs[1], inputs[2]))
        assert described(model) == [
            ("a/query", (4, 2, 3), -3, False),
            ("a/key", (4, heads, 3), -3, False),
            ("a/value", (4, heads, 3), -3, False),
            ("a/attention_output", (2, 3, 4), -2, False),
        ]
        query, key, value, output = kernels(model)
        assert {kernel.layer for kernel in (query, key, value, output)} == {attention}
        # The call takes query, value, key.
        given = [numbers(2, 5, 4), numbers(2, 6, 4), numbers(2, 6, 4)]
        for kernel, place in [(query, 0), (value, 1), (key, 2)]:

            def call(x, place=place):
                return model([*given[:place], x, *given[place + 1 :]])

            before = kernel.variable.numpy()
            assert depends(call, given[place])
            zero(kernel, kernel.input_axis)
            assert not depends(call, given[place])
            kernel.variable.assign(before)

        def project(values):
            value.variable.assign(values)
            return np.array(model(given))

        assert depends(project, value.variable.numpy())
        zero(output, -2)
        assert not depends(project, value.variable.numpy())

    def test_an_equation_that_sums_nothing(self):
        assert described(model_of(L.EinsumDense("ab,b->ab", (4,), name="a"))) == [("a", (4,), -1, False)]

    def test_others_have_none(self):
        assert kernels(model_of(L.BatchNormalization(), L.PReLU())) == ()


class TestPlaces:
    def test_wrappers_and_stacked_cells(self):
        model = model_of(
            L.TimeDistributed(L.Dense(3, name="dense"), name="each"),
            L.Bidirectional(L.GRU(2, name="gru", return_sequences=True), name="both"),
            L.RNN([L.LSTMCell(2, name="first"), L.GRUCell(2, name="second")], name="rnn"),
            shape=(5, 4),
        )
        parts = ["kernel", "recurrent_kernel"]
        assert names(model) == [
            "each/dense",
            *(f"both/{way}_gru/{part}" for way in ("forward", "backward") for part in parts),
            *(f"rnn/{cell}/{part}" for cell in ("first", "second") for part in parts),
        ]
        assert kernels(model)[0].layer is model.layers[0].layer
        assert kernels(model)[-1].layer is model.layers[-1]

    def test_nested_models_at_any_depth(self):
        inner = model_of(L.Dense(4, name="a"), name="inner")
        middle = model_of(inner, L.Dense(4, name="a"), name="middle")
        assert names(model_of(middle, L.Dense(4, name="a"))) == ["middle/inner/a", "middle/a", "a"]

    def test_a_shared_layer_counts_once(self):
        shared, inputs = L.Dense(4, name="shared"), keras.Input((4,))
        inner = model_of(shared, name="inner")
        model = keras.Model(inputs, shared(inner(shared(inputs))))
        assert len(kernels(model)) == 1

    def test_inside_custom_layers_and_subclassed_models(self):
        # Reads the private layer._flatten_layers.
        class Block(L.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.parts = [L.Dense(4, name="same"), L.Dense(4, name="same")]
                self.scale = self.add_weight(shape=(), name="scale")  # so that the call cannot be read

            def call(self, x):
                return self.scale * self.parts[1](self.parts[0](x))

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.block, self.last = Block(name="block"), L.Dense(2, name="last")

            def call(self, x):
                return self.last(self.block(x))

        model = Own()
        model(numbers(2, 4))
        assert names(model) == ["block/same", "block/same_1", "last"]
        assert names(model, [model.block]) == ["last"]
        assert names(model, [model.block.parts[0]]) == ["block/same", "last"]

    def test_subclasses_count(self):
        class Mine(L.Dense):
            pass

        assert names(model_of(Mine(2, name="a"))) == ["a"]

    def test_unbuilt_is_refused(self):
        with pytest.raises(ValueError, match="is not built"):
            kernels(keras.Sequential([L.Dense(1)]))


class TestLeftOut:
    def build(self):
        inner = model_of(L.Dense(4, name="b"), L.Dense(4, name="c"), name="inner")
        return model_of(L.Dense(4, name="a"), inner, L.Dense(4, name="d"))

    def test_frozen_layers(self):
        model = self.build()
        model.layers[1].layers[0].trainable = False
        assert names(model) == ["a", "inner/c", "d"]
        model.trainable = False
        assert kernels(model) == ()

    def test_exclude(self):
        model = self.build()
        inner = model.layers[1]
        assert names(model, [model.layers[0], inner]) == ["d"]
        assert names(model, [inner.layers[0]]) == ["a", "inner/c", "d"]
        assert names(model, lambda layer: layer.name in "ac") == ["inner/b", "d"]
        assert names(model, []) == names(model) == ["a", "inner/b", "inner/c", "d"]

    def test_exclude_inside_what_the_user_knows(self):
        model = model_of(L.Bidirectional(L.LSTM(2)), shape=(5, 4))
        assert names(model, [model.layers[0]]) == []
        assert names(model, lambda layer: isinstance(layer, L.LSTM)) == []
        assert len(names(model, [model.layers[0].forward_layer])) == 2

    def test_exclude_of_another_kind_or_model_is_refused(self):
        model = self.build()
        with pytest.raises(ValueError, match=r"not in the model 'model': \['stranger'\]"):
            kernels(model, [L.Dense(1, name="stranger")])
        for wrong in ["a", ["a"], model.layers[0]]:
            with pytest.raises(TypeError, match="exclude must be a list of layer objects"):
                kernels(model, wrong)

    @pytest.mark.parametrize("mode", ["int8", "float8"])
    def test_a_quantized_layer_is_refused(self, mode):
        model = self.build()
        model.layers[0].quantize(mode)
        with pytest.raises(ValueError, match=f"'a' is quantized to {mode}"):
            kernels(model)
        assert names(model, [model.layers[0]]) == ["inner/b", "inner/c", "d"]
        model.layers[0].trainable = False
        assert names(model) == ["inner/b", "inner/c", "d"]

    @pytest.mark.parametrize("layer", [L.Dense(3, name="a"), L.Embedding(5, 3, name="a")], ids=kind)
    def test_lora_is_refused(self, layer):
        model = model_of(fresh(layer))
        model.layers[0].enable_lora(1)
        with pytest.raises(ValueError, match="'a' has LoRA enabled"):
            kernels(model)
