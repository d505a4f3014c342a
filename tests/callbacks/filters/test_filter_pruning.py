"""What the general callback takes: schedules, functions, stages, rankings and granularities."""

import math

import keras
import numpy as np
import pytest
from networks import chain, compiled, images, open_chain, randomize, residual, zero_filters

from tfprune import Ranking
from tfprune.callbacks import FPGM, FilterPruning, SoftFilterPruning, Stage
from tfprune.criteria import GroupFisher, GroupNorm, geometric_median_distance, l1_norm, l2_norm
from tfprune.granularity import Block, Channel, NofM
from tfprune.schedules import Constant, Exponential, Polynomial, Schedule


class Widths(keras.callbacks.Callback):
    """Placed first: how many filters are zero in the first step of every epoch; placed last: at its end."""

    def __init__(self, *names):
        super().__init__()
        self.names, self.during, self.after = names, [], []

    def found(self):
        return [len(zero_filters(self.model.get_layer(name))) for name in self.names]

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.during.append(self.found())

    def on_epoch_end(self, epoch, logs=None):
        self.after.append(self.found())


def fit(model, callback, epochs, names=("first", "second"), **options):
    widths = Widths(*names)
    x, y = images(16)
    history = model.fit(x, y, batch_size=16, epochs=epochs, callbacks=[callback, widths], verbose=0, **options)
    return widths, history.history


def network(filters=(8, 16)):
    return compiled(randomize(chain(filters)), keras.optimizers.SGD(0.1), run_eagerly=True)


def test_gradual_pruning_follows_the_schedule_and_never_lets_go():
    schedule = Polynomial(0.5, end=4, power=1, frequency=1, unit="epochs")
    widths, history = fit(network(), FilterPruning(schedule, GroupNorm(), mode="hard"), epochs=6)
    # After 1, 2, 3 and 4 epochs 0.125, 0.25, 0.375 and 0.5 of 8 and 16.
    assert widths.after == [[1, 2], [2, 4], [3, 6], [4, 8], [4, 8], [4, 8]]
    assert widths.during == [[0, 0], *widths.after[:-1]]
    assert history["pruned_filters"] == [sum(each) for each in widths.after]
    kernels = 9 * 2 * 8 + 9 * 8 * 16
    assert history["sparsity"] == pytest.approx([9 * (2 * a + 8 * b) / kernels for a, b in widths.after], abs=1e-12)


@pytest.mark.parametrize(("mode", "last"), [("hard", 3), ("soft", 4)])
def test_a_schedule_without_an_end_ends_where_the_mode_says(mode, last):
    schedule = Polynomial(0.5, power=1, frequency=1, unit="epochs")
    model = network() if mode == "hard" else compiled(open_chain((8, 16)), "sgd", run_eagerly=True)
    widths, _ = fit(model, FilterPruning(schedule, mode=mode), epochs=4)
    assert widths.after == [[math.floor(width * min(t / last, 1) / 2) for width in (8, 16)] for t in (1, 2, 3, 4)]


def test_a_frequency_of_the_schedule_skips_epochs():
    schedule = Polynomial(0.5, end=4, power=1, frequency=3, unit="epochs")
    widths, _ = fit(network(), FilterPruning(schedule, mode="hard"), epochs=5)
    assert widths.after == [[0, 0], [0, 0], [3, 6], [4, 8], [4, 8]]


def test_a_schedule_that_begins_later():
    widths, _ = fit(network(), FilterPruning(Constant(0.5, begin=2, frequency=1, unit="epochs"), mode="hard"), epochs=4)
    assert widths.during == [[0, 0], [0, 0], [4, 8], [4, 8]]


def test_a_function_of_the_epochs_that_are_done():
    asked = []

    def quarter_after_one(epochs):
        asked.append(epochs)
        return 0.0 if epochs < 1 else 0.25

    widths, _ = fit(network(), FilterPruning(quarter_after_one, mode="hard"), epochs=2)
    assert widths.during == [[0, 0], [2, 4]]
    assert set(asked) == {0, 1, 2}


def test_a_schedule_of_your_own():
    class Stairs(Schedule):
        def value(self, t):
            return 0.25 * (t // 2)

    widths, _ = fit(network(), FilterPruning(Stairs(frequency=1, unit="epochs"), mode="hard"), epochs=4)
    assert widths.after == [[0, 0], [2, 4], [2, 4], [4, 8]]


def test_training_that_goes_on_takes_up_the_schedule():
    schedule = Polynomial(0.5, end=4, power=1, frequency=1, unit="epochs")
    model = network()
    fit(model, FilterPruning(schedule, mode="hard"), epochs=3)
    chosen = zero_filters(model.get_layer("second"))
    widths, _ = fit(model, FilterPruning(schedule, mode="hard"), epochs=5, initial_epoch=3)
    assert widths.during == [[3, 6], [4, 8]]
    assert set(chosen) < set(zero_filters(model.get_layer("second")))


def test_asymptotic_soft_filter_pruning_by_the_paper():
    """0.5 a exp(-k e) + b through (0, 0), three quarters of the way after an eighth of the epochs, and (8, 0.5)."""
    rates = [0.375, 0.46875, 0.4922, 0.4980, 0.4995, 0.49988, 0.49997, 0.5]  # what is left shrinks to a quarter
    model = compiled(open_chain((16, 64)), "sgd", run_eagerly=True)
    widths, history = fit(model, SoftFilterPruning(Exponential(0.5, unit="epochs", frequency=1)), epochs=8)
    assert widths.after == [[math.floor(16 * rate), math.floor(64 * rate)] for rate in rates]
    assert [sum(each) for each in widths.after] == history["pruned_filters"]


def test_gradual_fpgm_mixes_two_schedules():
    norm = Polynomial(0.25, end=2, power=1, frequency=1, unit="epochs")
    distance = Polynomial(0.25, end=4, power=1, frequency=1, unit="epochs")
    widths, _ = fit(network(), FPGM(distance, norm_ratio=norm), epochs=4)
    assert widths.after == [[1 + 0, 2 + 1], [2 + 1, 4 + 2], [2 + 1, 4 + 3], [2 + 2, 4 + 4]]


def test_stages_of_your_own_are_what_fpgm_does():
    found = []
    for callback in (
        FPGM(0.3, norm_ratio=0.2),
        FilterPruning([Stage(l2_norm, 0.2), Stage(geometric_median_distance, 0.3)], mode="hard"),
    ):
        model = network()
        fit(model, callback, epochs=1)
        found.append([zero_filters(model.get_layer(name)) for name in ("first", "second")])
    assert found[0] == found[1]
    assert [len(filters) for filters in found[0]] == [1 + 2, 3 + 4]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "make",
    [
        lambda granularity: FilterPruning(0.4, l1_norm, granularity=granularity),
        lambda granularity: FPGM(0.3, norm_ratio=0.1, granularity=granularity),
        lambda granularity: SoftFilterPruning(0.4, granularity=granularity),
    ],
)
def test_widths_that_kernels_run_fast(make):
    # Of 32 filters 20 would stay, of 20 12 (FPGM: 13): rounded up to 24 and 16. Of 7 none may go.
    model = compiled(randomize(chain((32, 20))), run_eagerly=True)
    fit(model, make(Channel(round_to=8)), epochs=1)
    assert [len(zero_filters(model.get_layer(name))) for name in ("first", "second")] == [8, 4]
    model = compiled(randomize(chain((32, 7))), run_eagerly=True)
    fit(model, make(Channel(min_channels=31)), epochs=1)
    assert [len(zero_filters(model.get_layer(name))) for name in ("first", "second")] == [1, 0]


def test_a_global_ranking_counts_over_all_layers():
    model = network((4, 4))
    kernels = {"first": (1.0, 2.0, 3.0, 100.0), "second": (50.0, 50.0, 50.0, 60.0)}
    for name, norms in kernels.items():
        kernel = np.zeros(model.get_layer(name).kernel.shape)
        kernel[0, 0, 0] = norms
        model.get_layer(name).kernel.assign(kernel)
    # Relative to their means, 26.5 and 52.5, the three lowest of eight are all in the first layer.
    fit(model, FilterPruning(3 / 8, l2_norm, ranking="global", mode="hard"), epochs=1)
    assert [zero_filters(model.get_layer(name)) for name in kernels] == [[0, 1, 2], []]


def test_layers_on_their_own_are_ranked_together_too():
    model = compiled(randomize(residual()), run_eagerly=True)
    for name, size in {"stem": 0.01, "branch": 1.0, "head": 1.0}.items():
        kernel = np.full(model.get_layer(name).kernel.shape, size)
        model.get_layer(name).kernel.assign(kernel)
    ranking = Ranking("global", normalize="none")
    fit(model, FilterPruning(3 / 17, ranking=ranking, scope="layer", mode="hard"), epochs=1, names=("stem",))
    assert [len(zero_filters(model.get_layer(name))) for name in ("stem", "branch", "head")] == [3, 0, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FilterPruning(0.5, granularity=NofM(2, 4)), TypeError, "^FilterPruning prunes whole channels"),
        (lambda: FPGM(0.5, granularity=Block((4, 1))), TypeError, r"FPGM .*Channel.*Received: Block\(shape=\(4, 1\)\)"),
        (lambda: FilterPruning(0.5, "l1_norm"), TypeError, "criterion must be a ChannelCriterion or a function"),
        (lambda: FilterPruning(0.5, ranking="all"), ValueError, "ranking must be a Ranking, 'local'.*'all'"),
        (
            lambda: FilterPruning(0.5, GroupFisher()),
            ValueError,
            "GroupFisher needs .*'gate_gradient_squared'.*data= of",
        ),
        (
            lambda: FilterPruning(0.5, ranking=Ranking(within=GroupFisher())),
            ValueError,
            "GroupFisher needs .*'gate_gradient_squared'.*data= of prune_channels",
        ),
        (
            lambda: FilterPruning(0.5, ranking=Ranking("global", cost="macs")),
            ValueError,
            r"cost='macs' is counted for the model that comes out.*FilterPruning makes none.*prune_channels",
        ),
        (lambda: FilterPruning(1.0), ValueError, r"^sparsity is the fraction to prune.*Received: 1\.0"),
        (lambda: FilterPruning("half"), ValueError, "^sparsity is the fraction to prune.*Received: 'half'"),
        (lambda: FilterPruning([]), ValueError, "All rates are 0"),
        (lambda: FilterPruning([0.5]), TypeError, "A list must hold stages"),
        (lambda: FilterPruning([Stage(l2_norm, 0.5)], l2_norm), TypeError, "`criterion` must be left out"),
        (lambda: FilterPruning([Stage(l2_norm, 0.5), Stage(l1_norm, 0.5)]), ValueError, "rates add up to 1"),
        (
            lambda: FilterPruning(Polynomial(0.5)),
            ValueError,
            r'sparsity must count epochs: Polynomial\(.*unit="epochs"',
        ),
        (lambda: FPGM(Polynomial(0.5)), ValueError, "ratio must count epochs"),
        (
            lambda: SoftFilterPruning(Polynomial(0.5, unit="epochs"), frequency=2),
            ValueError,
            "ratio is a schedule, which says itself how often.*frequency=2",
        ),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (FilterPruning(lambda epochs: 0.5 * epochs), r"sparsity is the fraction to prune.*Received: 1\.0"),
        (FilterPruning(lambda epochs: 0.0), "All rates are 0"),
        (FilterPruning(Constant(0.5, begin=3, unit="epochs")), "All rates are 0"),
        (FilterPruning(Polynomial(0.5, begin=3, unit="epochs")), "begins after 3 epochs, but training has 2"),
        (FPGM(lambda epochs: 0.3 * epochs, norm_ratio=0.4), "rates add up to 1"),
        (FilterPruning(0.5, granularity=Channel(round_to=32)), r"Channel\(.*round_to=32\) leaves every layer as it is"),
        (FilterPruning(0.01, ranking="global"), "widest set of layers that are ranked together has 24 filters.*0.0417"),
    ],
)
def test_what_does_not_fit_the_training_is_refused_before_it(callback, message):
    model = network()
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match=message):
        fit(model, callback, epochs=2)
    assert all(np.array_equal(old, new.numpy()) for old, new in zip(before, model.weights, strict=True))
