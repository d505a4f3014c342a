import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from networks import chain, compiled, images, outputs, randomize, relative_difference, residual, same, weights_of

import tfprune
from tfprune.callbacks import SparseStructureSelection
from tfprune.callbacks.penalties.structure_selection import accelerated_proximal_step
from tfprune.layers import scaling_factors, with_scaling_factors
from tfprune.schedules import Cosine
from tfprune.training.step import slots_by_path

L = keras.layers
X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = X + np.random.default_rng(1).normal(size=(6, 4)).astype("float32")


def two_blocks():
    """x + f1 * (x A), then h + f2 * (h B), with factors in it."""
    inputs = x = keras.Input((4,))
    for name in ("first", "second"):
        x = L.Add(name=name)([x, L.Dense(4, use_bias=False, name=f"{name}_dense")(x)])
    return with_scaling_factors(randomize(keras.Model(inputs, x)))


def fit(model, callback, data=(X, Y), batch_size=2, epochs=1, **options):
    return model.fit(
        *data, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **{"callbacks": [callback], **options}
    )


def factors(model):
    return [layer.factor.numpy() for layer in scaling_factors(model)]


def reference(model, strength, rates, momentum=0.9, train_kernels=True):
    """The same training in NumPy: factors by the paper, kernels by gradient descent."""
    kernels = [model.get_layer(f"{name}_dense").kernel.numpy().astype(float) for name in ("first", "second")]
    lam, velocity = np.ones(2), np.zeros(2)
    strengths = np.broadcast_to(strength, len(rates))
    for step, rate in enumerate(rates):
        start = step * 2 % len(X)
        x, y = X[start : start + 2].astype(float), Y[start : start + 2].astype(float)
        a = x @ kernels[0]
        h = x + lam[0] * a
        b = h @ kernels[1]
        error = 2 * (h + lam[1] * b - y) / y.size
        to_b = lam[1] * error
        to_h = error + to_b @ kernels[1].T
        gradient = np.array([(to_h * a).sum(), (error * b).sum()])
        moves = [x.T @ (lam[0] * to_h), h.T @ to_b]
        if train_kernels:
            kernels = [kernel - rate * move for kernel, move in zip(kernels, moves, strict=True)]
        near = lam - rate * gradient
        near = np.sign(near) * np.maximum(np.abs(near) - rate * strengths[step], 0)
        velocity = near - lam + momentum * velocity
        lam = np.maximum(0, near + momentum * velocity)
    return lam, kernels


def test_three_steps_by_hand():
    # Learning rate 0.1, strength 1, momentum 0.9. First factor, step 1: u = 1 - 0.1 * 0.5 = 0.95,
    # z = 0.95 - 0.1 = 0.85, v = 0.85 - 1 = -0.15, factor = 0.85 - 0.9 * 0.15 = 0.715.
    # The second is zero for two steps, and comes back.
    factor, velocity = ops.array([1.0, 0.15]), ops.array([0.0, 0.0])
    expected = [
        ([0.5, 1.0], [0.715, 0.0], [-0.15, -0.15]),
        ([-2.0, -1.0], [0.7835, 0.0], [-0.035, -0.135]),
        ([1.0, -2.5], [0.37515, 0.17565], [-0.2315, 0.0285]),
    ]
    for gradient, after, moving in expected:
        factor, velocity = accelerated_proximal_step(factor, ops.array(gradient), velocity, 0.1, 1.0, 0.9)
        np.testing.assert_allclose(factor, after, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(velocity, moving, rtol=1e-5, atol=1e-7)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 4}], ids=str
)
def test_fit_equals_numpy(options):
    model = two_blocks()
    expected, kernels = reference(model, 0.3, [0.02] * 6)
    assert (expected > 0.1).all()
    model.compile(keras.optimizers.SGD(0.02), "mse", **{"jit_compile": False, **options})
    fit(model, SparseStructureSelection(0.3), epochs=2)
    np.testing.assert_allclose(factors(model), expected, rtol=1e-4)
    np.testing.assert_allclose(model.get_layer("first_dense").kernel, kernels[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.get_layer("second_dense").kernel, kernels[1], rtol=1e-4, atol=1e-6)


def test_each_step_uses_its_own_learning_rate():
    model = two_blocks()
    expected, _ = reference(model, 0.5, [0.2, 0.1, 0.05], momentum=0.5)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.2, 1, 0.5)), "mse", run_eagerly=True
    )
    fit(model, SparseStructureSelection(0.5, momentum=0.5))
    np.testing.assert_allclose(factors(model), expected, rtol=1e-4)


def test_strength_may_follow_a_schedule():
    model, schedule = two_blocks(), Cosine(0.5, end=4, unit="steps")
    expected, _ = reference(model, [schedule.value(step) for step in range(3)], [0.05] * 3)
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    fit(model, SparseStructureSelection(schedule))
    np.testing.assert_allclose(factors(model), expected, rtol=1e-4)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.01, weight_decay=0.1, clipnorm=1.0),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1, global_clipnorm=1.0),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, loss_scale_factor=64.0),
    ],
    ids=["adam", "momentum", "loss scale"],
)
def test_optimizer_does_not_touch_the_factors(make):
    model = two_blocks()
    model.get_layer("first_dense").trainable = model.get_layer("second_dense").trainable = False
    expected, _ = reference(model, 0.5, [0.01] * 3, train_kernels=False)
    model.compile(make(), "mse", run_eagerly=True)
    fit(model, SparseStructureSelection(0.5))
    np.testing.assert_allclose(factors(model), expected, rtol=1e-5)
    slots = [slot for layer in scaling_factors(model) for slot in slots_by_path(model)[layer.factor.path]]
    assert slots
    assert all((slot.numpy() == 0).all() for slot in slots)
    assert "apply" not in vars(model.optimizer)


def test_mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = two_blocks()
        expected, _ = reference(model, 0.4, [0.05] * 3)
        model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
        assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
        fit(model, SparseStructureSelection(0.4))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(factors(model), expected, rtol=2e-2)


def test_with_masks_that_are_held():
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    fit(model, None, callbacks=[tfprune.callbacks.MagnitudePruning(0.5), SparseStructureSelection(0.4)])
    assert all(0 < factor < 1 for factor in factors(model))


def test_use_ema_leaves_zeros():
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match="all 2 blocks"):
        fit(model, SparseStructureSelection(20.0), epochs=3)
    assert factors(model) == [0.0, 0.0]


def test_blocks_die_and_are_logged(tmp_path):
    model = compiled(with_scaling_factors(randomize(residual())), keras.optimizers.SGD(0.05), jit_compile=False)
    callback = SparseStructureSelection(1.0)
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    with pytest.warns(UserWarning, match="has set the factors of all 1 blocks to zero"):
        history = fit(model, None, images(32), 8, 3, callbacks=[callback, logger]).history
    assert history["removed_blocks"] == history["channels_below_threshold"] == [0, 1, 1]
    assert history["regularization_loss"][1:] == [0.0, 0.0]
    with (tmp_path / "log.csv").open() as file:
        assert [int(line["removed_blocks"]) for line in csv.DictReader(file)] == [0, 1, 1]
    small = tfprune.shrink(model)
    assert relative_difference(outputs(model, images(4)[0]), outputs(small, images(4)[0])) < 1e-5
    assert small.count_params() < model.count_params()
    with pytest.raises(ValueError, match="branch"):
        small.get_layer("branch")


def test_regularization_loss_is_strength_times_the_sum():
    model = two_blocks()
    model.compile("sgd", "mse", run_eagerly=True)
    history = fit(model, SparseStructureSelection(0.3)).history
    assert history["regularization_loss"] == [pytest.approx(0.3 * np.sum(factors(model)), rel=1e-6)]
    assert history["removed_blocks"] == [0]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("min_channels", [1, 2])
def test_some_channels_always_stay(min_channels):
    model = compiled(
        with_scaling_factors(randomize(chain()), "channels"), keras.optimizers.SGD(0.05), jit_compile=False
    )
    model.get_layer("first_factor").factor.assign([0.3, 0.9, 0.5, 0.7])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(model, SparseStructureSelection(1e3, min_channels=min_channels), images(32), 8, 2).history
    told = [str(warning.message) for warning in caught if "as few as min_channels" in str(warning.message)]
    assert [name for name in ("first_factor", "second_factor") if any(repr(name) in each for each in told)] == [
        "first_factor",
        "second_factor",
    ]
    assert len(told) == 2
    alive = model.get_layer("first_factor").factor.numpy()
    np.testing.assert_allclose(alive, [0.0, 0.9, 0.0, 0.7 if min_channels == 2 else 0.0], rtol=1e-6)
    assert (model.get_layer("second_factor").factor.numpy() > 0).sum() == min_channels
    assert history["channels_below_threshold"][-1] == 10 - 2 * min_channels
    assert history["removed_blocks"][-1] == 0
    small = tfprune.shrink(model)
    assert (small.get_layer("first").filters, small.get_layer("second").filters) == (min_channels,) * 2
    assert relative_difference(outputs(model, images(4)[0]), outputs(small, images(4)[0])) < 1e-5


def test_excluded_factors_are_left_to_the_optimizer():
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    callback = SparseStructureSelection(20.0, exclude=[model.get_layer("second_factor")])
    with pytest.warns(UserWarning, match="all 1 blocks"):
        fit(model, callback, epochs=2)
    first, second = factors(model)
    assert first == 0
    assert second not in (0.0, 1.0)


def test_frozen_factors_stay():
    model = two_blocks()
    model.get_layer("first_factor").trainable = False
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    fit(model, SparseStructureSelection(0.5))
    assert factors(model)[0] == 1 > factors(model)[1]


def test_a_second_fit_starts_without_velocity():
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    callback = SparseStructureSelection(0.4)
    fit(model, callback)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    fit(model, callback)
    fit(copy, SparseStructureSelection(0.4))
    np.testing.assert_allclose(factors(model), factors(copy), rtol=1e-6)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_interrupted_fit_leaves_a_model_that_fits_again():
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    with pytest.raises(KeyboardInterrupt):
        fit(model, None, callbacks=[SparseStructureSelection(0.4), Interrupt()])
    with pytest.warns(UserWarning, match="of a fit that was interrupted"):
        fit(model, SparseStructureSelection(0.4))
    assert "apply" not in vars(model.optimizer)
    assert all(0 < factor < 1 for factor in factors(model))


def test_checkpoints_hold_the_factors(tmp_path):
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    fit(model, None, callbacks=[SparseStructureSelection(0.4), checkpoint])
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same(weights_of(model), weights_of(loaded))
    assert relative_difference(outputs(model, X), outputs(tfprune.shrink(loaded), X)) < 1e-5


def test_fine_tuning_after_shrinking():
    model = compiled(with_scaling_factors(randomize(residual())), keras.optimizers.SGD(0.01), run_eagerly=True)
    fit(model, SparseStructureSelection(0.01), images(16), 8)
    small = tfprune.shrink(model)
    assert set(fit(small, None, images(16), 8, callbacks=[]).history) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -0.1}, "strength must be a number of at least 0"),
        ({"strength": float("nan")}, "strength must be a number of at least 0"),
        ({"strength": 0.1, "momentum": 1.0}, r"momentum must be a number in \[0, 1\). Received: 1.0"),
        ({"strength": 0.1, "momentum": float("nan")}, "momentum must be"),
        ({"strength": 0.1, "momentum": True}, "momentum must be"),
        ({"strength": 0.1, "min_channels": 0}, "min_channels must be a whole number"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SparseStructureSelection(**options)


def test_a_model_without_factors_is_told_where_to_get_them():
    with pytest.raises(ValueError, match=r"'residual' has no ScalingFactor layer.*with_scaling_factors"):
        fit(compiled(residual()), SparseStructureSelection(0.1), images(8))


def test_accumulated_gradients_are_refused():
    model = two_blocks()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
    with pytest.raises(ValueError, match="Compile the model without gradient_accumulation_steps"):
        fit(model, SparseStructureSelection(0.1))


MIRRORED = """
import contextlib, json, sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path[:0] = sys.argv[1:]
import test_sparse_structure_selection as tests
from networks import chain, compiled, images, randomize
from tfprune.layers import with_scaling_factors
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())

def trained(where):
    with where:
        blocks = tests.two_blocks()
        blocks.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
        channels = with_scaling_factors(randomize(chain()), "channels")
        channels.get_layer("first_bn").trainable = False  # its statistics are those of a replica
        compiled(channels, keras.optimizers.SGD(0.05), jit_compile=False)
    tests.fit(blocks, tests.SparseStructureSelection(0.4), epochs=2)
    tests.fit(channels, tests.SparseStructureSelection(0.5), images(16), batch_size=4)
    return blocks, channels

mirrored, alone = trained(strategy.scope()), trained(contextlib.nullcontext())
found = {"between": 0.0, "difference": 0.0, "moved": []}
for first, second in zip(mirrored, alone):
    for variable, other in zip(first.trainable_variables, second.trainable_variables):
        a, b = (copy.numpy() for copy in variable.value.values)
        found["between"] = max(found["between"], float(np.abs(a - b).max()))
        found["difference"] = max(found["difference"], float(np.abs(a - other.numpy()).max()))
    found["moved"] += [float(factor.min()) for factor in tests.factors(second)]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_replicas_train_as_one():
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run([sys.executable, "-c", MIRRORED, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["between"] == 0
    assert found["difference"] < 1e-5
    assert all(factor < 1 for factor in found["moved"])
