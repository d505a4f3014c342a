import csv

import keras
import numpy as np
import pytest
from networks import compiled, dense, images, open_chain, randomize

from tfprune.callbacks import FPGM, SET, LayerwiseDensity, MagnitudePruning, SoftFilterPruning
from tfprune.schedules import Polynomial

L = keras.layers


def model_of(units=(8, 3)):
    return compiled(randomize(dense(units)), jit_compile=False)


def fit(model, *callbacks, epochs=3):
    x, y = images(32, shape=model.input_shape[1:])
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


def densities(history):
    return {name: values for name, values in history.items() if name.startswith("density/")}


def test_dense_networks_stay_dense_and_are_left_alone():
    model, other = model_of(), model_of()
    keras.utils.set_random_seed(1)
    history = fit(model, LayerwiseDensity())
    keras.utils.set_random_seed(1)
    plain = fit(other)
    assert densities(history) == {"density/hidden": [1.0] * 3, "density/classes": [1.0] * 3}
    assert history["loss"] == plain["loss"]


def test_gradual_pruning_by_hand():
    # Of 16 and 24 weights, at the ends of three epochs: linear from 0 to 0.75, each number rounded down.
    schedule = Polynomial(0.75, power=1, end=12, frequency=4)
    history = fit(model_of(), MagnitudePruning(schedule), LayerwiseDensity())
    assert densities(history) == {
        "density/hidden": [12 / 16, 8 / 16, 4 / 16],
        "density/classes": [18 / 24, 12 / 24, 6 / 24],
    }
    assert history["sparsity"] == [0.25, 0.5, 0.75]


def test_all_kernels_together_and_the_sparsity_that_nobody_else_has_logged():
    model = model_of()  # 16 and 24 weights
    alone = fit(model, LayerwiseDensity(), epochs=1)
    assert (alone["density"], alone["sparsity"]) == ([1.0], [0.0])
    pruning = MagnitudePruning(Polynomial(0.75, end=4, frequency=1), exclude=[model.get_layer("classes")])
    history = fit(model, pruning, LayerwiseDensity(), epochs=1)
    assert (history["density"], history["sparsity"]) == ([(4 + 24) / 40], [0.75])


def test_rewiring_keeps_the_density_of_every_layer():
    history = fit(model_of(), SET(0.5, seed=0), LayerwiseDensity())
    assert all(len(set(values)) == 1 for values in densities(history).values())
    total = 16 * history["density/hidden"][-1] + 24 * history["density/classes"][-1]
    assert total / 40 == pytest.approx(1 - history["sparsity"][-1])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("order", "last"), [(1, 0.5), (-1, 1.0)])
def test_before_soft_pruning_it_sees_what_was_alive_until_then(order, last):
    callbacks = [SoftFilterPruning(0.5, frequency=2), LayerwiseDensity()][::order]
    history = fit(compiled(open_chain(), jit_compile=False), *callbacks, epochs=2)  # zero filters can grow back here
    assert history["density/first"] == [1.0, last]


def test_kernels_of_one_layer_are_told_apart_and_exclude_leaves_some_out():
    model = keras.Sequential([keras.Input((3, 2)), L.LSTM(2, name="lstm"), L.Dense(3, name="classes")])
    compiled(model)
    history = fit(model, LayerwiseDensity(exclude=[model.get_layer("classes")]), epochs=1)
    assert densities(history) == {"density/lstm/kernel": [1.0], "density/lstm/recurrent_kernel": [1.0]}


def test_csv_logger_behind_it_writes_every_layer(tmp_path):
    path = tmp_path / "log.csv"
    fit(model_of(), FPGM(0.5), LayerwiseDensity(), keras.callbacks.CSVLogger(path))
    table = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["density/hidden"]) for row in table] == [0.5] * 3
    assert [float(row["density/classes"]) for row in table] == [1.0] * 3


def test_nothing_to_measure_is_an_error_before_training():
    model = model_of()
    with pytest.raises(ValueError, match=r"finds nothing to measure .* no trainable layer with a kernel"):
        fit(model, LayerwiseDensity(exclude=lambda layer: True))


def test_a_model_that_is_not_built_is_an_error_before_training():
    model = compiled(keras.Sequential([L.Dense(3)]))
    with pytest.raises(ValueError, match=r"is not built"):
        model.fit(np.ones((4, 2)), np.zeros(4), verbose=0, callbacks=[LayerwiseDensity()])
