"""Early-Bird tickets: masks of gammas that are written by hand after every epoch, and training that stops by them."""

import keras
import numpy as np
import pytest
from networks import chain, compiled, images, outputs, preactivation, randomize, residual

import tfprune
from tfprune.callbacks import EarlyBird, NetworkSlimming
from tfprune.parts.gamma_choice import choose_lowest
from tfprune.training.masks import apply_masks

X, Y = images(8, shape=(8, 8, 2))

# Ten channels, four of `first_bn` and six of `second_bn`: at a ratio of 0.3 the three smallest gammas are marked, which
# are those at these places after each of five epochs.
MARKED = [(0, 1, 2), (0, 1, 4), (0, 4, 5), (0, 4, 5), (0, 4, 9)]


def gammas_for(marked):
    gammas = np.linspace(0.5, 1.0, 10)
    gammas[list(marked)] = -0.1 * np.arange(1, 4)  # their sign does not count
    return gammas


class Write(keras.callbacks.Callback):
    """Writes the gammas of an epoch, as if training had led to them."""

    def on_epoch_end(self, epoch, logs=None):
        write(self.model, MARKED[epoch])


def write(model, marked):
    gammas = gammas_for(marked)
    model.get_layer("first_bn").gamma.assign(gammas[:4])
    model.get_layer("second_bn").gamma.assign(gammas[4:])


@pytest.fixture(scope="module")
def trained():
    return compiled(randomize(chain(normalized=True)), keras.optimizers.SGD(0.0), run_eagerly=True)


def fit(model, *callbacks, epochs=5, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options).history


def drive(model, early, epochs=5, initial_epoch=0):
    """Call a callback as `fit` does, with the gammas of each epoch and no training; return the distances."""
    early.set_model(model)
    early.set_params({"epochs": epochs})
    model.stop_training = False
    early.on_train_begin()
    distances = []
    for epoch in range(initial_epoch, epochs):
        early.on_epoch_begin(epoch)
        write(model, MARKED[epoch])
        early.on_epoch_end(epoch, logs := {})
        distances.append(logs["mask_distance"])
        if model.stop_training:
            break
    early.on_train_end()
    return distances


@pytest.mark.parametrize(
    ("window", "threshold", "distances", "emerged"),
    [
        (2, 0.0, [1.0, 0.2, 0.2, 0.0], 4),
        (2, 0.2, [1.0, 0.2], 2),
        (3, 0.2, [1.0, 1.0, 0.4, 0.2], 4),
        (4, 0.1, [1.0, 1.0, 1.0, 0.4, 0.2], None),
        (5, 0.4, [1.0, 1.0, 1.0, 1.0, 0.4], 5),
    ],
)
def test_training_stops_when_the_masks_of_a_window_agree(trained, window, threshold, distances, emerged):
    early = EarlyBird(0.3, window=window, threshold=threshold)
    if emerged is None:
        with pytest.warns(UserWarning, match="of 4 epochs in a row never differed by at most 0.1 .* in the end by 0.2"):
            found = drive(trained, early)
        assert (early.emerged_after, early.keep, early.masks) == (None, {}, {})
    else:
        found = drive(trained, early)
        assert early.emerged_after == emerged == len(found)
    assert found == pytest.approx(distances)


def test_the_ticket_names_the_channels_that_stay_and_shrink_removes_the_others(trained):
    early = EarlyBird(0.3, window=2, threshold=0.0)
    drive(trained, early)
    kept = {group.name: indices.tolist() for group, indices in early.keep.items()}
    assert kept == {"first": [1, 2, 3], "second": [2, 3, 4, 5]}  # without 0, 4 and 5 of ten
    gone = {
        path.rpartition("/")[0].split("/")[-1] + "/" + path.split("/")[-1]: ~mask for path, mask in early.masks.items()
    }
    assert sorted(gone) == [
        *("first/kernel", "first_bn/beta", "first_bn/gamma"),
        *("second/bias", "second/kernel", "second_bn/beta", "second_bn/gamma"),
    ]
    assert np.flatnonzero(gone["second_bn/gamma"]).tolist() == [0, 1]
    assert gone["first/kernel"].all(axis=(0, 1, 2)).tolist() == [True, False, False, False]

    masked = keras.models.clone_model(trained)
    masked.set_weights(trained.get_weights())
    apply_masks(masked, early.masks)
    small = tfprune.shrink(trained, early.keep)
    assert (small.get_layer("first").filters, small.get_layer("second").filters) == (3, 4)
    np.testing.assert_allclose(outputs(small, X)[0], outputs(masked, X)[0], atol=1e-5)


def test_training_that_goes_on_begins_its_window_with_the_weights_that_it_finds(trained):
    early = EarlyBird(0.3, window=3, threshold=0.2)
    write(trained, MARKED[1])  # as after two epochs
    distances = drive(trained, early, initial_epoch=2)
    assert (early.emerged_after, distances) == (4, pytest.approx([1.0, 0.2]))


def test_a_restored_fit_goes_on_from_the_restored_weights(trained, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    write(trained, (7, 8, 9))
    backup = (
        keras.callbacks.BackupAndRestore(tmp_path, double_checkpoint=False)
        if False
        else keras.callbacks.BackupAndRestore(tmp_path)
    )
    with pytest.raises(InterruptedError):
        fit(trained, Write(), EarlyBird(0.3), backup, Stop())
    write(trained, (7, 8, 9))
    early = EarlyBird(0.3, window=3, threshold=0.2)
    history = fit(trained, Write(), early, keras.callbacks.BackupAndRestore(tmp_path))
    assert early.emerged_after == 4
    assert history["mask_distance"] == pytest.approx([1.0, 0.2])  # of the epochs after the second


def test_slimming_without_a_ratio_pulls_and_prunes_nothing():
    model = compiled(randomize(chain(normalized=True)), keras.optimizers.SGD(0.1), run_eagerly=True)
    before = np.abs(model.get_layer("first_bn").gamma.numpy()).sum()
    early = EarlyBird(0.5, window=2, threshold=1.0)
    history = fit(model, NetworkSlimming(1.0, None), early)
    assert early.emerged_after == 2
    assert np.abs(model.get_layer("first_bn").gamma.numpy()).sum() < before
    assert history["pruned_channels"] == [0, 0]
    assert all(np.count_nonzero(weight.numpy()) for weight in model.trainable_variables)


@pytest.mark.parametrize(
    ("network", "kept"), [(residual, {"stem": 3, "head": 5}), (preactivation, {"first0": 2, "first1": 2})]
)
def test_tied_layers_go_together_and_channels_that_others_read_are_in_the_masks_alone(network, kept):
    model = randomize(network(normalized=True) if network is residual else network())
    early = EarlyBird(0.4, window=2)
    early.set_model(model)
    early.on_train_begin()
    for each in early._switched:  # the later of each are smaller
        for one in each.structure.slices:
            one.variable.assign(np.linspace(1.0, 0.5, len(one.parts)))
    for epoch in range(2):
        early.on_epoch_end(epoch)
    assert {group.name: len(indices) for group, indices in early.keep.items()} == kept
    selected = [each.structure for each in early._switched if each.selects_inputs]
    assert bool(selected) == (network is preactivation)
    for structure in selected:
        assert not early.masks[structure.slices[0].variable.path].all()
    tfprune.shrink(model, early.keep)


def test_what_does_not_fit_is_refused_before_training(trained):
    for name, options in {"ratio": {"ratio": 1.0}, "threshold": {"threshold": -0.1}, "window": {"window": 1}}.items():
        with pytest.raises(ValueError, match=name):
            EarlyBird(**{"ratio": 0.5, **options})
    with pytest.raises(ValueError, match="no channel would be pruned: gammas switch 10 channels"):
        fit(trained, EarlyBird(0.05))
    with pytest.raises(ValueError, match="EarlyBird finds nothing to prune"):
        fit(trained, EarlyBird(0.5, exclude=lambda layer: isinstance(layer, keras.layers.BatchNormalization)))


def test_gammas_that_are_not_numbers_have_no_rank(trained):
    early = EarlyBird(0.3)
    early.set_model(trained)
    early.on_train_begin()
    with pytest.raises(ValueError, match="NaN"):
        choose_lowest(early._switched, [np.full(4, np.nan), np.ones(6)], 0.3, 1)
