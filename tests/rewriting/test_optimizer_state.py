"""The optimizer of a smaller model goes on where that of the model is: slots in slices, counts as they are."""

import keras
import numpy as np
import pytest
from networks import kill

import tfprune
from tfprune.layers import ScalingFactor
from tfprune.training.masks import HeldMasks
from tfprune.training.step import slots_by_path

L = keras.layers
GONE = [0, 3]
STAY = [1, 2]


def network(optimizer, run_eagerly=True, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            *(keras.Input((4, 4, 2)), L.Conv2D(4, 3, use_bias=False, name="conv"), L.BatchNormalization(name="bn")),
            *(L.ReLU(), L.Conv2D(3, 2, name="reads"), L.Flatten(), L.Dense(2, name="last")),
        ]
    )
    model.compile(optimizer, "mse", run_eagerly=run_eagerly, **options)
    return model


def data(steps):
    rng = np.random.default_rng(1)
    return rng.normal(size=(steps, 4, 4, 2)).astype("float32"), rng.normal(size=(steps, 2)).astype("float32")


def train(model, steps):
    model.fit(*data(steps), batch_size=1, shuffle=False, verbose=0)


def masked(optimizer, steps=3, **options):
    """A network that has trained with some channels, the first and last of the convolution, held at zero."""
    model = network(optimizer, **options)
    carriers = [model.get_layer("conv").kernel, model.get_layer("bn").gamma, model.get_layer("bn").beta]
    masks = {each.path: np.broadcast_to(~np.isin(np.arange(4), GONE), each.shape).copy() for each in carriers}
    held = HeldMasks(model, masks)
    train(model, steps)
    return model, held


def cut(name, values):
    """The slice of a variable that stays, by hand."""
    axis = {"conv/kernel": 3, "bn/gamma": 0, "bn/beta": 0, "reads/kernel": 2}.get(name)
    return values if axis is None else np.take(values, STAY, axis)


def slots(model):
    return {"/".join(path.split("/")[-2:]): found for path, found in slots_by_path(model).items()}


OPTIMIZERS = {
    "momentum": (lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, 60), momentum=0.9), 1),
    "Adam": (lambda: keras.optimizers.Adam(0.01), 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_steps_are_those_of_the_model_with_its_channels_held_at_zero(name):
    make, num_slots = OPTIMIZERS[name]
    model, held = masked(make(), run_eagerly=False)
    small = tfprune.shrink(model, carry_optimizer=True)
    assert small.get_layer("conv").filters == 2
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations) == 3
    before, after = slots(model), slots(small)
    assert before.keys() == after.keys()
    for path in before:
        assert len(before[path]) == len(after[path]) == num_slots
        for old, new in zip(before[path], after[path], strict=True):
            assert old.numpy().any()
            np.testing.assert_array_equal(new.numpy(), cut(path, old.numpy()))
    train(model, 50)
    train(small, 50)
    held.release()
    assert int(small.optimizer.iterations) == 53
    for old, new in zip(model.weights, small.weights, strict=True):
        expected = cut("/".join(old.path.split("/")[-2:]).replace("bn/moving", "bn/beta"), old.numpy())
        if old.path.split("/")[-1] in ("moving_mean", "moving_variance"):
            expected = old.numpy()[STAY]
        assert np.linalg.norm(new.numpy() - expected) <= 1e-6 * np.linalg.norm(expected), old.path


def test_what_belongs_to_no_weight_is_carried_too():
    inner = keras.optimizers.SGD(0.5, momentum=0.9, gradient_accumulation_steps=2)
    model, held = masked(keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0), auto_scale_loss=False)
    held.release()
    model.optimizer.inner_optimizer.learning_rate = 0.125
    small = tfprune.shrink(model, carry_optimizer=True)
    assert len(small.optimizer.variables) == len(model.optimizer.variables)
    for old, new in zip(model.optimizer.variables, small.optimizer.variables, strict=True):
        if not old.shape:
            assert old.numpy() == new.numpy(), old.path
    assert float(small.optimizer.inner_optimizer.learning_rate) == 0.125
    assert float(small.optimizer.dynamic_scale) == 1024.0
    accumulated = slots(small)["conv/kernel"]
    assert len(accumulated) == 2
    assert all(slot.numpy().any() for slot in accumulated)


def test_an_optimizer_without_a_step_carries_its_learning_rate():
    model = network(keras.optimizers.Adam(0.1))
    kill(model.get_layer("conv"), GONE, model.get_layer("bn"))
    model.optimizer.learning_rate = 0.25
    small = tfprune.shrink(model, carry_optimizer=True)
    assert float(small.optimizer.learning_rate) == 0.25
    assert not model.optimizer.built
    assert not small.optimizer.built


def test_keep_removes_what_masks_would_hold():
    model, held = masked(keras.optimizers.SGD(0.05, momentum=0.5))
    held.release()
    group = tfprune.channel_groups(model).free[1]
    small = tfprune.shrink(model, keep={group: [2]}, carry_optimizer=True)
    (old,), (new,) = slots(model)["reads/kernel"], slots(small)["reads/kernel"]
    np.testing.assert_array_equal(new.numpy(), old.numpy()[..., [2]])


def test_nothing_dead_carries_all():
    model = network(keras.optimizers.SGD(0.05, momentum=0.5))
    train(model, 1)
    with pytest.warns(UserWarning, match="No channel of the model is dead"):
        small = tfprune.shrink(model, carry_optimizer=True)
    for path, (old,) in slots(model).items():
        np.testing.assert_array_equal(slots(small)[path][0].numpy(), old.numpy())


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.Adafactor(), keras.optimizers.Lamb(), keras.optimizers.Muon()], ids=lambda o: o.name
)
def test_optimizers_that_look_at_whole_kernels_are_refused(optimizer):
    with pytest.raises(ValueError, match=f"A step of {type(optimizer).__name__} depends on the size or norm of whole"):
        tfprune.shrink(network(optimizer), carry_optimizer=True)


class Rows(keras.optimizers.SGD):
    """Keeps something of every row."""

    def build(self, variables):
        super().build(variables)
        for variable in variables:
            self.add_variable((variable.shape[0], 1), name=variable.name)


def test_slots_of_another_shape_are_refused():
    model = network(Rows())
    train(model, 1)
    kill(model.get_layer("conv"), GONE, model.get_layer("bn"))
    with pytest.raises(ValueError, match=r"Rows keeps .* that belong to no channel"):
        tfprune.shrink(model, carry_optimizer=True)


def test_a_constant_that_would_become_a_bias_is_refused():
    model = network("sgd")
    kill(model.get_layer("conv"), GONE)
    model.get_layer("bn").gamma.assign([0.0, 1.0, 1.0, 0.0])
    model.get_layer("bn").beta.assign([1.0, 0.0, 0.0, 1.0])
    before = model.get_weights()
    with pytest.raises(ValueError, match="leave constants, which shrink adds to the biases of 'reads'"):
        tfprune.shrink(model, carry_optimizer=True)
    assert all(map(np.array_equal, before, model.get_weights()))


def test_what_is_not_trained_by_one_optimizer_is_refused():
    model = keras.Sequential([keras.Input((2,)), L.Dense(3), L.Dense(1)])
    with pytest.raises(ValueError, match="is not compiled and holds no optimizer"):
        tfprune.shrink(model, carry_optimizer=True)
    model.compile("sgd", "mse")
    model.other = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="trained by several"):
        tfprune.shrink(model, carry_optimizer=True)


@pytest.mark.parametrize("option", ["approximate", "select_inputs"])
def test_what_changes_outputs_or_calls_is_refused(option):
    with pytest.raises(ValueError, match="neither approximate nor select_inputs"):
        tfprune.shrink(network("sgd"), carry_optimizer=True, **{option: True})


def test_scaling_factors_are_refused():
    model = keras.Sequential([keras.Input((2,)), L.Dense(3), ScalingFactor("channel"), L.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="has scaling factors"):
        tfprune.shrink(model, carry_optimizer=True)


def test_a_layer_that_divides_by_its_width_is_refused():
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, L.MultiHeadAttention(1, 4, name="heads")(inputs, inputs))
    model.compile("sgd", "mse")
    features = next(group for group in tfprune.channel_groups(model).free if group.name == "heads/key_dim")
    with pytest.raises(ValueError, match="divides by how many channels"):
        tfprune.shrink(model, keep={features: [0, 1]}, carry_optimizer=True)
