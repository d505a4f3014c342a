"""Steps that are made by optimizers other than `model.optimizer`: pruned like all others, or refused at once."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.callbacks import FPGM, SET, GraNet, GroupLasso, GrowingRegularization, MagnitudePruning, RigL
from tfprune.distributions import uniform
from tfprune.schedules import Cosine, Polynomial
from tfprune.training.optimizers import updating_optimizers
from tfprune.training.step import TrainingStep

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


class TwoParts(keras.Model):
    """Trains each of its two layers by `step_of(model, index)`, a function of gradients and weights."""

    step_of = None

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        parts = [self.get_layer("hidden").trainable_variables, self.get_layer("last").trainable_variables]
        gradients = tape.gradient(loss, [[v.value for v in part] for part in parts])
        for index, (grads, part) in enumerate(zip(gradients, parts, strict=True)):
            type(self).step_of(self, index)(grads, part)
        return {"loss": loss}


def two_parts(step_of, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, "relu", name="hidden")(inputs)
    model = type("Own", (TwoParts,), {"step_of": step_of})(inputs, keras.layers.Dense(3, name="last")(hidden))
    model.compile("rmsprop", "mse", **options)
    return model


def by(find):
    """Each part is trained by the optimizer that is found for it."""
    return lambda model, index: lambda grads, part: find(model)[index].apply_gradients(zip(grads, part, strict=True))


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 8)).astype("float32"), rng.normal(size=(64, 3)).astype("float32")


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(*data(), batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options).history


class Zeros(keras.callbacks.Callback):
    """The fraction of zeros in each kernel, after every step."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([float((layer.kernel.numpy() == 0).mean()) for layer in self.model.layers[1:]])


def attributes(model):
    model.first, model.second = SGD(0.05, momentum=0.9), Adam(0.01)
    return lambda model: (model.first, model.second)


def in_a_dict(model):
    model.optimizers = {"hidden": SGD(0.05), "last": [Adam(0.01)]}
    return lambda model: (model.optimizers["hidden"], model.optimizers["last"][0])


def scaled(model):
    model.both = (keras.optimizers.LossScaleOptimizer(SGD(0.05), initial_scale=1.0), Adam(0.01, use_ema=True))
    return lambda model: model.both


def inside_a_layer(model):
    model.get_layer("hidden").trainer, model.get_layer("last").trainer = SGD(0.05), SGD(0.05, momentum=0.5)
    return lambda model: (model.get_layer("hidden").trainer, model.get_layer("last").trainer)


def shared_with_its_own(model):
    model.second = Adam(0.01)
    return lambda model: (model.optimizer, model.second)


PLACES = [attributes, in_a_dict, scaled, inside_a_layer, shared_with_its_own]
CALLBACKS = [
    lambda: MagnitudePruning(Polynomial(0.5, initial=0.4, frequency=2, end=8), distribution=uniform),
    lambda: SET(0.5, distribution=uniform, seed=1),
    lambda: RigL(0.5, drop=Cosine(0.3, frequency=5), distribution=uniform, seed=1),
    lambda: GraNet(Polynomial(0.5, initial=0.4, frequency=4, end=8), seed=1),
    lambda: FPGM(0.5),
]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("place", "make"), list(zip(PLACES, CALLBACKS, strict=True)))
def test_zeros_are_held_in_every_step_of_every_optimizer(place, make):
    model = two_parts(by(lambda model: found(model)))
    found = place(model)
    zeros = Zeros()
    history = fit(model, make(), zeros)
    least = 0.3 if make in CALLBACKS[:3] else 0.0  # GraNet ranks both layers together, FPGM leaves the outputs alone
    assert all(each[0] >= 0.3 and each[1] >= least for each in zeros.seen)
    pruned = [model.get_layer("hidden")] if make is CALLBACKS[-1] else model.layers[1:]
    measured = np.mean(np.concatenate([(layer.kernel.numpy() == 0).ravel() for layer in pruned]))
    assert history["sparsity"][-1] == pytest.approx(0.5, abs=0.01)
    assert measured == pytest.approx(0.5, abs=0.04)  # living zeros that have just grown
    for optimizer in [*updating_optimizers(model), model.optimizer]:
        assert "apply" not in vars(optimizer)
    assert "fit" not in vars(model)


def test_nothing_is_remembered_of_masked_weights():
    model = two_parts(by(lambda model: (model.first, model.second)))
    model.first, model.second = SGD(0.05, momentum=0.9), Adam(0.01)
    fit(model, MagnitudePruning(Polynomial(0.5, initial=0.5), distribution=uniform))
    for optimizer, name in ((model.first, "hidden"), (model.second, "last")):
        slots = [slot for slot in optimizer.variables if f"{name}_kernel_" in slot.path]
        assert slots
        for slot in slots:
            assert slot.numpy().any()
            assert not slot.numpy()[model.get_layer(name).kernel.numpy() == 0].any()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_rigl_replaces_one_update_of_each_optimizer(steps_per_execution):
    model = two_parts(by(lambda model: (model.first, model.second)), steps_per_execution=steps_per_execution)
    model.first, model.second = SGD(0.05), Adam(0.01)
    callback = RigL(0.5, drop=Cosine(0.3, frequency=6, begin=3, end=4), distribution=uniform, seed=1)
    before = []
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: before.append(callback.masks))
    fit(model, callback, look, epochs=1)
    changed = [
        any((first[name] != second[name]).any() for name in first) for first, second in itertools.pairwise(before)
    ]
    assert sum(changed) == 1
    assert int(model.first.iterations.numpy()) == int(model.second.iterations.numpy()) == 8


def test_a_proximal_step_is_made_once_with_the_rate_of_the_optimizer_that_trains_the_weight():
    """One step from equal weights: what the penalty takes off is rate * strength of each part's own optimizer."""
    after = []
    for callbacks in ([], [GroupLasso(0.1, parts="filter", size_weighting=False)]):
        model = two_parts(by(lambda model: (model.first, model.second)))
        model.first, model.second = SGD(0.5), SGD(0.125)
        x, y = data()
        model.fit(x, y, batch_size=64, verbose=0, callbacks=callbacks)
        after.append(model.get_layer("hidden").kernel.numpy())
    plain, pulled = (np.linalg.norm(kernel, axis=0) for kernel in after)
    np.testing.assert_allclose(pulled, plain - 0.5 * 0.1, rtol=1e-5)


def test_growing_decays_grow_once_for_each_step():
    model = two_parts(by(lambda model: (model.first, model.second)))
    model.first, model.second = SGD(1e-6), SGD(1e-6)
    callback = GrowingRegularization(0.1, frequency=2)
    fit(model, callback, epochs=1)
    (grown,) = callback.decays().values()
    assert grown.max() == pytest.approx(0.4)  # the weakest, after 8 steps


def by_hand(model, index):
    return lambda grads, part: [variable.assign_sub(0.1 * grad) for grad, variable in zip(grads, part, strict=True)]


def half_by_hand(model, index):
    return by_hand(model, index) if index else lambda grads, part: model.optimizer.apply(grads, part)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("step_of", "make"),
    [
        (by_hand, CALLBACKS[0]),
        (half_by_hand, CALLBACKS[2]),
        (by_hand, CALLBACKS[4]),
        (half_by_hand, lambda: GroupLasso(0.01)),
    ],
)
def test_steps_that_nobody_knows_of_end_the_fit_at_once(step_of, make):
    model = two_parts(step_of)
    with pytest.raises(ValueError, match=r"trained past model.optimizer(.|\n)*keep that optimizer as an attribute"):
        fit(model, make())
    assert "apply" not in vars(model.optimizer)
    fit(model, epochs=1)


def test_an_optimizer_in_a_closure_ends_the_fit_at_once():
    model = two_parts(lambda model, index: lambda grads, part: closed[index].apply(grads, part))
    closed = SGD(0.1), SGD(0.1)
    with pytest.raises(ValueError, match=r"RigL prunes are trained past model.optimizer"):
        fit(model, CALLBACKS[2]())


def test_a_loop_of_ones_own_is_told_to_give_its_optimizer():
    model = two_parts(None)
    x, y = data()
    optimizer = SGD(0.1)
    callbacks = keras.callbacks.CallbackList([CALLBACKS[0]()], model=model, epochs=1, steps=8)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - y) ** 2)
    optimizer.apply(tape.gradient(loss, [v.value for v in model.trainable_variables]), model.trainable_variables)
    with pytest.raises(ValueError, match="that its train_step or your loop uses"):
        callbacks.on_train_batch_end(0, {})


def test_optimizers_are_found_wherever_a_model_holds_them():
    model = two_parts(None)
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    inner.compile(SGD(), "mse")
    model.inner = inner
    model.others = [{"a": (Adam(),)}, keras.optimizers.LossScaleOptimizer(Adam())]
    found = updating_optimizers(model)
    assert found[0] is model.optimizer
    expected = [model.optimizer, inner.optimizer, model.others[0]["a"][0], model.others[1].inner_optimizer]
    assert {id(each) for each in found} == {id(each) for each in expected}


def test_gradients_without_variables_are_those_that_the_optimizer_was_built_with():
    """Fails when Keras moves the one private attribute of an optimizer that is read."""
    model = two_parts(lambda model, index: lambda grads, part: (model.first, model.second)[index].apply(grads))
    model.first, model.second = SGD(0.1), SGD(0.1)
    model.first.build(model.get_layer("hidden").trainable_variables)
    model.second.build(model.get_layer("last").trainable_variables)
    zeros = Zeros()
    fit(model, CALLBACKS[1](), zeros, epochs=1)
    assert all(min(each) >= 0.5 for each in zeros.seen)
    assert TrainingStep.hooks_of(model) == ()
