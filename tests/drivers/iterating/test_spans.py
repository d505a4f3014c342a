"""Trainings that begin and end within an epoch: which batches they see, whatever the data is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.drivers.batches import ShuffledBatches
from tfprune.drivers.display import Display
from tfprune.drivers.phases import Desk
from tfprune.drivers.training import Fit

X, Y = np.arange(10.0)[:, None], np.zeros(10)


class Reader(keras.Sequential):
    """Trains by keeping the epoch and the samples of every batch."""

    def fit(self, batches, epochs, initial_epoch, callbacks, **_):
        self.stop_training = False
        for callback in callbacks:
            callback.set_model(self)
        for epoch in range(initial_epoch, epochs):
            for callback in callbacks:
                callback.on_epoch_begin(epoch)
            for index in range(len(batches)):
                batch = batches[index] if isinstance(batches, keras.utils.PyDataset) else [*batches][index]
                self.seen.append((epoch, np.array(batch[0]).ravel().tolist()))
            for callback in callbacks:
                callback.on_epoch_end(epoch, {"loss": 1.0})


def seen(tmp_path, data=(X, Y), **span):
    model = Reader([keras.Input((1,)), keras.layers.Dense(1)])
    model.seen = []
    arguments = {"batch_size": 4} if isinstance(data, tuple) else {}
    training = Fit(data, 3, arguments=arguments, backups=False, **span)
    history = training.train(model, Desk("span", 7, tmp_path / "backups", Display(False), "again"))
    assert len(history) == training.num_epochs
    return model.seen


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_parts_of_a_training_make_a_whole(tmp_path, kind):
    data = (X, Y) if kind == "arrays" else tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    whole = seen(tmp_path, data)
    assert [epoch for epoch, _ in whole] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for first, last in ((0, 1), (0, 3), (0, 5), (1, 2), (2, 9), (4, 5), (3, 9), (5, 7)):
        assert seen(tmp_path, data, first_step=first, last_step=last) == whole[first:last]
    assert seen(tmp_path, data, first_step=4) == whole[4:]


def test_parts_that_there_are_not_are_refused():
    whole = {"data": (X, Y), "epochs": 3, "arguments": {"batch_size": 4}}
    for span in ({"first_step": 9}, {"last_step": 10}, {"first_step": 2, "last_step": 2}, {"first_step": -1}):
        with pytest.raises(ValueError, match="no part of a training of 9 steps: 3 epochs of 3 batches"):
            Fit(**whole, **span)
    with pytest.raises(ValueError, match=r"Only of arrays and a tf.data.Dataset can a part of an epoch be taken"):
        Fit(ShuffledBatches((X, Y), 4, 0), 3, first_step=1)
    assert Fit(ShuffledBatches((X, Y), 4, 0), 3, first_step=3).num_epochs == 2
    assert "first_step" not in Fit(**whole).settings()
    assert Fit(**whole, first_step=3).settings()["first_step"] == 3


class CutOffError(Exception):
    pass


def test_a_span_goes_on_after_the_epochs_that_are_done(tmp_path):
    """The backup of a training that began at its second epoch counts epochs from there."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    epochs = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)
            if len(epochs) == 2:
                raise CutOffError

    desk = Desk("span", 7, tmp_path / "run" / "backups", Display(False), "again")
    desk.backups.mkdir(parents=True)
    training = Fit((X, Y), 4, callbacks=lambda: [Watch()], arguments={"batch_size": 5}, first_step=3)
    with pytest.raises(CutOffError):
        training.train(model, desk)
    assert len(training.train(model, desk)) == 3
    assert epochs == [1, 2, 2, 3]
