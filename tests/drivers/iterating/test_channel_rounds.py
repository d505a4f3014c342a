"""Rounds that remove channels: exact widths, the slices that come back, and tickets that `shrink` makes smaller."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune import FineTune, InitialWeights, IterateOptions, PruneChannels, Rewind, Stop, Ticket, iterate

L = keras.layers
QUIET = IterateOptions(progress=False)


def network():
    """Ten channels of rising norm."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(10, 3, use_bias=False, name="conv"),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="classes"),
        ]
    )
    model.layers[0].kernel.assign(model.layers[0].kernel * np.arange(1.0, 11.0))
    model.compile(keras.optimizers.SGD(0.5, momentum=0.5), "mse")
    return model


class Recorder:
    """Moves every weight by a step of a constant gradient, and keeps what each training begins with."""

    def __init__(self):
        self.seen = []

    def __call__(self, model, told):
        optimizer = {"_".join(each.name.split("_")[-3:]): each.numpy() for each in model.optimizer.variables}
        self.seen.append((told, [weight.numpy() for weight in model.weights], optimizer))
        gradients = [keras.ops.full(weight.shape, 0.01) for weight in model.trainable_variables]
        model.optimizer.apply(gradients, model.trainable_variables)
        model.layers[1].moving_mean.assign_add(np.ones(model.layers[1].moving_mean.shape))


def rounds(rewind, count=3, **asked):
    train = Recorder()
    asked = {"prune": PruneChannels(), "stop": Stop(rounds=count), "options": QUIET, **asked}
    return iterate(network(), None, train=train, rewind=rewind, **asked), train.seen


def widths(seen):
    return [weights[0].shape[-1] for _, weights, _ in seen]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_comes_back_is_cut():
    found, seen = rounds(Rewind(step=1))
    assert widths(seen[1:]) == [10, 8, 7, 6]  # floor(n / 5) go
    saved, slots = seen[1][1], seen[1][2]
    assert slots["conv_kernel_momentum"].any()
    for number, weights, optimizer in ((2, *seen[2][1:]), (3, *seen[3][1:]), (4, *seen[4][1:])):
        stays = np.arange([2, 3, 4][number - 2], 10)  # the narrowest channels went
        np.testing.assert_array_equal(weights[0], saved[0][..., stays])
        for index in range(1, 4):
            np.testing.assert_array_equal(weights[index], saved[index][stays])
        assert int(optimizer["iteration"]) == 1
        np.testing.assert_array_equal(optimizer["conv_kernel_momentum"], slots["conv_kernel_momentum"][..., stays])
        np.testing.assert_array_equal(optimizer["classes_kernel_momentum"], slots["classes_kernel_momentum"][stays])
    assert [row.left for row in found.report.rounds] == [10, 8, 7, 6]
    assert found.model.layers[0].filters == 6


def test_what_is_trained_on_is_cut_too():
    _, seen = rounds(FineTune(), count=1)
    (_, dense, _), (_, small, optimizer) = seen
    np.testing.assert_allclose(small[0], dense[0][..., 2:] - 0.5 * 0.01, rtol=1e-6)
    np.testing.assert_allclose(optimizer["conv_kernel_momentum"], np.full(small[0].shape, -0.005), rtol=1e-6)
    np.testing.assert_array_equal(optimizer["classes_bias_momentum"], np.full(3, -0.005, "float32"))
    assert int(optimizer["iteration"]) == 1


def test_a_ticket_shrinks_to_what_a_round_begins_with(tmp_path):
    found, seen = rounds(InitialWeights(), count=2)
    ticket = Ticket.load(found.ticket.save(tmp_path / "ticket.npz"))
    model = network()
    ticket.apply(model)
    small = tfprune.shrink(model)
    assert small.layers[0].filters == 7
    assert_equal([weight.numpy() for weight in small.weights], seen[-1][1])
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2))
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-6)


def test_rounds_end_within_a_budget():
    found, _ = rounds(InitialWeights(), stop=Stop(budget=tfprune.Budget(parameters=0.75)))
    # 3 x 3 x 2 x n, 4 x n of BatchNormalization, 3 x n and 3: 25 n + 3; of 253 at most 189.75.
    assert [row.parameters for row in found.report.rounds] == [253, 203, 178]
    assert "within Budget" in found.report.stopped


def test_goes_on_where_it_was_cut_off(tmp_path):
    def kept(path, train):
        options = IterateOptions(path=path, progress=False)
        return iterate(
            network(),
            None,
            train=train,
            prune=PruneChannels(),
            stop=Stop(rounds=3),
            rewind=Rewind(step=1),
            options=options,
        )

    class Cut(Recorder):
        def __call__(self, model, told):
            if told.number == 3:
                raise KeyboardInterrupt
            super().__call__(model, told)

    whole = kept(tmp_path / "whole", Recorder())
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "cut", Cut())
    train = Recorder()
    again = kept(tmp_path / "cut", train)
    assert [told.number for told, *_ in train.seen] == [3]
    assert again.report == whole.report
    assert_equal(again.model.get_weights(), whole.model.get_weights())
    assert not (tmp_path / "cut" / "round-1.keras").exists()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="A sparsity is of single weights"):
        rounds(InitialWeights(), stop=Stop(sparsity=0.5))
    with pytest.raises(ValueError, match=r"No channel of .* can be removed"):
        rounds(InitialWeights(), prune=PruneChannels(exclude=lambda layer: True))
