import keras
import numpy as np
import pytest
from networks import chain, compiled, images, open_chain, randomize, residual, same, weights_of, zero_filters
from scipy.spatial.distance import cdist

from tfprune.callbacks import FPGM

L = keras.layers


def paper_choice(kernel, norm_ratio, ratio):
    """The filters that the authors' code removes, written naively."""
    rows = np.moveaxis(kernel.astype("float64"), -1, 0).reshape(kernel.shape[-1], -1)
    norms = np.linalg.norm(rows, axis=1)
    gone = np.argsort(norms)[: int(len(rows) * norm_ratio)].tolist()
    left = np.array([c for c in range(len(rows)) if c not in gone])
    distances = np.abs(cdist(rows[left], rows[left], "euclidean")).sum(axis=0)
    return sorted(gone + left[np.argsort(distances)[: int(len(rows) * ratio)]].tolist())


def fit(model, *callbacks, epochs=1):
    return model.fit(*images(32), batch_size=8, epochs=epochs, callbacks=list(callbacks), verbose=0).history


@pytest.mark.parametrize(("norm_ratio", "ratio"), [(0.0, 0.4), (0.1, 0.3), (0.25, 0.5)])
def test_the_choice_is_that_of_the_paper(norm_ratio, ratio):
    model = compiled(randomize(chain((16, 12)), seed=7), jit_compile=False)
    before = {name: model.get_layer(name).kernel.numpy() for name in ("first", "second")}
    callback = FPGM(ratio, norm_ratio=norm_ratio)
    callback.set_model(model)
    callback.set_params({"epochs": 1})
    callback.on_train_begin()
    for name, kernel in before.items():
        assert zero_filters(model.get_layer(name)) == paper_choice(kernel, norm_ratio, ratio)
    callback.on_train_end()


def test_a_redundant_filter_goes_before_a_small_one():
    kernel = np.array([[0.1, 5.0, 5.1, 9.0]])  # sums of distances: 18.8, 9.0, 9.0 + rounding, 16.8
    model = keras.Sequential([keras.Input((1,)), L.Dense(4, name="first"), L.Dense(3)])
    compiled(randomize(model))
    model.get_layer("first").kernel.assign(kernel)
    callback = FPGM(0.25)
    callback.set_model(model)
    callback.on_train_begin()
    assert zero_filters(model.get_layer("first")) in ([1], [2])
    callback.on_train_end()


def test_hard_chooses_once_and_holds_all_that_carries_the_filters():
    model = compiled(randomize(residual(10)), "adam", jit_compile=False)
    choices = []

    class Choice(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            layers = [self.model.get_layer(name) for name in ("stem", "branch")]
            norms = [self.model.get_layer(f"{layer.name}_bn") for layer in layers]
            choices.append([zero_filters(layer) for layer in layers])
            choices.append([np.flatnonzero(v.numpy() == 0).tolist() for n in norms for v in (n.gamma, n.beta)])

    history = fit(model, FPGM(0.4), Choice(), epochs=2)
    first = choices[0][0]
    assert len(first) == 4
    assert all(choice == first for batch in choices for choice in batch)
    assert history["pruned_filters"] == [4 + 2] * 2


def test_soft_chooses_anew_and_lets_filters_grow_back():
    model = compiled(open_chain((8, 6)), keras.optimizers.SGD(0.5), jit_compile=False)
    trained = []

    class Trained(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            trained.append(self.model.get_layer("first").kernel.numpy().copy())

    fit(model, Trained(), FPGM(0.5, mode="soft"), epochs=2)
    assert all((kernel != 0).all() for kernel in trained)
    assert zero_filters(model.get_layer("first")) == paper_choice(trained[-1], 0.0, 0.5)


def test_hard_weights_train_freely_after_the_fit():
    model = compiled(randomize(chain()), keras.optimizers.SGD(0.5), jit_compile=False)
    fit(model, FPGM(0.5))
    dead = zero_filters(model.get_layer("first"))
    assert len(dead) == 2
    randomize(model)
    fit(model)
    assert zero_filters(model.get_layer("first")) == []


@pytest.mark.parametrize("ratio", [np.float32(0.5), np.float64(0.5), 0.5])
def test_numbers_of_numpy_are_numbers(ratio):
    assert [stage.schedule.value(0) for stage in FPGM(ratio).stages] == [0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.0}, r"^ratio is the fraction .* Received: 1\.0"),
        ({"ratio": "0.4"}, "^ratio is the fraction .* Received: '0.4'"),
        ({"ratio": True}, "^ratio is the fraction .* Received: True"),
        ({"ratio": 0.4, "norm_ratio": -0.1}, "^norm_ratio is the fraction"),
        ({"ratio": 0.5, "norm_ratio": 0.5}, "rates add up to 1 and would empty every layer"),
        ({"ratio": 0.0}, "All rates are 0"),
        ({"ratio": 0.4, "mode": "medium"}, r"mode must be one of \('soft', 'hard'\)"),
        ({"ratio": 0.4, "scope": "all"}, "scope must be one of"),
        ({"ratio": 0.4, "frequency": 0}, "frequency is a whole number"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FPGM(**arguments)


def test_a_model_with_its_own_call_is_refused():
    class OwnCall(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, x):
            return self.dense(x) * self.dense.bias

    model = OwnCall()
    x, y = images(8, shape=(4,))
    model(x)
    before = weights_of(compiled(model))
    with pytest.raises(ValueError, match=r"computes in its own call\(\)"):
        model.fit(x, y, callbacks=[FPGM(0.4)], verbose=0)
    assert same(before, weights_of(model))
