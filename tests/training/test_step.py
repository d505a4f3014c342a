import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import compiled, dense, images, randomize, same, weights_of

from tfprune.training.optimizers import optimizer_parts, updating_optimizers
from tfprune.training.step import CapturedGradients, StepHook, TrainingStep, slots_by_path

SGD = keras.optimizers.SGD


def model_with(optimizer=None, **options):
    return compiled(randomize(dense((4, 2))), optimizer or SGD(0.1), **{"jit_compile": False, **options})


def batch_of(index, size=4):
    x, y = images(32, shape=(2,), classes=2)
    return x[index * size : (index + 1) * size], y[index * size : (index + 1) * size]


def train(model, steps, callbacks=()):
    """One epoch of so many batches of four, in one order."""
    x, y = images(32, shape=(2,), classes=2)
    model.fit(x[: 4 * steps], y[: 4 * steps], batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))


def gradients_at(model, batch):
    x, y = batch
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, model(x, training=True))
    return [g.numpy() for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]


class Note(StepHook):
    """Writes its name into a list whenever the step is traced."""

    def __init__(self, model, name, calls, last=False, change=None):
        self.name, self.calls, self.last, self.change = name, calls, last, change
        super().__init__(model)

    def before_update(self, gradients):
        self.calls.append(f"{self.name} before")
        return {} if self.change is None else {path: self.change(value) for path, value in gradients.items()}

    def after_update(self, weight):
        self.calls.append(f"{self.name} after")
        return () if self.change is None else [(v, weight(v) + 1.0) for v in self._step.model.trainable_variables]


def test_hooks_run_in_their_order_and_the_last_after_all_others():
    model, calls = model_with(run_eagerly=True), []
    for name, last in (("first", False), ("last", True), ("second", False)):
        Note(model, name, calls, last)
    train(model, 1)
    assert calls == [f"{name} {when}" for when in ("before", "after") for name in ("first", "second", "last")]


def test_each_hook_sees_what_the_hooks_before_it_have_left():
    model, plain = model_with(SGD(1.0)), model_with(SGD(1.0))
    gradients = gradients_at(model, batch_of(0))
    before = weights_of(plain)
    for _ in range(2):
        Note(model, "double", [], change=lambda gradient: 2.0 * gradient)
    train(model, 1)
    for start, gradient, weight in zip(before, gradients, weights_of(model), strict=True):
        np.testing.assert_allclose(weight, start - 4.0 * gradient + 2.0, rtol=1e-5, atol=1e-6)


def test_detaching_the_last_hook_leaves_the_optimizer_as_it_was():
    model = model_with()
    apply = type(model.optimizer).apply
    hooks = [Note(model, str(index), []) for index in range(3)]
    assert "apply" in vars(model.optimizer)
    assert len(TrainingStep.hooks_of(model)) == 3
    for hook in hooks:
        assert "apply" in vars(model.optimizer)
        hook.detach()
    assert "apply" not in vars(model.optimizer)
    assert model.optimizer.apply.__func__ is apply
    assert TrainingStep.hooks_of(model) == ()
    hooks[0].detach()  # once more does no harm
    plain = model_with()
    train(model, 2)
    train(plain, 2)
    assert same(weights_of(model), weights_of(plain))


def test_hooks_reach_a_model_that_was_fitted_before_and_let_go_of_it():
    model, calls = model_with(), []
    train(model, 1)
    hook = Note(model, "note", calls)
    train(model, 1)
    assert calls
    hook.detach()
    calls.clear()
    train(model, 1)
    assert calls == []


def test_looking_for_hooks_leaves_no_trace():
    model = model_with()
    assert TrainingStep.hooks_of(model) == ()
    assert "apply" not in vars(model.optimizer)
    with pytest.raises(ValueError, match="is not compiled"):
        TrainingStep.hooks_of(dense())


def captured_of(model, replaces=False, **options):
    return CapturedGradients(model, model.trainable_variables, replaces, **options)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("steps_per_execution", "ahead"), [(1, 0), (1, 2), (4, 2)])
def test_the_gradient_of_the_step_that_was_asked_for_is_kept(steps_per_execution, ahead):
    model, other = model_with(steps_per_execution=steps_per_execution), model_with()
    train(other, ahead) if ahead else None
    expected = gradients_at(other, batch_of(ahead))
    captured = captured_of(model)
    assert all(not value.any() for value in captured.take().values())  # nothing was asked for yet
    captured.arm(ahead)
    assert captured.take() is None
    train(model, 4)
    found = captured.take()
    assert list(found) == [v.path for v in model.trainable_variables]
    for gradient, value in zip(expected, found.values(), strict=True):
        np.testing.assert_allclose(value, gradient, rtol=1e-5, atol=1e-7)
    plain = model_with()
    train(plain, 4)
    for first, second in zip(weights_of(model), weights_of(plain), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


def test_a_gradient_that_was_asked_for_too_late_is_still_awaited():
    model = model_with()
    captured = captured_of(model)
    captured.arm(5)
    train(model, 4)
    assert captured.take() is None
    train(model, 2)
    assert captured.take() is not None


COMPILED = [{}, {"steps_per_execution": 2}, {"jit_compile": True}, {"run_eagerly": True}]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("options", COMPILED, ids=str)
def test_a_step_whose_update_is_replaced_moves_nothing_but_counts(options):
    optimizer = keras.optimizers.Adam(0.1, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=1)
    model = model_with(optimizer, **options)
    captured = captured_of(model, replaces=True)
    train(model, 2)
    before = [v.numpy() for v in (*model.weights, *optimizer.variables) if "iteration" not in v.path]
    assert int(optimizer.iterations.numpy()) == 2
    captured.arm(0)
    train(model, 1)
    assert same(before, [v.numpy() for v in (*model.weights, *optimizer.variables) if "iteration" not in v.path])
    assert int(optimizer.iterations.numpy()) == 3
    train(model, 1)
    assert not same(before[: len(model.weights)], weights_of(model))


def test_several_captures_at_different_steps():
    model = model_with()
    replacing, watching, late = captured_of(model, replaces=True), captured_of(model), captured_of(model)
    replacing.arm(1)
    watching.arm(1)
    late.arm(2)
    states = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: states.append(weights_of(model)))
    train(model, 4, [note])
    moved = [not same(first, second) for first, second in itertools.pairwise(states)]
    assert moved == [False, True, True]
    replaced, watched, later = (capture.take() for capture in (replacing, watching, late))
    assert all(np.array_equal(replaced[path], watched[path]) for path in replaced)
    assert any(not np.array_equal(later[path], watched[path]) for path in later)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("replaced", [0, 1])
def test_windows_of_accumulated_gradients_stay_aligned_when_a_step_is_replaced(replaced):
    """A replaced step adds nothing to its window, which closes one step later: as if the batch had not been there."""
    model = model_with(SGD(0.1, gradient_accumulation_steps=2))
    plain = model_with(SGD(0.1, gradient_accumulation_steps=2))
    captured = captured_of(model, replaces=True)
    captured.arm(replaced)
    train(model, 5)
    x, y = images(32, shape=(2,), classes=2)
    rest = np.concatenate([np.arange(4 * index, 4 * index + 4) for index in range(5) if index != replaced])
    plain.fit(x[rest], y[rest], batch_size=4, shuffle=False, verbose=0)
    for first, second in zip(weights_of(model), weights_of(plain), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)
    assert int(model.optimizer._iterations.numpy()) == int(plain.optimizer._iterations.numpy()) == 4


def test_gradients_of_an_embedding_become_dense():
    layers = [keras.layers.Embedding(5, 3, name="table"), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = compiled(keras.Sequential([keras.Input((2,), dtype="int32"), *layers]), SGD(0.1), jit_compile=False)
    x, y = np.array([[0, 1], [1, 3]]), np.array([0, 1])
    table = model.get_layer("table").embeddings
    captured = CapturedGradients(model, [table], replaces_update=True)
    captured.arm(0)
    before = weights_of(model)
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, model(x))
    expected = tf.convert_to_tensor(tape.gradient(loss, table.value)).numpy()
    model.fit(x, y, verbose=0)
    found = captured.take()[table.path]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert found.any(axis=1).tolist() == [True, True, False, True, False]
    assert same(before, weights_of(model))


def test_gradients_in_mixed_precision_are_not_scaled():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = model_with(keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=1024.0))
        captured = captured_of(model)
        captured.arm(0)
        expected = gradients_at(model, batch_of(0))
        train(model, 1)
        for gradient, value in zip(expected, captured.take().values(), strict=True):
            np.testing.assert_allclose(value, gradient, rtol=0.02, atol=1e-3)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_variable_without_a_gradient_is_left_alone():
    inputs = keras.Input((2,))
    unused = keras.layers.Dense(3, name="unused")
    unused.build((None, 2))

    class Idle(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = unused

        def call(self, x):
            return x

    model = compiled(keras.Model(inputs, keras.layers.Dense(2)(Idle()(inputs))), SGD(0.1), jit_compile=False)
    captured = captured_of(model, replaces=True)
    captured.arm(1)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        train(model, 3)
    assert not captured.take()[unused.kernel.path].any()


def test_slots_belong_to_the_variable_with_the_longest_name_and_of_its_shape():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, name="a")(inputs)
    model = compiled(keras.Model(inputs, keras.layers.Dense(3, name="a_kernel")(x)), keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    found = slots_by_path(model)
    assert {path: [slot.name for slot in slots] for path, slots in found.items()} == {
        path: [f"{path.replace('/', '_')}_{slot}" for slot in ("momentum", "velocity")]
        for path in ("a/kernel", "a/bias", "a_kernel/kernel", "a_kernel/bias")
    }


def test_optimizers_inside_an_optimizer_are_found():
    choice = keras.optimizers.OptimizerMap(SGD(), {".*hidden.*": keras.optimizers.Adam()})
    parts = keras.optimizers.MultiOptimizer(choice)
    model = model_with(keras.optimizers.LossScaleOptimizer(SGD()))
    assert [type(part).__name__ for each in updating_optimizers(model) for part in optimizer_parts(each)] == ["SGD"]
    assert [type(part).__name__ for part in optimizer_parts(parts)] == ["MultiOptimizer", "Adam", "SGD"]
