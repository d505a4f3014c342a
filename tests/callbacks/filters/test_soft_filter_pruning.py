import keras
import numpy as np
import pytest
from networks import chain, compiled, dense, images, open_chain, randomize, residual, same, weights_of, zero_filters

import tfprune
from tfprune.callbacks import SoftFilterPruning

L = keras.layers


class Record(keras.callbacks.Callback):
    """Copies kernels at every epoch's end."""

    def __init__(self, *names):
        super().__init__()
        self.names = names
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({name: self.model.get_layer(name).kernel.numpy().copy() for name in self.names})


def dead(kernel):
    return np.flatnonzero((kernel == 0).all(axis=tuple(range(kernel.ndim - 1)))).tolist()


def weakest(kernels, count):
    """The filters of the smallest L2 norm, averaged over kernels; the paper's rule, written naively."""
    norms = [
        np.mean([np.sqrt((kernel[..., c].astype("float64") ** 2).sum()) for kernel in kernels])
        for c in range(kernels[0].shape[-1])
    ]
    return sorted(sorted(range(len(norms)), key=lambda c: (norms[c], -c))[:count])


def fit(model, *callbacks, epochs=3, **options):
    return model.fit(*images(16), batch_size=8, epochs=epochs, callbacks=list(callbacks), verbose=0, **options).history


def test_the_weakest_filters_go_after_every_epoch_and_grow_back():
    model = compiled(open_chain((8, 6)), keras.optimizers.SGD(0.5), run_eagerly=True)
    before, after = Record("first"), Record("first")
    history = fit(model, before, SoftFilterPruning(0.5), after, epochs=3)
    for trained, pruned in zip(before.epochs, after.epochs, strict=True):
        assert dead(pruned["first"]) == weakest([trained["first"]], 4)
        assert dead(trained["first"]) == []  # behind BatchNormalization every filter grew back
        kept = ~(pruned["first"] == 0)
        assert np.array_equal(pruned["first"][kept], trained["first"][kept])
    assert history["pruned_filters"] == [4 + 3] * 3
    assert history["sparsity"] == [0.5] * 3


def ordinary(normalized):
    """Convolutions with ReLU as everybody builds them, on images whose classes differ."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1))]
    for index in range(2):
        layers.append(L.Conv2D(16, 3, padding="same", use_bias=not normalized, name=f"conv{index}"))
        layers += [L.BatchNormalization(momentum=0.9)] if normalized else []
        layers.append(L.ReLU())
    model = keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(4)])
    return compiled(model, keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)


def stripes(count=256):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count)
    grid = np.arange(8)
    waves = [grid[:, None] + 0 * grid, grid + 0 * grid[:, None], grid[:, None] + grid, grid[:, None] - grid]
    x = np.stack([np.sin(1.5 * waves[label] + rng.uniform(0, 6)) for label in labels]) + rng.normal(
        0, 0.3, (count, 8, 8)
    )
    return x[..., None].astype("float32"), labels


@pytest.mark.sampled(1)
@pytest.mark.parametrize("normalized", [True, False])
def test_filters_of_ordinary_networks_grow_back_and_the_choice_changes(normalized):
    model, (x, y) = ordinary(normalized), stripes()
    before, after = Record("conv0", "conv1"), Record("conv0", "conv1")
    callbacks = [before, SoftFilterPruning(0.25), after]
    model.fit(x, y, batch_size=16, epochs=8, verbose=0, callbacks=callbacks)
    assert all(dead(kernel) == [] for kernel in before.epochs[0].values())  # nothing is pruned before it has trained
    pairs = [
        (set(dead(after.epochs[epoch][name])), set(dead(before.epochs[epoch + 1][name])))
        for epoch in range(7)
        for name in ("conv0", "conv1")
    ]
    assert all(len(pruned) == 4 for pruned, _ in pairs)
    assert sum(len(pruned - still) for pruned, still in pairs) > 0.3 * sum(len(pruned) for pruned, _ in pairs)


def test_a_network_that_was_trained_keeps_what_it_has_learnt():
    """BatchNormalization brings a filter back to full strength however small it is: what carries it fades."""
    model, (x, y) = ordinary(normalized=True), stripes()
    model.compile(model.optimizer, model.loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=16, epochs=8, verbose=0)
    dense = model.evaluate(x, y, verbose=0)[1]
    gammas = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: gammas.append(model.layers[1].gamma.numpy()))
    model.optimizer.learning_rate.assign(0.01)
    model.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[SoftFilterPruning(0.5), look])
    assert model.evaluate(x, y, verbose=0)[1] > dense - 0.05
    assert np.sort(np.abs(gammas[0]))[:8].max() < 0.2 < np.sort(np.abs(gammas[0]))[8]


def test_biases_gammas_and_betas_shrink_to_a_tenth():
    model = compiled(randomize(chain()), keras.optimizers.SGD(0.0), run_eagerly=True)
    names = ("gamma", "beta")
    start = {name: getattr(model.get_layer("first_bn"), name).numpy() for name in names}
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(
            {name: getattr(model.get_layer("first_bn"), name).numpy() for name in names}
        )
    )
    fit(model, SoftFilterPruning(0.5), look, epochs=3)
    gone = zero_filters(model.get_layer("first"))
    assert len(gone) == 2
    for epoch, factor in enumerate((0.1, 0.01, 0.0)):
        for name in names:
            expected = start[name].copy()
            expected[gone] *= factor
            np.testing.assert_allclose(seen[epoch][name], expected, rtol=1e-6)


def test_tied_layers_are_ranked_by_their_mean_norm():
    model = compiled(randomize(residual()), keras.optimizers.SGD(0.1), run_eagerly=True)
    before = Record("stem", "branch", "head")
    fit(model, before, SoftFilterPruning(0.4), epochs=1)
    trained = before.epochs[0]
    expected = weakest([trained["stem"], trained["branch"]], 2)
    assert zero_filters(model.get_layer("stem")) == zero_filters(model.get_layer("branch")) == expected
    assert zero_filters(model.get_layer("head")) == weakest([trained["head"]], 2)


def test_layer_scope_ranks_each_layer_on_its_own():
    model = compiled(randomize(residual()), keras.optimizers.SGD(0.1), run_eagerly=True)
    before = Record("stem", "branch", "head")
    fit(model, before, SoftFilterPruning(0.4, scope="layer"), epochs=1)
    for name, kernel in before.epochs[0].items():
        assert zero_filters(model.get_layer(name)) == weakest([kernel], 2)


def test_frequency_and_the_last_epoch():
    model = compiled(open_chain(), keras.optimizers.SGD(0.5), run_eagerly=True)
    after = Record("first")
    history = fit(model, SoftFilterPruning(0.5, frequency=2), after, epochs=5)
    assert [len(dead(epoch["first"])) for epoch in after.epochs] == [0, 2, 0, 2, 2]
    assert history["sparsity"][1] == history["sparsity"][4] == 0.5
    assert history["sparsity"][0] < 0.5


def test_initial_epoch_counts():
    model = compiled(open_chain(), keras.optimizers.SGD(0.5), run_eagerly=True)
    after = Record("first")
    fit(model, SoftFilterPruning(0.5, frequency=2), after, epochs=6, initial_epoch=3)
    assert [len(dead(epoch["first"])) for epoch in after.epochs] == [2, 0, 2]


def test_what_carries_the_filters_stays_until_the_last_epoch():
    model = compiled(randomize(chain()), run_eagerly=True)
    gammas = []

    class Gammas(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            bn = self.model.get_layer("first_bn")
            gammas.append(int((bn.gamma.numpy() == 0).sum() + (bn.beta.numpy() == 0).sum()))

    fit(model, SoftFilterPruning(0.5), Gammas())
    assert gammas == [0, 0, 4]


def test_validation_every_other_epoch_changes_nothing():
    weights = []
    for options in ({}, {"validation_data": images(8, seed=1), "validation_freq": 2}):
        keras.utils.set_random_seed(0)
        model = compiled(randomize(chain()), run_eagerly=True)
        fit(model, SoftFilterPruning(0.5), **options)
        weights.append(weights_of(model))
    assert same(*weights)


def test_evaluating_later_with_the_callback_changes_nothing():
    model = compiled(randomize(chain()), run_eagerly=True)
    callback = SoftFilterPruning(0.5)
    fit(model, callback, epochs=1)
    model.get_layer("first").kernel.assign(np.ones((3, 3, 2, 4)))
    model.evaluate(*images(8), callbacks=[callback], verbose=0)
    assert zero_filters(model.get_layer("first")) == []


def test_excluded_layers_keep_every_filter():
    model = compiled(randomize(residual()), run_eagerly=True)
    before = Record("stem", "branch")
    fit(model, before, SoftFilterPruning(0.4, exclude=[model.get_layer("branch")]), epochs=1)
    for name, kernel in before.epochs[0].items():
        assert np.array_equal(model.get_layer(name).kernel.numpy(), kernel)
    assert len(zero_filters(model.get_layer("head"))) == 2


def test_excluded_in_layer_scope_leaves_the_tied_layer_prunable():
    model = compiled(randomize(residual()), run_eagerly=True)
    fit(model, SoftFilterPruning(0.4, scope="layer", exclude=lambda layer: layer.name == "branch"), epochs=1)
    assert {n: len(zero_filters(model.get_layer(n))) for n in ("stem", "branch")} == {"stem": 2, "branch": 0}


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), True, "0.4", None])
def test_a_ratio_that_is_no_fraction_is_refused(ratio):
    with pytest.raises(ValueError, match=r"ratio is the fraction to prune, a number in \[0, 1\)"):
        SoftFilterPruning(ratio)


def test_a_ratio_of_zero_is_refused():
    with pytest.raises(ValueError, match="All rates are 0"):
        SoftFilterPruning(0.0)


@pytest.mark.parametrize("frequency", [0, -1, 1.5, "1", True])
def test_a_frequency_that_is_no_count_is_refused(frequency):
    with pytest.raises(ValueError, match="frequency is a whole number of epochs, at least 1"):
        SoftFilterPruning(0.4, frequency=frequency)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match=r"scope must be one of \('group', 'layer'\). Received: 'model'"):
        SoftFilterPruning(0.4, scope="model")


def assert_refused(model, callback, error, message):
    """`fit` raises before it changes a weight."""
    before = weights_of(model)
    x, y = images(8, shape=model.input_shape[1:])
    with pytest.raises(error, match=message):
        model.fit(x, y, callbacks=[callback], verbose=0)
    assert same(before, weights_of(model))


def test_nothing_to_prune_is_refused():
    model = compiled(randomize(keras.Sequential([keras.Input((2,)), L.Dense(3, name="classes")])))
    assert_refused(
        model, SoftFilterPruning(0.4), ValueError, "SoftFilterPruning finds no prunable layer(.|\n)*model output"
    )


def test_a_ratio_too_small_for_every_layer_is_refused():
    assert_refused(
        compiled(randomize(chain())), SoftFilterPruning(0.1), ValueError, r"widest layer has 6 .* at least 0\.167"
    )


def test_exclude_by_name_or_of_another_model_is_refused():
    model = compiled(randomize(dense()))
    assert_refused(
        model, SoftFilterPruning(0.5, exclude="hidden"), TypeError, "exclude must be a list of layer objects"
    )
    stranger = L.Dense(1, name="stranger")
    assert_refused(model, SoftFilterPruning(0.5, exclude=[stranger]), ValueError, "not in the model .*stranger")


def test_nan_weights_are_refused():
    model = compiled(randomize(dense()))
    model.get_layer("hidden").kernel.assign(np.full((2, 4), np.nan))
    x, y = images(8, shape=(2,), classes=2)
    with pytest.raises(ValueError, match="scores are NaN"):
        model.fit(x, y, callbacks=[SoftFilterPruning(0.5)], verbose=0)
    assert np.isnan(model.get_layer("hidden").kernel.numpy()).all()


def test_a_residual_net_shrinks_afterwards():
    model = compiled(randomize(residual()), run_eagerly=True)
    fit(model, SoftFilterPruning(0.4), epochs=1)
    small = tfprune.shrink(model)
    assert [small.get_layer(name).filters for name in ("stem", "branch", "head")] == [3, 3, 5]
