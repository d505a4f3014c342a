"""BatchNormalization trains up to the step it is frozen at, and not after it."""

import keras
import numpy as np
import pytest
from networks import compiled

import tfprune
from tfprune.callbacks import FreezeBatchNormalization, MagnitudePruning

L = keras.layers
X = np.random.default_rng(0).normal(3, 2, (32, 6, 6, 2)).astype("float32")
Y = np.arange(32) % 3


def build():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(4, 3, use_bias=False),
            L.BatchNormalization(momentum=0.5, name="norm"),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )


class Trace(keras.callbacks.Callback):
    """Notes the weights of the BatchNormalization after each block of steps, beside those of the convolution."""

    def __init__(self, norm, kernel):
        super().__init__()
        self.norm, self.kernel, self.seen = norm, kernel, []
        self.note()

    def note(self):
        self.seen.append([np.array(value) for value in (*self.norm.get_weights(), self.kernel)])

    def on_train_batch_end(self, batch, logs=None):
        self.note()

    def moved(self):
        """For each block of steps, whether each of gamma, beta, mean, variance and the kernel moved in it."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return [[not np.array_equal(a, b) for a, b in zip(first, then, strict=True)] for first, then in pairs]


def traced(model, norm, kernel, callback, **options):
    trace = Trace(norm, kernel)
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[callback, trace], shuffle=False, **options)
    return trace.moved()


def expected(training, frozen):
    return [[True] * 5] * training + [[False] * 4 + [True]] * frozen


def own_parts(model):
    return model.get_layer("norm"), model.layers[0].kernel


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("after", "unit", "options", "blocks"),
    [
        (1, "epochs", {"epochs": 2}, (4, 4)),
        (3, "steps", {"epochs": 2}, (3, 5)),
        (0, "steps", {"epochs": 1}, (0, 4)),
        (9, "steps", {"epochs": 2}, (8, 0)),
        (2, "epochs", {"epochs": 3, "initial_epoch": 1}, (4, 4)),
        (6, "steps", {"epochs": 3, "initial_epoch": 1}, (2, 6)),
    ],
)
def test_freezes_when_told(after, unit, options, blocks):
    model = compiled(build(), "sgd", jit_compile=False)
    norm, kernel = own_parts(model)
    assert traced(model, norm, kernel, FreezeBatchNormalization(after, unit), **options) == expected(*blocks)
    assert norm.trainable


def test_steps_that_run_as_one_are_not_taken_apart():
    model = compiled(build(), "sgd", jit_compile=False, steps_per_execution=2)
    moved = traced(model, *own_parts(model), FreezeBatchNormalization(3, "steps"), epochs=2)
    assert moved == expected(2, 2)


def test_quantize_aware_model_trains_on_frozen_beside_a_callback_that_prunes():
    aware = compiled(tfprune.quantize_aware(compiled(build())), "sgd", jit_compile=False)
    (wrapper,) = [layer for layer in aware.layers if getattr(layer, "normalization", None) is not None]
    trace = Trace(wrapper.normalization, wrapper.layer.kernel)
    callbacks = [MagnitudePruning(0.5), FreezeBatchNormalization(1), trace]
    aware.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    assert trace.moved() == expected(4, 4)
    assert np.mean(wrapper.layer.kernel.numpy() == 0) == pytest.approx(0.5, abs=0.1)


def test_the_next_fit_trains_them_again_also_after_one_that_broke_off():
    model = compiled(build(), "sgd", jit_compile=False)
    norm, kernel = own_parts(model)
    callback = FreezeBatchNormalization(1)

    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback, keras.callbacks.LambdaCallback(on_epoch_end=stop)])
    assert not norm.trainable
    assert traced(model, norm, kernel, FreezeBatchNormalization(1), epochs=1) == expected(4, 0)
    assert norm.trainable


def test_layers_that_were_frozen_before_stay_so():
    model = build()
    model.get_layer("norm").trainable = False
    compiled(model, "sgd", jit_compile=False)
    with pytest.raises(ValueError, match=r"finds nothing to freeze .* no BatchNorm"):
        model.fit(X, Y, verbose=0, callbacks=[FreezeBatchNormalization(1)])
    assert not model.get_layer("norm").trainable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-1,), r"after must be 0 or more epochs. Received: -1"), ((1, "batches"), r"unit must be .*Received: 'batches'")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FreezeBatchNormalization(*arguments)
