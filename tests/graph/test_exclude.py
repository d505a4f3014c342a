"""Chains of layers, and what is chosen by them."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.callbacks import GroupLasso, MagnitudePruning, SparseStructureSelection
from tfprune.graph.chains import Places, chains
from tfprune.graph.exclude import resolve_exclude, resolve_overrides
from tfprune.layers import ScalingFactor, with_scaling_factors
from tfprune.quantization.aware_layers import KeepFloat

L = keras.layers


def model_of(*layers, name=None):
    return keras.Sequential([keras.Input((6, 4)), *layers], name=name)


def ready(model):
    model.compile("sgd", "mse")
    return model


def names(model):
    found = [chain for chain in chains(model) if not isinstance(chain[-1], L.InputLayer)]
    return ["/".join(layer.name for layer in chain) for chain in found]


class TestChains:
    def test_wrappers_cells_and_models(self):
        inner = model_of(L.TimeDistributed(L.Dense(2, name="dense"), name="each"), name="inner")
        lstm = L.LSTM(2, name="lstm")
        lstm.cell.name = "cell"
        assert names(model_of(inner, lstm)) == ["inner", "inner/each", "inner/each/dense", "lstm", "lstm/cell"]

    def test_a_shared_layer_has_several(self):
        shared = L.Dense(4, name="shared")
        model = model_of(shared, model_of(shared, name="inner"))
        assert names(model) == ["shared", "inner", "inner/shared"]
        places = Places.of(model)
        assert [len(chain) for chain in places.of_layer[id(shared)]] == [1, 2]
        assert [len(chain) for chain in places.of_variable[id(shared.kernel)]] == [1, 2]

    def test_a_variable_belongs_to_the_layer_that_holds_it_itself(self):
        leaf = L.Dense(4, name="leaf")
        model = model_of(L.TimeDistributed(leaf, name="each"))
        assert [chain[-1] for chain in Places.of(model).of_variable[id(leaf.bias)]] == [leaf]


class TestExclude:
    def test_layers_around_and_inside(self):
        leaf, other = L.Dense(4), L.Dense(4)
        each = L.TimeDistributed(leaf)
        inner = model_of(each)
        model = model_of(inner, other)
        for named, chosen in ((leaf, [leaf]), (each, [each, leaf]), (inner, [inner, each, leaf]), (other, [other])):
            for exclude in ([named], (named,), {named}, frozenset({named}), lambda layer, named=named: layer is named):
                excluded = resolve_exclude(model, exclude)
                assert [layer for layer in (inner, each, leaf, other) if excluded(layer)] == chosen
                assert [layer for layer in (inner, each, leaf, other) if excluded.itself(layer)] == [named]
                assert [layer for layer in (leaf, other) if excluded.holds(layer.kernel)] == [
                    layer for layer in (leaf, other) if layer in chosen
                ]
                assert excluded.touches(inner) == (named is not other)

    def test_any_of_several_chains_is_enough(self):
        shared = L.Dense(4)
        inner = model_of(shared)
        assert resolve_exclude(model_of(shared, inner), [inner])(shared)

    def test_a_function_is_asked_once_for_each_layer_and_never_about_the_model(self):
        asked = []
        model = model_of(L.Dense(4, name="first"), L.Dense(4, name="second"), name="model")
        excluded = resolve_exclude(model, lambda layer: asked.append(layer.name))
        assert not any(excluded(layer) or excluded.holds(layer.kernel) for layer in [*model.layers, *model.layers])
        assert asked == ["first", "second"]

    def test_messages_name_the_argument(self):
        model = model_of(L.Dense(4))
        with pytest.raises(TypeError, match=r"^where must be a list of layer objects"):
            resolve_exclude(model, "dense", argument="where")
        with pytest.raises(ValueError, match=r"^where holds layers that are not in the model .*: \['excluded'\]"):
            resolve_exclude(model, [L.Dense(1, name="excluded")], argument="where")


class TestOverrides:
    def build(self):
        leaf, second = L.Dense(4, name="leaf"), L.Dense(4, name="second")
        inner = model_of(L.TimeDistributed(leaf, name="each"), second, name="inner")
        return model_of(inner, L.Dense(2, name="last")), inner, leaf, second

    def test_the_innermost_decides(self):
        model, inner, leaf, second = self.build()
        variables = [leaf.kernel, second.kernel, model.layers[-1].kernel]
        each = inner.layers[0]
        for given, expected in [
            ({inner: 0.5}, [0.5, 0.5, None]),
            ({inner: 0.5, each: 0.7}, [0.7, 0.5, None]),
            ({leaf: 0.9, each: 0.7, inner: 0.5}, [0.9, 0.5, None]),
            ({inner: 0.5, leaf: 0.0}, [0.0, 0.5, None]),
            ({second: 0.2}, [None, 0.2, None]),
        ]:
            assert resolve_overrides(model, given, variables) == expected
            assert resolve_overrides(model, given.get, variables) == expected
        assert resolve_overrides(model, None, variables) == [None] * 3

    def test_of_a_shared_layer_the_nearest_decides(self):
        shared = L.Dense(4)
        near, far = model_of(shared), model_of(model_of(shared))
        assert resolve_overrides(model_of(far, near), {far: 0.1, near: 0.2}, [shared.kernel]) == [0.2]

    @pytest.mark.parametrize("wrong", [0.5, "leaf", {"leaf": 0.5}, [0.5], L.Dense])
    def test_other_types_are_refused(self, wrong):
        model, *_ = self.build()
        with pytest.raises(TypeError, match="overrides must be a dict from layer objects"):
            resolve_overrides(model, wrong, [])

    def test_a_fit_prunes_what_lies_inside_as_much(self):
        model, inner, leaf, second = self.build()
        x = np.ones((4, 6, 4), "float32")
        callback = MagnitudePruning(0.25, overrides={inner: 0.5, leaf: 0.75})
        ready(model).fit(x, np.ones((4, 6, 2)), epochs=2, verbose=0, callbacks=[callback])
        zeros = [int((layer.kernel.numpy() == 0).sum()) for layer in (leaf, second, model.layers[-1])]
        assert zeros == [12, 8, 2]


def branches():
    """Three residual branches of a Dense in another nesting each."""
    x = inputs = keras.Input((6, 8))
    leaves = [L.Dense(8) for _ in range(3)]
    wrapped = [
        keras.Sequential([keras.Input((6, 8)), leaves[0]], name="nested"),
        keras.Sequential([keras.Input((6, 8)), keras.Sequential([keras.Input((6, 8)), leaves[1]])], name="deep"),
        leaves[2],
    ]
    for branch in wrapped:
        x = L.Add()([x, branch(x)])
    return keras.Model(inputs, L.Dense(2)(x)), wrapped, leaves


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("form", ["list", "function"])
def test_branches_around_an_excluded_layer_stay(number, outer, form):
    model, wrapped, leaves = branches()
    named = (wrapped if outer else leaves)[number]
    callback = GroupLasso(0.1, parts="depth", exclude=[named] if form == "list" else lambda layer: layer is named)
    ready(model)
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 1})
    callback.on_train_begin()
    pulled = {id(each.variable) for structure in callback.structures for each in structure.slices}
    assert [id(leaf.kernel) in pulled for leaf in leaves] == [leaf is not leaves[number] for leaf in leaves]


@pytest.mark.parametrize("form", ["list", "function"])
def test_factors_of_an_excluded_model_are_left_to_the_optimizer(form):
    inner = keras.Sequential([keras.Input((6, 4)), L.Dense(4), ScalingFactor("channel")])
    model = keras.Sequential([inner, ScalingFactor("channel"), L.Dense(2)])
    exclude = [inner] if form == "list" else lambda layer: layer is inner
    callback = SparseStructureSelection(0.1, exclude=exclude)
    callback.set_model(ready(model))
    callback.set_params({"epochs": 1, "steps": 1})
    callback.on_train_begin()
    assert [structure.name for structure in callback.structures] == [model.layers[1].name]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("form", ["list", "function"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_attention_or_wrapper_with_an_excluded_layer_stays_in_float(form, position):
    attention = L.MultiHeadAttention(2, 2)
    wrapper = L.TimeDistributed(L.Dense(4))
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, L.Dense(2)(wrapper(attention(inputs, inputs))))
    named = [attention._value_dense, wrapper.layer, model.layers[-1]][position]
    aware = tfprune.quantize_aware(model, exclude=[named] if form == "list" else lambda layer: layer is named)
    kept = [type(layer.layer) for layer in aware.layers if isinstance(layer, KeepFloat)]
    assert kept == [type([attention, wrapper, model.layers[-1]][position])]


@pytest.mark.parametrize("form", ["list", "function"])
def test_a_factor_stands_behind_the_named_layer_itself(form):
    inner = keras.Sequential([keras.Input((6, 4)), L.Dense(4), L.ReLU()], name="inner")
    model = keras.Sequential([inner, L.Dense(2)])
    scaled = with_scaling_factors(model, [inner] if form == "list" else lambda layer: layer is inner)
    assert [layer.name for layer in scaled.layers] == ["inner", "inner_factor", model.layers[1].name]
    assert len(scaled.layers[0].layers) == 2
