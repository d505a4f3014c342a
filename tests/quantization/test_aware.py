"""Training a quantize-aware model in every way that Keras has, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from files import aware_file, distance, float_operators, output_scales, run
from networks import chain, compiled, images, outputs, randomize, residual, weights_of

import tfprune
from tfprune.callbacks import MagnitudePruning
from tfprune.exporting.stored_kernels import stored_kernels
from tfprune.parts.kernels import kernels
from tfprune.quantization import is_quantize_aware, lowered
from tfprune.quantization.aware_layers import QuantizeActivation
from tfprune.schedules import Polynomial
from tfprune.tflite.unpacking import unpack

L = keras.layers


def aware_of(model, optimizer="sgd", eager=False, **options):
    """Eager where a fit has a step or two: as few of them are made faster than traced."""
    aware = tfprune.quantize_aware(model, **options)
    return compiled(aware, optimizer, jit_compile=False, run_eagerly=eager)


def check_file(aware, x):
    content = aware_file(aware)
    assert float_operators(content) == set()
    assert distance(outputs(aware, x), run(content, [x]), output_scales(content)) <= 2.1


def some(names, *default):
    """All, of which those that are not in the default run are slow."""
    return [pytest.param(name, marks=() if name in default else pytest.mark.slow) for name in names]


def test_evaluation_works_before_any_step():
    x, y = images()
    model = residual()
    aware = aware_of(model)
    assert np.isfinite(aware.evaluate(x, y, verbose=0)).all()
    assert np.abs(outputs(aware, x)[0] - outputs(model, x)[0]).max() < 0.2


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.05),
}


def pruned_model():
    parts = [
        L.Conv2D(6, 3),
        L.DepthwiseConv2D(3),
        L.SeparableConv2D(6, 2),
        L.Conv2DTranspose(5, 3),
        L.Flatten(),
        L.Dense(3),
    ]
    model = keras.Sequential([keras.Input((8, 8, 2)), *parts])
    random = np.random.default_rng(0)
    for kernel in kernels(model):
        kernel.variable.assign(kernel.variable.numpy() * (random.random(kernel.variable.shape) < 0.4))
    return model


@pytest.mark.parametrize("name", some(OPTIMIZERS, "adamw"))
def test_pruned_weights_stay_zero(name):
    x, y = images(40)
    aware = aware_of(pruned_model(), OPTIMIZERS[name]())
    zeros = [kernel.variable.numpy() == 0 for kernel in kernels(aware)]
    assert len(zeros) == 6
    assert all(0.3 < zero.mean() < 0.9 for zero in zeros)
    before = weights_of(aware)
    aware.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert any(not np.array_equal(a, b) for a, b in zip(before, weights_of(aware), strict=True))
    for kernel, zero in zip(kernels(aware), zeros, strict=True):
        assert np.array_equal(kernel.variable.numpy()[zero], np.zeros(zero.sum()))
    stored = sum(int((kernel == 0).sum()) for kernel in stored_kernels(unpack(aware_file(aware))))
    assert stored >= sum(int(zero.sum()) for zero in zeros)


def test_zeros_may_grow_back_where_that_is_asked_for():
    x, y = images(40)
    aware = aware_of(pruned_model(), keras.optimizers.Adam(0.01), keep_zeros=False)
    aware.fit(x, y, batch_size=4, verbose=0)
    assert all((kernel.variable.numpy() == 0).mean() < 0.1 for kernel in kernels(aware))


def test_a_kernel_of_zeros_alone_trains():
    model = keras.Sequential([keras.Input((8, 8, 2)), L.Flatten(), L.Dense(3, kernel_initializer="zeros")])
    aware = aware_of(model, eager=True)
    aware.fit(*images(), verbose=0)
    assert (kernels(aware)[0].variable.numpy() != 0).all()


@pytest.mark.parametrize("mode", some(["train", "freeze", "fold"], "fold"))
def test_modes_of_batch_normalization(mode):
    x, y = images()
    model = randomize(residual())
    aware = aware_of(model, eager=True, batch_normalization=mode)
    assert np.allclose(outputs(tfprune.strip(aware), x), outputs(model, x), atol=1e-4)
    variances = [weight for weight in aware.weights if weight.path.endswith("moving_variance")]
    before = [variance.numpy() for variance in variances]
    aware.fit(x, y, verbose=0)
    changed = [not np.array_equal(a, b.numpy()) for a, b in zip(before, variances, strict=True)]
    assert changed == {"train": [True, True], "freeze": [False, False], "fold": []}[mode]
    check_file(aware, x)


WAYS = {
    "steps": {"steps_per_execution": 3},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


@pytest.mark.parametrize("way", some(WAYS, "steps"))
def test_ways_of_running_a_step(way):
    x, y = images(24)
    aware = compiled(tfprune.quantize_aware(chain()), "sgd", **{"jit_compile": False, **WAYS[way]})
    history = aware.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(layer.range for layer in aware.layers if isinstance(layer, QuantizeActivation))
    check_file(aware, x)


UPDATES = {
    "accumulation": {"gradient_accumulation_steps": 2},
    "ema": {"use_ema": True, "ema_momentum": 0.5},
}


@pytest.mark.parametrize("update", some(UPDATES, "ema"))
def test_ways_of_updating(update):
    x, y = images(24)
    aware = aware_of(chain(), keras.optimizers.SGD(0.01, **UPDATES[update]))
    aware.fit(x, y, batch_size=4, epochs=2, verbose=0)
    check_file(aware, x)


MIRRORED = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from networks import compiled, images, residual
import tfprune
from tfprune.quantization.aware_layers import QuantizeActivation
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
with strategy.scope():
    aware = compiled(tfprune.quantize_aware(residual()), jit_compile=False)
aware.fit(*images(32), batch_size=8, epochs=2, verbose=0)
ranges, differ = [], 0
for layer in aware.layers:
    if isinstance(layer, QuantizeActivation):
        ranges.append(layer.range)
        one, other = strategy.experimental_local_results(layer.largest.value)
        differ += not np.array_equal(one, other)
json.dump([ranges, differ], open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_replicas_share_their_ranges(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path.insert(0, 'tests')\n{MIRRORED}"]
    where = Path(__file__).parents[2]
    done = subprocess.run([*command, str(tmp_path / "found.json")], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    ranges, differ = json.loads((tmp_path / "found.json").read_text())
    assert differ == 0
    assert len(ranges) >= 6
    assert all(low <= 0 < high for low, high in ranges)


def test_pruning_in_the_same_fit():
    x, y = images(32)
    aware = aware_of(residual())
    assert [kernel.layer.name for kernel in kernels(aware)] == [kernel.name for kernel in kernels(residual())]
    callback = MagnitudePruning(Polynomial(0.5, end=4, frequency=1))
    aware.fit(x, y, batch_size=8, epochs=2, callbacks=[callback], verbose=0)
    shares = [float((kernel.variable.numpy() == 0).mean()) for kernel in kernels(aware)]
    assert all(0.4 <= share <= 0.6 for share in shares)
    check_file(aware, x)


def test_training_quantized_goes_on_after_stripping():
    x, y = images()
    model = compiled(chain(), keras.optimizers.SGD(0.01), run_eagerly=True)
    aware = tfprune.quantize_aware(model)
    assert aware.compiled
    assert aware.optimizer is not model.optimizer
    aware.fit(x, y, verbose=0)
    plain = tfprune.strip(aware)
    assert not is_quantize_aware(plain)
    again = tfprune.quantize_aware(plain)
    assert is_quantize_aware(again)
    again.fit(x, y, verbose=0)
    check_file(again, x)


def test_names_that_keras_gives_do_not_meet_those_of_a_loaded_model(tmp_path):
    def named(x):
        gate = L.Dense(4, "hard_sigmoid")(L.GlobalAveragePooling2D()(x))
        x = L.Multiply(name="multiply")([x, L.Reshape((1, 1, 4), name="reshape")(gate)])
        return L.Average(name="mean")([x, x + 1.0])

    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3)(inputs)
    keras.Model(inputs, L.Dense(3)(L.BatchNormalization()(L.Flatten()(named(x))))).save(tmp_path / "model.keras")
    keras.utils.clear_session(free_memory=False)
    aware = aware_of(keras.models.load_model(tmp_path / "model.keras"), eager=True)
    aware.fit(*images(), verbose=0)
    check_file(aware, images()[0])


def test_what_is_refused():
    model = chain()
    aware = tfprune.quantize_aware(model)
    with pytest.raises(ValueError, match="is quantize-aware already"):
        tfprune.quantize_aware(aware)
    with pytest.raises(ValueError, match="has not seen data"):
        lowered(aware)
    for function in (tfprune.strip, lowered):
        with pytest.raises(ValueError, match="is not quantize-aware"):
            function(model)
        with pytest.raises(TypeError, match="Expected a Keras 3 model"):
            function("model")
    with pytest.raises(ValueError, match="is not built"):
        tfprune.quantize_aware(keras.Sequential([L.Dense(3)]))
    with pytest.raises(TypeError, match="exclude must be a list of layer objects"):
        tfprune.quantize_aware(model, exclude="classes")
    with pytest.raises(ValueError, match="layers that are not in the model"):
        tfprune.quantize_aware(model, exclude=[L.Dense(3)])
    with pytest.raises(ValueError, match="batch_normalization must be one of"):
        tfprune.quantize_aware(model, batch_normalization="folded")
    with pytest.raises(ValueError, match="below 1"):
        tfprune.quantize_aware(model, momentum=1.5)


@pytest.mark.slow  # as the engine that rewrites is tested always, in tests/rewriting
def test_a_network_may_be_deeper_than_the_limit_of_recursion():
    inputs = x = keras.Input((2,))
    for _ in range(160):
        x = L.Dense(2)(x)
    model = keras.Model(inputs, x)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        with pytest.raises(RecursionError):
            keras.Model.from_config(tfprune.quantize_aware(model).get_config())  # what Keras does, at this limit
        assert sys.getrecursionlimit() == 300
    finally:
        sys.setrecursionlimit(limit)


def test_losses_of_activities_count_as_in_the_model_and_gradients_pass_at_inference():
    def build():
        keras.utils.set_random_seed(0)
        options = {"activity_regularizer": keras.regularizers.L2(0.1)}
        parts = [L.Conv2D(4, 3, **options), L.Conv2D(3, 3, activation="relu", **options), L.Flatten(), L.Dense(2)]
        return keras.Sequential([keras.Input((8, 8, 2)), *parts])

    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
    model = build()
    model(x)
    expected = [float(loss) for loss in model.losses]
    aware = tfprune.quantize_aware(model)
    for training in (True, False):
        aware(x, training=training)
        assert [float(loss) for loss in aware.losses] == pytest.approx(expected, rel=0.02)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(aware(x, training=training) ** 2)
        gradients = tape.gradient(total, aware.trainable_variables)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(x, training=training) ** 2)
        for found, plain in zip(gradients, tape.gradient(total, model.trainable_variables), strict=True):
            assert np.linalg.norm(found - plain) < 0.1 * np.linalg.norm(plain)


@pytest.mark.parametrize("last", [lambda x: x, L.Activation("sigmoid")])
def test_an_output_may_be_the_input_or_an_activation_of_it(last, tmp_path):
    inputs = keras.Input((4,))
    aware = tfprune.quantize_aware(keras.Model(inputs, [L.Dense(3)(inputs), last(inputs)]))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    aware(x, training=True)
    assert tfprune.export(aware, tmp_path / "m.tflite", quantize="int8", calibration=x).float_operators == ()


def test_scaling_whole_numbers_stays_in_float_with_the_reason(tmp_path):
    inputs = keras.Input((8, 8, 2), dtype="uint8")
    aware = tfprune.quantize_aware(keras.Model(inputs, L.Conv2D(3, 3)(L.Rescaling(1 / 255)(inputs))))
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 2)).astype("uint8")
    aware(x, training=True)
    report = tfprune.export(aware, tmp_path / "m.tflite", quantize="int8", calibration=x)
    assert any("cast them to float32" in each.reason for each in report.float_operators)
