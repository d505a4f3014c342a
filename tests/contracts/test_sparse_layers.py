"""Every kind of layer, trained with the callback that needs most of it: RigL wants a dense gradient of every kernel."""

import keras
import numpy as np
import pytest
from networks import compiled
from sparse_rows import Watcher, floor, masks_of, pruned

from tfprune.callbacks import GraNet, MagnitudePruning, RigL
from tfprune.granularity import Block, NofM
from tfprune.parts.kernels import kernels
from tfprune.schedules import Constant, Polynomial

L = keras.layers


def after(*parts, shape, integers=False):
    """Layers one after the other, then a classifier that is told apart by its name."""
    inputs = keras.Input(shape, dtype="int32" if integers else None)
    x = inputs
    for part in parts:
        x = part(x)
    if len(x.shape) > 2:
        x = L.Flatten()(x)
    return keras.Model(inputs, L.Dense(3, name="classes")(x))


def attention():
    inputs = keras.Input((4, 6))
    x = L.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    return keras.Model(inputs, L.Dense(3, name="classes")(L.Flatten()(x)))


def nested():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, name="inside"), L.ReLU()], name="inner")
    return after(inner, L.Dense(4, name="outside"), shape=(6,))


def shared():
    layer, inputs = L.Dense(6, name="shared"), keras.Input((6,))
    return keras.Model(inputs, L.Dense(3, name="classes")(layer(L.ReLU()(layer(inputs)))))


KINDS = {
    "Conv1D": (lambda: after(L.Conv1D(4, 3, name="kind"), shape=(8, 4)), 1),
    "Conv2D": (lambda: after(L.Conv2D(4, 3, name="kind"), shape=(5, 5, 4)), 1),
    "Conv2D-groups": (lambda: after(L.Conv2D(4, 3, groups=2, name="kind"), shape=(5, 5, 4)), 1),
    "Conv3D": (lambda: after(L.Conv3D(4, 2, name="kind"), shape=(3, 3, 3, 2)), 1),
    "Conv1DTranspose": (lambda: after(L.Conv1DTranspose(4, 3, name="kind"), shape=(4, 4)), 1),
    "Conv2DTranspose": (lambda: after(L.Conv2DTranspose(4, 3, name="kind"), shape=(3, 3, 4)), 1),
    "Conv3DTranspose": (lambda: after(L.Conv3DTranspose(4, 2, name="kind"), shape=(2, 2, 2, 2)), 1),
    "SeparableConv1D": (lambda: after(L.SeparableConv1D(4, 3, name="kind"), shape=(8, 4)), 1),
    "SeparableConv2D": (lambda: after(L.SeparableConv2D(4, 3, name="kind"), shape=(5, 5, 4)), 1),
    "EinsumDense": (lambda: after(L.EinsumDense("abc,cde->abde", (4, 2, 3), name="kind"), shape=(4, 6)), 1),
    "Embedding": (lambda: after(L.Embedding(11, 6, name="kind"), shape=(4,), integers=True), 1),
    "MultiHeadAttention": (attention, 4),
    "LSTM": (lambda: after(L.LSTM(5, name="kind"), shape=(4, 6)), 2),
    "GRU": (lambda: after(L.GRU(5, name="kind"), shape=(4, 6)), 2),
    "SimpleRNN": (lambda: after(L.SimpleRNN(5, name="kind"), shape=(4, 6)), 2),
    "Bidirectional": (lambda: after(L.Bidirectional(L.GRU(3), name="kind"), shape=(4, 6)), 4),
    "TimeDistributed": (lambda: after(L.TimeDistributed(L.Dense(5), name="kind"), shape=(4, 6)), 1),
    "nested": (nested, 2),
    "shared": (shared, 1),
}
DEFAULT = ["Conv1D", "Conv3DTranspose", "SeparableConv2D", "EinsumDense", "Embedding", "MultiHeadAttention", "LSTM"]


def train(model, callback):
    random = np.random.default_rng(0)
    shape = (24, *model.inputs[0].shape[1:])
    whole = model.inputs[0].dtype == "int32"
    x = random.integers(0, 11, shape) if whole else random.normal(size=shape).astype("float32")
    watcher = Watcher(callback)
    compiled(model, keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=False)
    model.fit(x, random.integers(0, 3, 24), batch_size=4, callbacks=[watcher, callback], verbose=0)
    assert watcher.seen.wrong == []
    assert watcher.seen.num_slots >= 6 * len(kernels(model)) - 6 * sum(k.depthwise for k in kernels(model))
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)


def check_kind(name):
    make, number = KINDS[name]
    model, starts = make(), []

    class Noted(RigL):
        def update_masks(self, weights, masks, gradients, time):
            starts.append((masks, gradients))
            return super().update_masks(weights, masks, gradients, time)

    train(model, Noted(0.5, drop=Constant(0.5, end=4, frequency=2), seed=1))
    found = [kernel for kernel in kernels(model) if not kernel.depthwise]
    assert len(found) == number + 1
    assert len(starts) == 3
    final = masks_of(model)
    for kernel in found:
        assert int(final[kernel.name].sum()) == int(starts[0][0][kernel.name].sum())
        gradient = starts[0][1][kernel.name]
        assert gradient.shape == tuple(kernel.variable.shape)
        dead = ~starts[0][0][kernel.name]
        # The gradient of masked weights is there too, unless the layer is dense.
        assert not dead.any() or np.any(gradient[dead]), kernel.name
    assert sum(int((~mask).sum()) for mask in final.values()) > 0
    for layer in (kernel for kernel in kernels(model) if kernel.depthwise):
        assert pruned(model)[layer.name] == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", DEFAULT)
def test_kinds_of_layers(name):
    check_kind(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KINDS if name not in DEFAULT])
def test_more_kinds_of_layers(name):
    check_kind(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pattern", [NofM(1, 2), NofM(2, 4), Block((2, 2)), Block((4, 1))], ids=str)
def test_kinds_of_layers_with_patterns(name, pattern):
    model = KINDS[name][0]()
    callback = MagnitudePruning(Polynomial(0.5, end=4, frequency=2), granularity=pattern)
    if isinstance(pattern, Block) and any(kernel.input_axis == -3 for kernel in kernels(model)):
        with pytest.raises(ValueError, match=r"cannot be pruned so. Leave it out with `exclude`, or: Blocks lie in"):
            train(model, callback)
    else:
        train(model, callback)
        assert sum(pruned(model).values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_layers_with_granet(name):
    model = KINDS[name][0]()
    train(model, GraNet(Polynomial(0.8, initial=0.0, end=4, frequency=2), seed=1))
    masks = [mask for name, mask in masks_of(model).items() if "depthwise" not in name]
    assert sum(int((~mask).sum()) for mask in masks) == floor(sum(mask.size for mask in masks) * 0.8)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("layer", [L.DepthwiseConv2D, L.DepthwiseConv1D, L.SeparableConv2D])
def test_depthwise_kernels_are_pruned_only_where_they_are_named(layer):
    shape = (8, 4) if layer is L.DepthwiseConv1D else (5, 5, 4)
    options = {"filters": 4} if layer is L.SeparableConv2D else {}

    def make():
        return after(layer(kernel_size=3, name="kind", **options), shape=shape)

    model, named = make(), make()
    train(model, RigL(0.5, drop=Constant(0.5, end=4, frequency=2), seed=1))
    depthwise = next(kernel.name for kernel in kernels(model) if kernel.depthwise)
    assert pruned(model)[depthwise] == 0
    overrides = {named.get_layer("kind"): 0.25}
    train(named, RigL(0.5, drop=Constant(0.5, end=4, frequency=2), seed=1, overrides=overrides))
    mask = masks_of(named)[depthwise]
    assert int((~mask).sum()) == mask.size // 4
