"""Subnetworks that are kept at the end of each cycle of a training."""

import keras
import numpy as np
import pytest
from networks import compiled, dense, images, randomize

from tfprune.callbacks import SET, CollectTickets
from tfprune.masking import recorded_mask
from tfprune.parts.kernels import kernels
from tfprune.schedules import Constant
from tfprune.tickets import ensemble


class Record(keras.callbacks.Callback):
    """The weights with which each epoch ended, before the callbacks behind it have rewired them."""

    def on_train_begin(self, logs=None):
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.params["steps"]:
            self.ends.append([w.copy() for w in self.model.get_weights()])


def model_of():
    return compiled(randomize(dense((8, 3))), keras.optimizers.SGD(0.1), run_eagerly=True)


def fit(model, *callbacks, epochs=6, **options):
    x, y = images(16, shape=model.input_shape[1:])
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def rewiring():
    return SET(0.5, drop=Constant(0.5, end=20, frequency=1, unit="epochs"), seed=1)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder, record, model = tmp_path_factory.mktemp("tickets"), Record(), model_of()
    callback = CollectTickets(folder / "new", cycle=2, begin=1)
    fit(model, record, callback, rewiring())
    return callback, record


def test_the_model_is_kept_at_the_end_of_every_cycle_before_it_is_rewired(collected):
    callback, record = collected
    assert [path.name for path in callback.paths] == ["cycle-1.keras", "cycle-2.keras"]
    assert sorted(path.name for path in callback.folder.iterdir()) == ["cycle-1.keras", "cycle-2.keras"]
    for path, epoch in zip(callback.paths, (3, 5), strict=True):
        kept = keras.models.load_model(path).get_weights()
        for weight, end in zip(kept, record.ends[epoch - 1], strict=True):
            np.testing.assert_array_equal(weight, end)


def test_what_is_kept_is_sparse_and_differs_and_makes_an_ensemble(collected):
    models = [keras.models.load_model(path) for path in collected[0].paths]
    masks = [[recorded_mask(kernel.variable) for kernel in kernels(model)] for model in models]
    assert [sum(int(mask.sum()) for mask in found) for found in masks] == [21, 21]  # half of 16 and 24, each rounded up
    assert not any(np.array_equal(one, other) for one, other in zip(*masks, strict=True))
    x, _ = images(4, shape=models[0].input_shape[1:])
    mean = np.mean([model(x) for model in models], axis=0)
    np.testing.assert_allclose(ensemble(models)(x), mean, rtol=1e-5)


def test_training_that_goes_on_finds_the_cycles_before_it(tmp_path):
    model = model_of()
    fit(model, CollectTickets(tmp_path, cycle=2), epochs=3)
    first = (tmp_path / "cycle-1.keras").read_bytes()
    again = CollectTickets(tmp_path, cycle=2)
    fit(model, again, epochs=4, initial_epoch=3)
    assert [path.name for path in again.paths] == ["cycle-1.keras", "cycle-2.keras"]
    assert (tmp_path / "cycle-1.keras").read_bytes() == first


def test_steps_whose_number_nobody_knows(tmp_path):
    model, (x, y) = model_of(), images(8, shape=model_of().input_shape[1:])

    def batches():
        yield from ((x, y), (x, y))

    callback = CollectTickets(tmp_path, cycle=1)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(batches(), epochs=1, verbose=0, shuffle=False, callbacks=[callback])
    assert [path.name for path in callback.paths] == ["cycle-1.keras"]


def test_what_does_not_fit_is_refused_before_training(tmp_path):
    for options in ({"cycle": 0}, {"cycle": 2, "begin": -1}):
        with pytest.raises(ValueError, match="|".join(options)):
            CollectTickets(tmp_path, **options)
    model = model_of()
    with pytest.raises(ValueError, match=r"No cycle ends in this fit, which has 6 epochs.*after 5 \+ 2"):
        fit(model, CollectTickets(tmp_path, cycle=2, begin=5))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Cannot write"):
        fit(model, CollectTickets(tmp_path / "file", cycle=2))
