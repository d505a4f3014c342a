import keras
import numpy as np
import pytest
from networks import chain, dense

from tfprune.graph import check_traceable, walk
from tfprune.graph.walk import functional

L = keras.layers


def names(model):
    return [node.operation.name for node in walk(model)]


def test_keras_still_has_the_private_attribute_that_walk_reads():
    model = functional(dense())
    depths = model._nodes_by_depth
    assert sorted(depths, reverse=True) == [2, 1, 0]
    assert [node.operation.name for node in depths[0]] == ["classes"]
    assert [node.is_input for node in depths[2]] == [True]


def test_calls_come_after_the_calls_they_depend_on():
    inputs = keras.Input((4, 4, 2))
    left = L.Conv2D(3, 1, name="left")(inputs)
    right = L.Conv2D(3, 1, name="right")(L.ReLU(name="relu")(inputs))
    model = keras.Model(inputs, L.Add(name="add")([left, right]))
    order = names(model)
    assert sorted(order) == ["add", "left", "relu", "right"]
    assert order[-1] == "add"
    assert order.index("relu") < order.index("right")


def test_a_shared_layer_is_called_as_often_as_it_is_called():
    inputs = keras.Input((2,))
    layer = L.Dense(2, name="shared")
    nodes = list(walk(keras.Model(inputs, layer(layer(inputs)))))
    assert [node.operation for node in nodes] == [layer, layer]
    assert nodes[0].outputs[0] is nodes[1].inputs[0]


def test_shapes_have_no_batch_axis():
    (node, *_) = walk(chain())
    assert node.input_shapes == [(8, 8, 2)]
    assert node.output_shapes == [(8, 8, 4)]


def test_a_nested_model_is_one_call():
    inner = dense()
    inputs = keras.Input((2,))
    assert [node.operation for node in walk(keras.Model(inputs, inner(inputs)))] == [inner]


def test_only_calls_between_inputs_and_outputs_count():
    inputs = keras.Input((2,))
    middle = L.Dense(2, name="middle")(inputs)
    L.Dense(2, name="elsewhere")(middle)
    assert names(keras.Model(inputs, middle)) == ["middle"]


def test_functional_shares_layers():
    model = dense()
    assert functional(model).get_layer("hidden") is model.get_layer("hidden")


class OwnCall(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = L.Dense(2)

    def call(self, x):
        return self.layer(x) * self.layer.bias


class OwnCallOnGraph(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs) * 2.0


class OwnTrainStep(keras.Model):
    def train_step(self, *args):
        return super().train_step(*args)


def test_a_model_with_its_own_call_is_refused():
    model = OwnCall()
    model(np.zeros((1, 3)))
    with pytest.raises(
        ValueError, match=r"OwnCall.* computes in its own call\(\).*uses the variable.*keras.Model\(inputs, outputs\)"
    ):
        check_traceable(model)


def test_a_sequential_with_its_own_call_is_refused():
    with pytest.raises(ValueError, match="computes in its own call"):
        check_traceable(OwnCallOnGraph([keras.Input((2,)), L.Dense(1)]))


def test_a_functional_model_with_its_own_train_step_is_read():
    inputs = keras.Input((2,))
    model = OwnTrainStep(inputs, L.Dense(1, name="only")(inputs))
    assert names(model) == ["only"]


@pytest.mark.parametrize("model", [keras.Sequential(), keras.Sequential([L.Dense(1)]), OwnCall()])
def test_an_unbuilt_model_is_refused(model):
    with pytest.raises(ValueError, match=r"is not built.*keras\.Input"):
        check_traceable(model)


def test_something_else_is_refused():
    with pytest.raises(TypeError, match=r"Expected a Keras 3 model.*Received the path 'model\.keras'\. Load it first"):
        check_traceable("model.keras")


def test_a_tf_keras_model_is_named_as_such():
    old = type("Functional", (), {"__module__": "tf_keras.src.engine.functional"})()
    with pytest.raises(TypeError, match=r"Received: Functional\. It comes from tf_keras"):
        check_traceable(old)
