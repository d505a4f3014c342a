"""Rounds on twelve weights, computed by hand for every policy; exact counts, when rounds end, and interruptions."""

import contextlib
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import weights_of

import tfprune
from tfprune import (
    FineTune,
    InitialWeights,
    InitialWeightsAtEnd,
    IterateOptions,
    PruneWeights,
    Reinitialize,
    Rewind,
    RewindLearningRate,
    Stop,
    iterate,
)
from tfprune.masking import recorded_mask

L = keras.layers
INITIAL = np.arange(1.0, 13.0, dtype="float32").reshape(3, 4)
GRADIENT = np.zeros(12, "float32")
GRADIENT[10:] = 2.0
GRADIENT = GRADIENT.reshape(3, 4)
STEPS = 4
QUIET = IterateOptions(progress=False)


def network():
    """Twelve weights that are pruned, and a BatchNormalization with statistics."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, use_bias=False), L.BatchNormalization()])
    model.layers[0].kernel.assign(INITIAL)
    model.compile(keras.optimizers.SGD(1.0, momentum=0.5), "mse")
    return model


def moved(steps):
    """By how many gradients weights have moved after so many steps: each moves by 1 and half of the one before."""
    return 2 * steps - 2 + 0.5 ** (steps - 1) if steps else 0.0


def momentum(steps):
    return (-2 + 0.5 ** (steps - 1)) * GRADIENT if steps else np.zeros_like(GRADIENT)


def slot_of(model):
    return next(each for each in model.optimizer.variables if each.name.endswith("kernel_momentum"))


class Recorder:
    """Trains by a constant gradient, and keeps what each training begins with."""

    def __init__(self):
        self.seen = []

    def __call__(self, model, told):
        kernel, mean = model.layers[0].kernel, model.layers[1].moving_mean
        state = kernel.numpy(), slot_of(model).numpy(), int(model.optimizer.iterations), float(mean.numpy()[0])
        self.seen.append((told, *state))
        start = 0 if told.start is None else told.start
        for _ in range(start, STEPS if told.stop is None else told.stop):
            model.optimizer.apply([keras.ops.convert_to_tensor(GRADIENT)], [kernel])
            mean.assign_add(np.ones(4))


def rounds(rewind, count=2, **options):
    train = Recorder()
    found = iterate(network(), None, train=train, stop=Stop(rounds=count), rewind=rewind, options=QUIET, **options)
    return found, train.seen


def without(*gone):
    mask = np.ones(12, bool)
    mask[list(gone)] = False
    return mask.reshape(3, 4)


# The dense training ends with 1, ..., 10, 11 - 12.25, 12 - 12.25: the last and the first go. Where weights come back,
# the next training ends as the dense one: the eleventh (1.25) and the second go. Where they do not, the eleventh moves
# on, far from zero: the second and the third go.
BACK, ON = [without(), without(0, 11), without(0, 1, 10, 11)], [without(), without(0, 11), without(0, 1, 2, 11)]


@pytest.mark.parametrize(
    ("rewind", "masks", "begun", "slots", "place"),
    [
        (InitialWeights(), BACK, [0, 0, 0], [0, 0, 0], [0, 0, 0]),
        (Rewind(step=2), BACK, [2, 2, 2], [2, 2, 2], [2, 2, 2]),
        (Rewind(epoch=1), BACK, [1, 1, 1], [1, 1, 1], [1, 1, 1]),
        (Rewind(step=2, optimizer="new"), BACK, [2, 2, 2], [2, 0, 0], [2, 2, 2]),
        (FineTune(), ON, [0, 4, 8], [0, 4, 8], [0, 4, 8]),
        (RewindLearningRate(epoch=0), ON, [0, 4, 8], [0, 4, 8], [0, 0, 0]),
        (RewindLearningRate(step=2), ON, [2, 4, 6], [2, 4, 6], [2, 2, 2]),
        (InitialWeightsAtEnd(), [*ON, ON[2]], [0, 4, 8, 0], [0, 4, 8, 0], [0, 4, 8, 0]),
    ],
    ids=lambda value: str(value) if not isinstance(value, list) else "",
)
def test_what_a_round_begins_with(rewind, masks, begun, slots, place):
    found, seen = rounds(rewind)
    seen = [each for each in seen if each[0].stop is None]  # without the training to the point of rewinding
    assert len(seen) == len(masks)
    for (told, weights, slot, iterations, mean), mask, steps, remembered, at in zip(
        seen, masks, begun, slots, place, strict=True
    ):
        np.testing.assert_array_equal(weights, np.where(mask, INITIAL - moved(steps) * GRADIENT, 0))
        np.testing.assert_array_equal(slot, np.where(mask, momentum(remembered), 0))
        assert (iterations, mean) == (at, steps)
        if told.number:
            assert [each.tolist() for each in told.masks.values()] == [mask.tolist()]
    kernel = found.model.layers[0].kernel
    np.testing.assert_array_equal(recorded_mask(kernel), masks[-1])
    assert [row.left for row in found.report.rounds] == [int(mask.sum()) for mask in masks]
    assert found.report.rounds[-1].name == found.report.returned
    assert (kernel.numpy()[~masks[-1]] == 0).all()
    np.testing.assert_array_equal(found.ticket.masks[kernel.path], masks[-1])
    np.testing.assert_array_equal(found.ticket.weights[kernel.path], INITIAL - moved(rewind.point) * GRADIENT)


def test_weights_are_drawn_anew():
    _, seen = rounds(Reinitialize())
    assert [(each[2].any(), *each[3:]) for each in seen] == [(False, 0, 0.0)] * 3
    (_, dense, *_), (first, one, *_), (second, two, *_) = seen
    for told, weights in ((first, one), (second, two)):
        (mask,) = told.masks.values()
        assert (weights[~mask] == 0).all()
        assert (weights[mask] != 0).all()
        assert np.abs(weights).max() < 1  # glorot_uniform of 3 and 4
    both = (one != 0) & (two != 0)
    assert (one[both] != two[both]).all()
    again = rounds(Reinitialize())[1]
    np.testing.assert_array_equal(again[2][1], two)
    np.testing.assert_array_equal(dense, INITIAL)


def test_the_model_itself_stays():
    model = network()
    before = weights_of(model)
    iterate(model, None, train=Recorder(), stop=Stop(rounds=1), options=QUIET)
    assert all(map(np.array_equal, weights_of(model), before))


def untrained(model, told):
    """Nothing moves, so that all is known."""


def two_layers(first=INITIAL, second=None):
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, use_bias=False, name="a"), L.Dense(5, name="b")])
    model.layers[0].kernel.assign(first)
    model.layers[1].kernel.assign(np.ones((4, 5)) if second is None else second)
    return model


def counts(prune, stop, model=None):
    found = iterate(model or two_layers(), None, train=untrained, stop=stop, prune=prune, options=QUIET)
    tickets = [[int(mask.sum()) for mask in ticket.masks.values()] for ticket in found.tickets.values()]
    return tickets, found


def test_counts_are_exact_in_every_layer():
    # 12, and 20: of each what floor(n / 5) leaves, until nothing of either goes.
    tickets, found = counts(PruneWeights(), Stop(rounds=20))
    assert tickets[:6] == [[12, 20], [10, 16], [8, 13], [7, 11], [6, 9], [5, 8]]
    assert tickets[6:] == [[4, 7], [4, 6], [4, 5], [4, 4]]
    assert found.report.stopped.startswith("no more of what round-9 has left can go")


def test_counts_are_exact_over_all_layers():
    # 32, 26, 21, 17: in the first 1 to 12, in the second twenty ones, of which the later go first.
    tickets, found = counts(PruneWeights(ranking="global"), Stop(rounds=3))
    assert tickets == [[12, 20], [12, 14], [12, 9], [12, 5]]
    (_, mask) = found.ticket.masks.values()
    np.testing.assert_array_equal(mask.ravel(), np.arange(20) < 5)


def test_layers_have_fractions_of_their_own():
    model = two_layers()
    fractions = {model.layers[0]: 0.5, model.layers[1]: 0.1}
    assert counts(PruneWeights(fractions), Stop(rounds=2), model)[0] == [[12, 20], [6, 18], [3, 17]]
    only = PruneWeights(lambda layer: 0.25 if layer.name == "a" else None)
    assert counts(only, Stop(rounds=2))[0] == [[12], [9], [7]]
    assert counts(PruneWeights(0.25, exclude=[model.layers[1]]), Stop(rounds=1), model)[0] == [[12], [9]]


def test_rounds_end_at_a_sparsity():
    tickets, found = counts(PruneWeights(ranking="global"), Stop(rounds=9, sparsity=0.4))
    assert tickets[-1] == [12, 5]  # 32, 26, 21 of 32 are too many still
    assert found.report.stopped == "the sparsity 0.4 is reached"


def total(y_true, y_pred):
    return float(y_pred.sum())


def test_the_last_good_round_is_returned():
    # The score is the sum of the weights: 78, without 1 and 2 it is 75, without 3 and 4 it is 68 < 0.9 x 78.
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, use_bias=False)])
    model.layers[0].kernel.assign(INITIAL)
    options = IterateOptions(validation=(np.ones((1, 3)), np.zeros(1)), metric=total, progress=False)
    stop = Stop(rounds=9, max_loss_factor=0.9)
    found = iterate(model, None, train=untrained, stop=stop, options=options)
    assert [row.score for row in found.report.rounds] == [78, 75, 68]
    assert [row.accepted for row in found.report.rounds] == [True, True, False]
    assert found.report.returned == "round-1"
    assert found.report.stopped == "round-2 has the score 68, below 0.9 times 78"
    np.testing.assert_array_equal(found.model.layers[0].kernel.numpy(), np.where(INITIAL > 2, INITIAL, 0))
    np.testing.assert_array_equal(recorded_mask(found.model.layers[0].kernel), INITIAL > 2)
    assert found.ticket is found.tickets["round-1"]
    assert "round-1 (returned)" in str(found.report)
    stop = Stop(max_loss_factor=1.0)
    assert iterate(model, None, train=untrained, stop=stop, options=options).report.returned == "round-0"


class CutOffError(Exception):
    pass


def kept(path, rewind, train, **asked):
    options = IterateOptions(path=path, progress=False, **asked)
    found = iterate(network(), None, train=train, stop=Stop(rounds=3), rewind=rewind, options=options)
    return found, [*weights_of(found.model), *(each.numpy() for each in found.model.optimizer.variables)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rewind", [Rewind(step=2), InitialWeightsAtEnd()], ids=repr)
def test_goes_on_after_any_write(tmp_path, monkeypatch, rewind):
    whole, state = kept(tmp_path / "whole", rewind, Recorder())
    original, writes = Path.replace, []

    def replace(self, target):
        writes.append(1)
        moved = original(self, target)
        if len(writes) == 3:
            raise CutOffError
        return moved

    found, interruptions = None, 0
    while found is None:
        with monkeypatch.context() as patch, contextlib.suppress(CutOffError):
            writes.clear()
            patch.setattr(Path, "replace", replace)
            found = kept(tmp_path / "cut", rewind, Recorder())
        interruptions += found is None
        assert interruptions < 30
    assert interruptions > 5
    assert found[0].report == whole.report
    assert all(map(np.array_equal, found[1], state))
    for name, ticket in whole.tickets.items():
        masks = zip(ticket.masks.values(), found[0].tickets[name].masks.values(), strict=True)
        assert all(np.array_equal(one, other) for one, other in masks)


def test_what_is_kept_is_bounded(tmp_path):
    kept(tmp_path / "run", Rewind(step=2), Recorder())
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["left", "pretrain.keras", "report.json", "round-0.keras", "round-3.keras", "state.json"]
    assert len([*(tmp_path / "run" / "left").iterdir()]) == 3
    train = Recorder()
    kept(tmp_path / "run", Rewind(step=2), train)  # what is done is not done again
    assert not train.seen


def test_another_model_or_data_is_refused(tmp_path):
    kept(tmp_path / "run", InitialWeights(), Recorder())
    other = network()
    other.layers[0].kernel.assign(INITIAL + 1)
    options = IterateOptions(path=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"other arguments \(model: \w+ then, \w+ now\)"):
        iterate(other, None, train=untrained, stop=Stop(rounds=3), options=options)
    with pytest.raises(ValueError, match=r"\(policy: .*'InitialWeights'.* then, .*'FineTune'.* now\)"):
        iterate(network(), None, train=untrained, stop=Stop(rounds=3), rewind=FineTune(), options=options)
    other = PruneWeights(lambda layer: 0.5)
    with pytest.raises(ValueError, match=r"fractions: \[0\.2\] then, \[0\.5\] now"):
        iterate(network(), None, train=untrained, stop=Stop(rounds=3), prune=other, options=options)
    data = np.ones((20, 3)), np.ones((20, 4))
    options = IterateOptions(path=tmp_path / "run", metric=total, progress=False)
    with pytest.raises(ValueError, match=r"data: None then, .*samples"):
        iterate(network(), data, train=untrained, stop=Stop(rounds=3), options=options)


def fitted():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), L.Dense(8), L.BatchNormalization(), L.Dropout(0.5), L.Dense(2)])
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([4], [0.1, 0.01])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, run_eagerly=True)
    return model


DATA = np.random.default_rng(0).normal(size=(15, 3)).astype("float32"), np.arange(15) % 2


class Watch(keras.callbacks.Callback):
    """Keeps the states before batches, by how many steps were made; and ends everything at some batch of all."""

    def __init__(self, states, rates, batch=0):
        super().__init__()
        self.states, self.rates, self.batch = states, rates, batch

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        self.rates.append((int(optimizer.iterations), float(optimizer.learning_rate)))
        self.states.append([*weights_of(self.model), *(each.numpy() for each in optimizer.variables)])

    def on_train_batch_end(self, batch, logs=None):
        self.batch -= 1
        if self.batch == 0:
            raise CutOffError


def test_rewinds_a_fit_within_an_epoch(tmp_path):
    """Three steps an epoch and two epochs: rounds begin with the second step of the second epoch."""

    def run(path, states, rates, batch=0):
        options = IterateOptions(
            path=path,
            validation=DATA,
            fit={"batch_size": 5},
            callbacks=lambda: [Watch(states, rates, batch)],
            progress=False,
        )
        return iterate(fitted(), DATA, train=2, stop=Stop(rounds=2), rewind=Rewind(step=4), options=options)

    states, rates = [], []
    found = run(tmp_path / "whole", states, rates)
    assert [step for step, _ in rates] == [*range(6), 4, 5, 4, 5]
    assert all(rate == pytest.approx(0.1 if step <= 4 else 0.01) for step, rate in rates)
    for begin, pruned in ((states[6], 4), (states[8], 8)):  # of 24 weights floor(4.8), then floor(4) of 20
        assert (begin[0] == 0).sum() == pruned
        for saved, now in zip(states[4], begin, strict=True):
            np.testing.assert_array_equal(now[now != 0], saved[now != 0])
            assert (now == 0).sum() <= (saved == 0).sum() + pruned
    assert [row.left for row in found.report.rounds] == [40, 33, 27]
    assert [row.epochs for row in found.report.rounds] == [1, 1, 1]
    with pytest.raises(CutOffError):
        run(tmp_path / "cut", [], [], batch=2)  # by each of its callbacks: in the first round of three
    again = run(tmp_path / "cut", [], [])
    assert again.report == found.report
    assert all(map(np.array_equal, weights_of(again.model), weights_of(found.model)))


def test_fine_tunes_at_a_constant_rate():
    states, rates = [], []
    options = IterateOptions(
        validation=DATA,
        fit={"batch_size": 8},
        callbacks=lambda: [Watch(states, rates)],
        progress=False,
    )
    rewind = FineTune(epochs=1, learning_rate=0.25)
    iterate(fitted(), DATA, train=1, stop=Stop(rounds=2), rewind=rewind, options=options)
    # Two steps each: the optimizer counts on, and what it remembers stays.
    assert rates == [(step, pytest.approx(0.1 if step < 2 else 0.25)) for step in range(6)]
    remembered = [state[-1] for state in states]
    assert not remembered[0].any()
    assert all(value.any() for value in remembered[1:])


def test_the_dense_model_comes_back_with_its_own_optimizer():
    scores = iter([1.0, 0.5])
    options = IterateOptions(
        validation=DATA, metric=lambda y_true, y_pred: next(scores), fit={"batch_size": 15}, progress=False
    )
    stop, rewind = Stop(max_loss_factor=0.9), FineTune(learning_rate=0.25)
    found = iterate(fitted(), DATA, train=1, stop=stop, rewind=rewind, options=options)
    assert found.report.returned == "round-0"
    assert isinstance(found.model.optimizer.get_config()["learning_rate"], dict)
    assert int(found.model.optimizer.iterations) == 1
    assert slot_of(found.model).numpy().any()
    assert found.ticket.density == 1


@pytest.mark.parametrize(
    ("error", "match", "asked"),
    [
        (ValueError, "fraction must be a number in", lambda: PruneWeights(1.0)),
        (ValueError, "fraction must be a number in", lambda: PruneWeights(0)),
        (ValueError, "fraction must be a number in", lambda: PruneWeights("0.2")),
        (ValueError, "ratio must be a number in", lambda: tfprune.PruneChannels(0.0)),
        (ValueError, "Give one fraction", lambda: PruneWeights({}, ranking="global")),
        (ValueError, "Stop needs a rule", lambda: Stop()),
        (ValueError, "max_loss_factor must be", lambda: Stop(max_loss_factor=1.1)),
        (ValueError, "Give either epoch or step", lambda: Rewind()),
        (ValueError, "whole number of at least 0", lambda: Rewind(step=-1)),
        (ValueError, '"saved" or "new"', lambda: Rewind(step=1, optimizer="old")),
        (ValueError, "learning_rate must be", lambda: FineTune(learning_rate=0)),
        (TypeError, "callbacks must be a function", lambda: IterateOptions(callbacks=[])),
    ],
    ids=[
        *(
            "all",
            "nothing",
            "text",
            "no-channels",
            "two-rankings",
            "no-rule",
            "factor",
            "no-point",
            "negative",
            "slots",
        ),
        *("rate", "callbacks"),
    ],
)
def test_what_cannot_be_asked(error, match, asked):
    with pytest.raises(error, match=match):
        asked()


@pytest.mark.parametrize(
    ("error", "match", "changed"),
    [
        (ValueError, "never saved: the training has 2 epochs, 2 steps", {"rewind": Rewind(step=2)}),
        (ValueError, "never saved", {"rewind": RewindLearningRate(epoch=2)}),
        (TypeError, "stop must be one such as tfprune.Stop", {"stop": 3}),
        (TypeError, "train must be a number of epochs", {"train": "long"}),
        (ValueError, "behind it, of which it says nothing", {"rewind": InitialWeightsAtEnd(), "stop": "loss"}),
        (ValueError, "A budget is met by removing channels", {"stop": Stop(budget=tfprune.Budget(macs=0.5))}),
        (ValueError, "is for `fit`", {"rewind": FineTune(epochs=1), "train": untrained}),
        (ValueError, "finds no weights to prune", {"prune": PruneWeights(exclude=lambda layer: True)}),
        (ValueError, "fraction of 'dense.*' must be", {"prune": PruneWeights(lambda layer: 2.0)}),
    ],
    ids=["step", "epoch", "stop", "train", "at-end", "budget", "function", "nothing", "fraction"],
)
def test_what_does_not_fit_is_refused_before_training(error, match, changed):
    asked = {"train": 2, "stop": Stop(rounds=1), **changed}
    if asked["stop"] == "loss":
        asked["stop"] = Stop(max_loss_factor=0.9)
    options = IterateOptions(validation=(np.ones((4, 3)), np.ones((4, 4))), metric=total, progress=False)
    with pytest.raises(error, match=match):
        iterate(network(), (np.ones((4, 3)), np.ones((4, 4))), options=options, **asked)


def test_a_schedule_that_ends_at_zero_is_not_gone_on_with():
    model = network()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 2)), "mse")
    data = np.ones((4, 3)), np.ones((4, 4))
    options = IterateOptions(validation=data, metric=total, progress=False)
    with pytest.raises(ValueError, match="ends at 0, at which nothing is trained"):
        iterate(model, data, train=2, stop=Stop(rounds=1), rewind=FineTune(), options=options)


def test_a_function_may_not_move_pruned_weights_nor_compile():
    def move(model, told):
        model.layers[0].kernel.assign(INITIAL)

    with pytest.raises(ValueError, match=r"moved pruned weights: .*kernel': 2"):
        iterate(network(), None, train=move, stop=Stop(rounds=1), options=QUIET)

    def compile_anew(model, told):
        model.compile("sgd", "mse")

    with pytest.raises(ValueError, match="compiled the model anew"):
        iterate(network(), None, train=compile_anew, stop=Stop(rounds=1), options=QUIET)


def test_a_ticket_prints_no_arrays():
    ticket = tfprune.Ticket({"a": np.array([True, False])}, {"a": np.arange(2.0), "b": np.zeros(3)}, {"seed": 1})
    assert repr(ticket) == "Ticket(0.5 of 1 masks, 2 weights, {'seed': 1})"
