"""Callbacks act on the student as they act on it alone, and on no teacher."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.callbacks import FPGM, MagnitudePruning, NetworkSlimming, RigL
from tfprune.parts.kernels import kernels

L = keras.layers
X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 16)


def net(name, width=8):
    return keras.Sequential(
        [keras.Input((4,)), L.Dense(width, "relu", name="hidden"), L.BatchNormalization(), L.Dense(3, "softmax")],
        name=name,
    )


def student():
    model = net("student")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    "callback",
    [
        lambda: FPGM(0.4),
        pytest.param(lambda: NetworkSlimming(ratio=0.4, strength=1e-2), marks=pytest.mark.slow),
        pytest.param(lambda: RigL(0.5), marks=pytest.mark.slow),
    ],
    ids=["FPGM", "NetworkSlimming", "RigL"],
)
def test_student_is_pruned_as_it_would_be_alone(callback):
    found = []
    for distilled in (False, True):
        keras.utils.set_random_seed(0)
        own = student()
        model = tfprune.distill(own, net("teacher"), weight=0) if distilled else own
        keras.utils.set_random_seed(1)
        history = model.fit(X, Y, epochs=2, shuffle=False, verbose=0, callbacks=[callback()])
        found.append((own.get_weights(), history.history))
    for alone, taught in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(alone, taught)
    assert found[0][1] == found[1][1]
    assert (found[0][0][0] == 0).any()


def test_masks_hold_under_a_teacher_and_its_weights_stay():
    own, teacher = student(), net("teacher")
    before = teacher.get_weights()
    model = tfprune.distill(own, teacher)
    pruning = MagnitudePruning(0.5)
    history = model.fit(X, epochs=2, verbose=0, callbacks=[pruning])
    assert history.history["sparsity"][-1] == 0.5
    assert (own.layers[0].kernel.numpy() == 0).sum() + (own.layers[-1].kernel.numpy() == 0).sum() == 28
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class Distiller(keras.Model):
    """The pattern of keras.io: both models are held, and the loss calls the teacher."""

    def __init__(self, own, teacher):
        super().__init__()
        self.student, self.teacher = own, teacher

    def call(self, inputs):
        return self.student(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y_pred - keras.ops.stop_gradient(self.teacher(x, training=False))) ** 2)


class Uncalled(keras.Model):
    def __init__(self, own, teacher):
        super().__init__()
        self.student, self.teacher = own, teacher

    def train_step(self, data):
        return {}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_distillers_of_others_keep_their_teacher():
    model = Distiller(net("student"), net("teacher"))
    model.build((None, 4))
    assert [kernel.name for kernel in kernels(model)] == ["student/hidden", "student/dense"]
    assert [kernel.layer for kernel in kernels(model, exclude=[model.teacher])] == [
        kernel.layer for kernel in kernels(model)
    ]
    before = model.teacher.get_weights()
    model.compile("sgd")
    model.fit(X, Y, verbose=0, callbacks=[FPGM(0.25, mode="hard"), MagnitudePruning(0.5)])
    assert (model.student.layers[0].kernel.numpy() == 0).sum() >= 8
    for old, new in zip(before, model.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_distiller_without_a_call_is_told_what_to_do():
    model = Uncalled(net("student"), net("teacher"))
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"no call.*self\.student\(inputs, training=training\).*tfprune\.distill"):
        model.fit(X, Y, verbose=0, callbacks=[FPGM(0.25)])


@pytest.mark.slow
def test_checkpoints_and_backups_go_on_exactly(tmp_path):
    keras.utils.set_random_seed(0)
    teacher, start = net("teacher"), net("start").get_weights()

    def run(epochs, folder):
        own = student()
        own.set_weights(start)
        model = tfprune.distill(own, teacher)
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, delete_checkpoint=False)
        model.fit(X, Y, epochs=epochs, shuffle=False, verbose=0, callbacks=[backup])
        return own.get_weights()

    run(2, "interrupted")
    for whole, resumed in zip(run(4, "whole"), run(4, "interrupted"), strict=True):
        np.testing.assert_array_equal(whole, resumed)
