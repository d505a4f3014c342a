"""`exclude` means the same everywhere: for every kind of nesting, however the layer is named, and whoever is asked.

One model holds a leaf in every kind of nesting. Each case names one layer of every chain that leads to a leaf, in both
forms. The leaves must be left alone then, and something else must not. That they would not be without `exclude` is
checked as well.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest

import tfprune
from tfprune.callbacks import (
    FPGM,
    SET,
    FilterPruning,
    GraNet,
    GroupLasso,
    GroupNormRegularization,
    GrowingRegularization,
    LayerwiseDensity,
    MagnitudePruning,
    MorphNet,
    NetworkSlimming,
    RigL,
    SoftFilterPruning,
    StaticSparsity,
)
from tfprune.parts.kernels import kernels
from tfprune.quantization.aware_layers import QuantizeWeights

L = keras.layers


def around(*layers):
    """A nested Sequential model of layers, for sequences of length 6 with 4 features."""
    return keras.Sequential([keras.Input((6, 4)), *layers])


def in_sequential():
    leaf = L.Dense(8)
    outer = around(leaf)
    return [outer, leaf]


def in_functional():
    leaf, inputs = L.Dense(8), keras.Input((6, 4))
    outer = keras.Model(inputs, L.ReLU()(leaf(inputs)))
    return [outer, leaf]


def in_time_distributed():
    leaf = L.Dense(8)
    return [L.TimeDistributed(leaf), leaf]


def in_bidirectional():
    outer = L.Bidirectional(L.LSTM(4, return_sequences=True))
    return [outer, outer.forward_layer, outer.forward_layer.cell]


@keras.saving.register_keras_serializable("tests")
class Twice(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [L.Dense(8), L.Dense(8)]

    def build(self, shape):
        self.parts[0].build(shape)
        self.parts[1].build((*shape[:-1], 8))

    def call(self, x):
        return self.parts[1](self.parts[0](x))


def in_custom_layer():
    outer = Twice()
    return [outer, outer.parts[0]]


def in_three_models():
    leaf = L.Dense(8)
    inner = around(leaf)
    middle = around(inner)
    outer = around(middle)
    return [outer, middle, inner, leaf]


def attention():
    outer = L.MultiHeadAttention(2, 3, value_dim=4, output_shape=8)
    outer.build((None, 6, 4), (None, 6, 4))
    return [outer, outer._value_dense]  # private; grouped attention has no public name for it


KINDS = {
    "sequential": in_sequential,
    "functional": in_functional,
    "time-distributed": in_time_distributed,
    "bidirectional": in_bidirectional,
    "custom-layer": in_custom_layer,
    "three-models": in_three_models,
    "attention": attention,
}
OUT_OF_REACH = {
    "quantize_aware": {"time-distributed", "bidirectional", "attention"},
    "NetworkSlimming": {"custom-layer", "attention"},  # no gamma behind the leaf
    "MorphNet": {"custom-layer", "attention"},
}
POSITIONS = {"outer": 0, "inside": 1, "leaf": -1}


@functools.cache
def built():
    """A compiled model, the chains that lead to its leaves, and the weights it was made with."""
    chains = {kind: make() for kind, make in KINDS.items()}
    inputs = keras.Input((6, 4))
    branches = []
    for kind, (outer, *_) in chains.items():
        x = outer(inputs, inputs) if kind == "attention" else outer(inputs)
        branches.append(L.ReLU()(L.BatchNormalization(gamma_initializer="random_uniform")(x)))
    x = L.ReLU()(
        L.BatchNormalization(gamma_initializer="random_uniform")(L.Dense(8, name="other")(L.Concatenate()(branches)))
    )
    model = keras.Model(inputs, L.Dense(2, name="classes")(L.GlobalAveragePooling1D()(x)))
    model.compile("sgd", "mse")
    return model, chains, model.get_weights()


def ids(variables):
    return {id(variable) for variable in variables}


def of_groups(model, exclude):
    groups = tfprune.channel_groups(model, exclude)
    return ids(member.variable for group in groups.free for member in group.producers)


def of_prune_channels(model, exclude):
    small = tfprune.prune_channels(model, 0.5, exclude=exclude)
    pairs = zip(model.variables, small.variables, strict=True)
    # An input axis is shorter because the layer before was pruned: what counts is the number of outputs.
    return ids(old for old, new in pairs if len(old.shape) > 1 and old.shape[-1] != new.shape[-1])


def of_kernels(model, exclude):
    return ids(kernel.variable for kernel in kernels(model, exclude))


def named(model, names):
    by_name = {kernel.name: kernel.variable for kernel in kernels(model)}
    return ids(by_name[name] for name in names)


def of_density(model, exclude):
    return named(model, [row.name for row in tfprune.layerwise_density(model, exclude).kernels])


def of_quantize_aware(model, exclude):
    aware = tfprune.quantize_aware(model, exclude=exclude)
    rounded = {layer.layer.name for layer in aware.layers if isinstance(layer, QuantizeWeights)}
    return ids(kernel.variable for kernel in kernels(model) if kernel.layer.name in rounded)


def of_cluster(model, exclude):
    pairs = zip(model.variables, tfprune.cluster(model, 2, exclude=exclude).variables, strict=True)
    return ids(old for old, new in pairs if not np.array_equal(old, new))


def begun(model, callback):
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 10})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    return callback


def zeroed(make):
    """What a filter callback sets to zero in an epoch without a step."""

    def of_filters(model, exclude):
        callback = begun(model, make(exclude))
        callback.on_epoch_end(0, {})
        callback.on_train_end()
        pairs = zip(model.weights, built()[2], strict=True)
        return ids(each for each, before in pairs if not np.array_equal(each.numpy(), before))

    return of_filters


def masked(make):
    def of_masks(model, exclude):
        callback = begun(model, make(exclude))
        found = callback.masks
        callback.on_train_end()
        return named(model, found)

    return of_masks


def pulled(make):
    def of_structures(model, exclude):
        callback = begun(model, make(exclude))
        found = [each.variable for structure in callback.structures for each in structure.slices]
        found += [each.variable for switched in getattr(callback, "switched", ()) for each in switched.carriers.slices]
        callback.on_epoch_end(0, {})
        callback.on_train_end()
        return ids(found)

    return of_structures


def logged(model, exclude):
    logs = {}
    begun(model, LayerwiseDensity(exclude=exclude)).on_epoch_end(0, logs)
    return named(model, [name.removeprefix("density/") for name in logs if "/" in name])


TAKERS: dict[str, Callable] = {
    "channel_groups": of_groups,
    "prune_channels": of_prune_channels,
    "kernels": of_kernels,
    "layerwise_density": of_density,
    "LayerwiseDensity": logged,
    "quantize_aware": of_quantize_aware,
    "cluster": of_cluster,
    "FilterPruning-hard": zeroed(lambda exclude: FilterPruning(0.5, mode="hard", exclude=exclude)),
    "FilterPruning-layer": zeroed(lambda exclude: FilterPruning(0.5, scope="layer", exclude=exclude)),
    "FPGM": zeroed(lambda exclude: FPGM(0.5, exclude=exclude)),
    "SoftFilterPruning": zeroed(lambda exclude: SoftFilterPruning(0.5, exclude=exclude)),
    "MagnitudePruning": masked(lambda exclude: MagnitudePruning(0.5, exclude=exclude)),
    "StaticSparsity": masked(lambda exclude: StaticSparsity(0.5, exclude=exclude)),
    "SET": masked(lambda exclude: SET(0.5, exclude=exclude)),
    "RigL": masked(lambda exclude: RigL(0.5, exclude=exclude)),
    "GraNet": masked(lambda exclude: GraNet(0.5, exclude=exclude)),
    "GroupLasso": pulled(lambda exclude: GroupLasso(0.1, exclude=exclude)),
    "GroupLasso-filter": pulled(lambda exclude: GroupLasso(0.1, parts="filter", exclude=exclude)),
    "GroupNormRegularization": pulled(lambda exclude: GroupNormRegularization(0.1, exclude=exclude)),
    "GrowingRegularization": pulled(lambda exclude: GrowingRegularization(0.1, exclude=exclude)),
    "NetworkSlimming": pulled(lambda exclude: NetworkSlimming(0.1, 0.125, exclude=exclude)),
    "MorphNet": pulled(lambda exclude: MorphNet(0.1, exclude=exclude)),
}


def touched_by(taker, exclude):
    model, _, weights = built()
    model.set_weights(weights)
    return TAKERS[taker](model, exclude)


touched_without_exclude = functools.cache(functools.partial(touched_by, exclude=None))


WHOLE_TABLE = ("channel_groups", "kernels", "FPGM", "MagnitudePruning")
NAMED = [(position, form) for position in POSITIONS for form in ("list", "function")]
SOME = [("outer", "function"), ("inside", "function"), ("leaf", "list")]
CASES = [(taker, *each) for taker in TAKERS for each in (NAMED if taker in WHOLE_TABLE else SOME)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("taker", "position", "form"), CASES, ids=["-".join(case) for case in CASES])
def test_a_layer_is_left_alone_however_it_is_named(taker, position, form):
    leaves = {kind: ids(chain[-1].variables) for kind, chain in built()[1].items()}
    within_reach = {kind for kind, leaf in leaves.items() if leaf & touched_without_exclude(taker)}
    assert within_reach == {*KINDS} - OUT_OF_REACH.get(taker, set())
    layers = [chain[POSITIONS[position]] for chain in built()[1].values()]
    exclude = layers if form == "list" else lambda layer: any(layer is each for each in layers)
    touched = touched_by(taker, exclude)
    assert touched, "everything is left alone"
    assert not {kind for kind, leaf in leaves.items() if leaf & touched}, "excluded, and not left alone"


@pytest.mark.sampled(6)
@pytest.mark.parametrize("taker", TAKERS)
def test_foreign_layers_and_other_types_are_refused_before_training(taker):
    with pytest.raises(ValueError, match=r"exclude holds layers that are not in the model .*: \['stranger'\]"):
        touched_by(taker, [L.Dense(1, name="stranger")])
    for wrong in ("other", ["other"], L.Dense):
        with pytest.raises(TypeError, match=r"exclude must be a list of layer objects.*\[model.get_layer\(name\)\]"):
            touched_by(taker, wrong)
