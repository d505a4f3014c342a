import json

import keras
import numpy as np
import pytest
from networks import compiled, dense, images, randomize

import tfprune
from tfprune.callbacks import FPGM, LayerwiseDensity, RigL
from tfprune.schedules import Cosine
from tfprune.training.masks import living_weights

L = keras.layers


def layers():
    """A convolution of 18 weights, a depthwise kernel of 4, and 2 x 3 weights."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            L.Conv2D(2, 3, name="conv"),
            L.DepthwiseConv2D((2, 1), name="depthwise"),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="classes"),
        ]
    )
    return randomize(model)


def fit(model, *callbacks, epochs=3):
    x, y = images(32, shape=model.input_shape[1:])
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


def rows(report):
    return {row.name: row for row in report.kernels}


def test_living_weights_by_hand():
    plain, marked = keras.Variable([[1.0, 0.0], [-2.0, 0.0]]), keras.Variable([[1.0, 0.0], [-2.0, -0.0]])
    assert living_weights(plain).tolist() == [[True, False], [True, False]]
    assert living_weights(marked).tolist() == [[True, True], [True, False]]
    assert living_weights(keras.Variable([3.0, -1.0])).tolist() == [True, True]


def test_counts_by_hand():
    model = layers()
    conv, depthwise = model.get_layer("conv"), model.get_layer("depthwise")
    kernel = conv.kernel.numpy()
    kernel[..., 1] = 0.0  # nine zeros, as filter pruning leaves them
    conv.kernel.assign(kernel)
    depthwise.kernel.assign(np.array([-0.0, 0.0, 1.0, 2.0]).reshape(2, 1, 2, 1))  # one that is marked
    conv.bias.assign([0.0, 0.0])  # not a kernel
    report = tfprune.layerwise_density(model)
    found = {row.name: (row.shape, row.weights, row.living, row.density) for row in report.kernels}
    assert found == {
        "conv": ((3, 3, 1, 2), 18, 9, 0.5),
        "depthwise": ((2, 1, 2, 1), 4, 3, 0.75),
        "classes": ((2, 3), 6, 6, 1.0),
    }
    assert (report.weights, report.living, report.density) == (28, 18, 18 / 28)
    assert (report.epochs, report.over_time) == ((), ())


def test_nothing_logged_gives_no_epochs():
    model = compiled(layers())
    fit(model)
    report = tfprune.layerwise_density(model)
    assert (report.epochs, rows(report)["conv"].over_time) == ((), ())
    assert "epoch" not in str(report)


def test_over_time_by_hand():
    model = compiled(layers())

    class KillOneMore(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernel = model.get_layer("classes").kernel
            kernel.assign(np.where(np.arange(6).reshape(2, 3) <= epoch, -0.0, 1.0))

    fit(model, KillOneMore(), LayerwiseDensity())
    report = tfprune.layerwise_density(model)
    assert report.epochs == (0, 1, 2)
    assert rows(report)["classes"].over_time == (5 / 6, 4 / 6, 3 / 6)
    assert report.over_time == pytest.approx([27 / 28, 26 / 28, 25 / 28])
    lines = str(report).splitlines()
    cells = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]] for line in lines if "│" in line
    }
    assert cells["classes"] == ["2 x 3", "6", "3", "50.00%", "83.33%", "66.67%", "50.00%"]
    assert cells["total"] == ["", "28", "25", "89.29%", "96.43%", "92.86%", "89.29%"]


def test_many_epochs_are_thinned_out_in_the_table_only():
    model = compiled(layers())
    fit(model, LayerwiseDensity(), epochs=12)
    report = tfprune.layerwise_density(model)
    columns = [column.header for column in report.to_table().columns]
    # From 0 to 11 in quarters: 2.75, 5.5 and 8.25, rounded.
    assert columns[5:] == ["epoch 0", "epoch 3", "epoch 6", "epoch 8", "epoch 11"]
    assert report.to_dict()["epochs"] == tuple(range(12))
    assert len(report.to_dict()["kernels"][0]["over_time"]) == 12
    assert max(len(line) for line in str(report).splitlines()) <= 120


def test_a_layer_that_was_not_logged_stays_empty():
    model = compiled(layers())
    fit(model, LayerwiseDensity(exclude=[model.get_layer("conv")]))
    report = tfprune.layerwise_density(model)
    assert (rows(report)["conv"].over_time, rows(report)["classes"].over_time) == ((), (1.0, 1.0, 1.0))
    assert report.over_time == ()
    assert "epoch 2" in str(report)


def test_a_history_that_serves_two_fits_shows_the_last():
    model, history = compiled(layers()), keras.callbacks.History()
    fit(model, LayerwiseDensity(), history, epochs=2)
    model.get_layer("classes").kernel.assign(np.zeros((2, 3)))
    model.get_layer("classes").trainable = False
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.get_layer("classes").trainable = True  # only so that it is shown: the step that is compiled leaves it alone
    fit(model, LayerwiseDensity(), history, epochs=1)
    assert len(history.history["density/conv"]) == 3
    assert tfprune.layerwise_density(model).epochs == (0,)
    assert len(rows(tfprune.layerwise_density(model))["conv"].over_time) == 1


def test_weights_that_have_just_grown_are_alive():
    model = compiled(randomize(dense((8, 3))))
    masks = {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            masks.update({name: mask.copy() for name, mask in callback.masks.items()})
            zeros.append(int((model.get_layer("hidden").kernel.numpy() == 0).sum()))
            report = tfprune.layerwise_density(model)
            assert {row.name: row.living for row in report.kernels} == {n: int(m.sum()) for n, m in masks.items()}

    zeros = []
    callback = RigL(0.5, drop=Cosine(0.5, begin=3, end=100, frequency=4), seed=0)  # in the last step of each epoch
    fit(model, callback, Watch())
    assert max(zeros) > np.count_nonzero(~masks["hidden"])  # a grown weight was at zero, and yet it counted


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_filter_pruning_shows(mode):
    model = compiled(randomize(dense((8, 3))), jit_compile=False)
    fit(model, FPGM(0.25, mode=mode), LayerwiseDensity())
    report = tfprune.layerwise_density(model)
    assert {row.name: (row.living, row.weights) for row in report.kernels} == {"hidden": (12, 16), "classes": (24, 24)}
    assert rows(report)["hidden"].over_time == (0.75, 0.75, 0.75)


def test_what_is_not_trained_is_left_out():
    model = layers()
    model.get_layer("conv").trainable = False
    assert list(rows(tfprune.layerwise_density(model))) == ["depthwise", "classes"]
    assert list(rows(tfprune.layerwise_density(model, exclude=[model.get_layer("classes")]))) == ["depthwise"]
    model.trainable = False
    with pytest.raises(ValueError, match=r"no density to tell .* no trainable layer with a kernel"):
        tfprune.layerwise_density(model)


@pytest.mark.parametrize(("model", "error"), [("m.keras", TypeError), (keras.Sequential([L.Dense(1)]), ValueError)])
def test_what_cannot_be_read_is_refused(model, error):
    with pytest.raises(error, match=r"Keras 3 model|is not built"):
        tfprune.layerwise_density(model)


def test_saved(tmp_path):
    model = compiled(layers())
    fit(model, LayerwiseDensity(), epochs=2)
    saved = json.loads(tfprune.layerwise_density(model).save(tmp_path / "density.json").read_text())
    assert saved["kernels"][2] == {
        "name": "classes",
        "shape": [2, 3],
        "weights": 6,
        "living": 6,
        "density": 1.0,
        "over_time": [1.0, 1.0],
    }
    assert (saved["weights"], saved["living"], saved["density"], saved["epochs"]) == (28, 28, 1.0, [0, 1])
    assert saved["over_time"] == pytest.approx([1.0, 1.0])
