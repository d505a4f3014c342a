"""Masks as images, and densities as numbers, in the files that TensorBoard reads."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import compiled, dense, images, randomize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfprune.callbacks import FPGM, LayerwiseDensity, MagnitudePruning, MaskImages
from tfprune.callbacks.monitors.mask_images import folded, pooled
from tfprune.parts.kernels import kernels
from tfprune.schedules import Polynomial

L = keras.layers


def fit(model, *callbacks, epochs=3):
    x, y = images(32, shape=model.input_shape[1:])
    compiled(model, jit_compile=False)
    return model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


def events(folder):
    """What TensorBoard finds in the files of one run: values by step, by tag."""
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {event.step: tf.make_ndarray(event.tensor_proto) for event in found.Tensors(tag)}
        for tag in found.Tags()["tensors"]
    }


def pictures(folder):
    """The images of one run by tag and step, as arrays of 0 to 255; an event holds width, height and the PNG."""
    return {
        tag: {step: tf.io.decode_png(values[2]).numpy()[:, :, 0] for step, values in steps.items()}
        for tag, steps in events(folder).items()
    }


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The folder and the history of a training that prunes 1/4, 1/2 and 3/4 of the weights."""
    folder = tmp_path_factory.mktemp("logs")
    keras.utils.set_random_seed(0)
    board = keras.callbacks.TensorBoard(folder)
    pruning = MagnitudePruning(Polynomial(0.75, power=1, end=12, frequency=4))
    model = randomize(dense((8, 3)))
    return folder, fit(model, pruning, LayerwiseDensity(), board, MaskImages(board, every=2)), model


def test_tensorboard_gets_density_and_sparsity(logs):
    folder, history, _ = logs
    found = events(folder / "train")
    for name in ("density/hidden", "density/classes", "density", "sparsity"):
        written = found[f"epoch_{name}"]
        assert list(written) == [0, 1, 2]
        assert [float(value) for value in written.values()] == pytest.approx(history[name])
    # 16 weights and 24: of all 40, what the two have left
    assert history["density"] == [30 / 40, 20 / 40, 10 / 40]


def test_images_show_the_masks_of_every_second_epoch(logs):
    folder, history, model = logs
    found = pictures(folder / "masks")
    assert {tag: list(steps) for tag, steps in found.items()} == {"mask/hidden": [1, 2], "mask/classes": [1, 2]}
    for tag, steps in found.items():
        shares = [np.mean(steps[epoch] == 255) for epoch in (1, 2)]
        assert shares == [history[tag.replace("mask", "density")][epoch] for epoch in (1, 2)]
        assert all(set(np.unique(image)) == {0, 255} for image in steps.values())
    kernel = model.get_layer("hidden").kernel.numpy()
    assert np.array_equal(found["mask/hidden"][2] == 255, kernel != 0)


def test_pruned_filters_are_black_columns_whatever_the_other_callback_records(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="conv"), L.Flatten(), L.Dense(3, name="classes")]
    )
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=1000)
    fit(randomize(model), FPGM(0.5), board, MaskImages(board, every=5, exclude=[model.layers[-1]]), epochs=2)
    found = pictures(tmp_path / "masks")
    assert {tag: list(steps) for tag, steps in found.items()} == {"mask/conv": [1]}
    image = found["mask/conv"][1]
    assert image.shape == (3 * 3 * 2, 4)
    assert sorted(image.mean(axis=0).tolist()) == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.Conv2D(5, 3), (6, 6, 2), (18, 5)),
        (L.Conv2DTranspose(5, 3), (6, 6, 2), (18, 5)),
        (L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 4), (9, 8)),
        (L.EinsumDense("abc,cde->abde", (None, 3, 4)), (5, 2), (2, 12)),
        (L.Embedding(7, 4), (3,), (7, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_columns_are_output_channels(layer, shape, expected):
    (kernel,) = kernels(keras.Sequential([keras.Input(shape), layer]))
    array = np.ones(kernel.variable.shape)
    channel = np.zeros(expected[1], bool)
    channel[1] = True
    # The second output channel is pruned where the layer keeps it.
    if isinstance(layer, L.Conv2DTranspose):
        array[..., 1, :] = 0
    elif isinstance(layer, L.DepthwiseConv2D | L.EinsumDense):
        array[..., 0, 1] = 0
    else:
        array[..., 1] = 0
    kernel.variable.assign(array)
    assert folded(kernel).shape == expected
    assert np.array_equal(~folded(kernel), np.broadcast_to(channel, expected))


def test_large_kernels_show_the_density_of_blocks():
    mask = np.zeros((6, 5), bool)
    mask[:3, 2:] = True
    assert pooled(mask, 2).tolist() == [[0, 1], [0, 0]]
    whole = np.random.default_rng(0).random((1000, 700)) < 0.1
    small = pooled(whole, 64)
    assert small.shape == (64, 64)
    assert small.mean() == pytest.approx(whole.mean(), abs=0.002)


def test_what_is_refused_before_training(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match=r"callbacks=\[..., board, MaskImages\(board\)\]. Received: 'logs'"):
        MaskImages("logs")
    board = keras.callbacks.TensorBoard(tmp_path / "logs")
    for options in ({"every": 0}, {"max_size": 1.5}):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            MaskImages(board, **options)
    model = dense()
    with pytest.raises(ValueError, match="not among the callbacks of this fit"):
        fit(model, MaskImages(board))
    with pytest.raises(ValueError, match="finds nothing to show"):
        fit(model, board, MaskImages(board, exclude=lambda layer: True))
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        fit(model, board, MaskImages(board))
    assert not (tmp_path / "logs" / "masks").exists()
