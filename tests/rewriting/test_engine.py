"""Every way of making a changed copy keeps what it does not change, for every kind of model."""

import keras
import numpy as np
import pytest
from model_kinds import KINDS, OwnStep, data, made

import tfprune
from tfprune.exporting.convert import _Float32
from tfprune.graph import analyse, functional, walk
from tfprune.layers import with_scaling_factors
from tfprune.rewriting.cloning import duplicate
from tfprune.rewriting.copies import Copies

FLAT = ("quantize_aware", "strip")
L = keras.layers


def without_one(model):
    group = tfprune.channel_groups(model).free[0]
    return tfprune.shrink(model, {group: np.arange(group.size - 1)})


def behind_hidden(model):
    hidden = [layer for layer in functional(model).layers if layer.name == "hidden"]
    return with_scaling_factors(model, hidden)


COPIES = {
    "nothing": lambda model: duplicate(model, analyse(model))[0],
    "shrink": without_one,
    "widen": lambda model: tfprune.widen(model, 2.0),
    "scaling factors": behind_hidden,
    "quantize_aware": tfprune.quantize_aware,
    "strip": lambda model: tfprune.strip(tfprune.quantize_aware(model)),
    "float32": lambda model: _Float32().rewrite(model),
}
SAME_NUMBERS = ("nothing", "scaling factors", "strip", "float32")


def as_numbers(outputs):
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(outputs)]


def input_names(model):
    return [tensor.name for tensor in functional(model).inputs]


def expected_class(name, change):
    if name == "Sequential":
        return type(made("functional")) if change in FLAT else keras.Sequential
    return OwnStep if name == "functional subclass" else type(made("functional"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("name", KINDS)
def test_what_a_copy_keeps(name, change, tmp_path):
    model, (x, y) = made(name), data(name)
    before = as_numbers(model(x))
    copy = COPIES[change](model)
    found = copy(x)
    assert type(copy) is expected_class(name, change)
    assert copy.name == model.name
    assert input_names(copy) == input_names(model)
    keras.tree.assert_same_structure(found, model(x))
    assert copy.optimizer is not model.optimizer
    assert copy.optimizer.get_config() == model.optimizer.get_config()
    assert copy.loss == "mse"
    assert copy.run_eagerly
    if change in SAME_NUMBERS:
        for old, new in zip(before, as_numbers(found), strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
    assert functional(copy).output_names == functional(model).output_names
    if change not in FLAT and name != "subclassed":
        kept = [layer.name for layer in copy.layers if "_factor" not in layer.name]
        assert kept == [layer.name for layer in model.layers]
    logs = copy.fit(x, y, verbose=0).history
    assert ("mine" in logs) == (name == "functional subclass")
    copy.save(tmp_path / "copy.keras")
    loaded = keras.models.load_model(tmp_path / "copy.keras", safe_mode=name != "Lambda")
    for old, new in zip(as_numbers(copy(x)), as_numbers(loaded(x)), strict=True):
        np.testing.assert_array_equal(new, old)
    for old, new in zip(before, as_numbers(model(x)), strict=True):
        np.testing.assert_array_equal(new, old)


def test_nested_models_stay_nested_and_shared():
    copy = tfprune.widen(made("nested twice"), 2.0)
    deep = copy.get_layer("middle").get_layer("deep")
    assert type(deep) is keras.Sequential
    assert deep.get_layer("deepest").units == 10
    small = without_one(made("shared layers"))
    assert len(small.get_layer("hidden")._inbound_nodes) == 2


def test_flat_copies_have_one_layer_of_each_name():
    names = [layer.name for layer in tfprune.strip(tfprune.quantize_aware(made("nested twice"))).layers]
    assert [name for name in names if name.startswith("hidden")] == ["hidden", "hidden_1"]
    assert not any(isinstance(layer, keras.Model) for layer in tfprune.quantize_aware(made("nested twice")).layers)


def test_flat_copies_have_one_name_for_an_operation_and_a_layer():
    inputs = keras.Input((4,))
    doubled = keras.ops.multiply(inputs, 2.0)
    (node,) = (each for each in walk(keras.Model(inputs, doubled)))
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name=node.operation.name)])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    for outputs in (inner(doubled), keras.ops.add(inner(inputs), doubled)):
        model = keras.Model(inputs, outputs)
        aware = tfprune.quantize_aware(model)
        aware(x, training=True)
        np.testing.assert_allclose(tfprune.strip(aware)(x), model(x), rtol=1e-6)


def test_operations_count_among_the_names_of_a_flat_copy():
    inputs = keras.Input((4,))
    (node,) = walk(keras.Model(inputs, keras.ops.reshape(inputs, (-1, 2, 2))))
    name, first, second = node.operation.name, Copies(rename=True), Copies(rename=True)
    assert first.of(node.operation) is node.operation
    assert first.unused(name) == f"{name}_1"
    assert second.unused(name) == name
    copy = second.of(node.operation)
    assert copy is second.of(node.operation)
    assert copy.name == f"{name}_1"
    assert copy(np.zeros((3, 4))).shape == (3, 2, 2)


def test_half_precision_twins_of_every_form():
    inputs = keras.Input((4,), name="image")
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3, dtype="mixed_float16", name="half")], name="inner")
    model = keras.Model({"image": inputs}, {"out": L.Dense(2, name="out")(inner(inputs))})
    twin = tfprune.exporting.convert.float32_twin(model)
    assert twin.get_layer("inner").get_layer("half").compute_dtype == "float32"
    x = {"image": np.ones((2, 4), "float32")}
    np.testing.assert_allclose(as_numbers(twin(x)), as_numbers(model(x)), rtol=1e-2, atol=1e-3)


class OwnConstructor(OwnStep):
    """Makes layers of its own accord, so a copy of another size cannot be one."""

    def __init__(self, width, **kwargs):
        inputs = keras.Input((4,))
        super().__init__(inputs, L.Dense(2)(L.Dense(width, "relu", name="hidden")(inputs)), **kwargs)


class PassedOn(OwnStep):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = 0


class OwnSequential(keras.Sequential):
    def train_step(self, data):
        return {**super().train_step(data), "mine": keras.ops.convert_to_tensor(1.0)}


class OwnCallAndStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.end = L.Dense(6, name="hidden"), L.Dense(2)

    def call(self, x):
        return self.end(self.hidden(x))

    def train_step(self, data):
        return {**super().train_step(data), "mine": keras.ops.convert_to_tensor(1.0)}


def own_call_and_step():
    model = OwnCallAndStep()
    model(np.zeros((1, 4), "float32"))
    return model


@pytest.mark.sampled(1)
@pytest.mark.parametrize("make", [lambda: OwnConstructor(6), own_call_and_step])
@pytest.mark.parametrize("change", [without_one, tfprune.quantize_aware])
def test_a_train_step_that_cannot_be_kept_is_named(make, change):
    model = make()
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="Functional and no Own.*its train_step") as said:
        copy = change(model)
    ours = [str(each.message) for each in said if each.category is UserWarning]
    assert len(ours) == 1, ours
    assert "mine" not in copy.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0).history


@keras.saving.register_keras_serializable("tests")
class OwnCompile(OwnStep):
    """Takes more to compile than a copy could be given."""

    def compile(self, extra, **kwargs):
        super().compile(**kwargs)


def test_what_only_the_converter_sees_is_not_compiled():
    inputs = keras.Input((4,))
    half = L.Dense(2, dtype="mixed_float16")(inputs)
    model = OwnCompile(inputs, half)
    model.compile("more", optimizer="sgd", loss="mse")
    twin = tfprune.exporting.convert.float32_twin(model)
    assert not twin.compiled
    assert twin.layers[-1].compute_dtype == "float32"
    assert model.compiled


def test_constructors_that_pass_everything_on_are_kept():
    inputs = keras.Input((4,))
    model = PassedOn(inputs, L.Dense(2)(L.Dense(6, name="hidden")(inputs)))
    assert without_one(model).seen == 0


def test_sequential_subclasses_are_kept_where_they_can_be():
    model = OwnSequential([keras.Input((4,)), L.Dense(6, name="hidden"), L.Dense(2)])
    assert type(without_one(model)) is OwnSequential
    with pytest.warns(UserWarning, match="train_step"):
        tfprune.quantize_aware(model)


def test_very_deep_models_of_all_forms():
    import sys

    steps = [L.Dense(2, name=f"dense_{index}") for index in range(80)]
    chain = keras.Sequential([keras.Input((2,)), *steps])
    inputs = x = keras.Input((2,))
    for step in steps:
        x = step(x)
    graph = keras.Model(inputs, x)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        copies = [duplicate(model, analyse(model))[0] for model in (chain, graph)]
    finally:
        sys.setrecursionlimit(limit)
    assert [len(copy.layers) for copy in copies] == [80, 81]
