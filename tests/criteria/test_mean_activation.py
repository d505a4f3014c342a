"""DropNet's choice of nodes and filters, by the definition: what each carries, ranked, and the exact number removed."""

import keras
import numpy as np
import pytest
from networks import randomize

import tfprune
from tfprune.criteria import MeanActivation, Random
from tfprune.statistics import gather

L = keras.layers
HIDDEN = {"first": 4, "second": 5, "dense": 6}  # nodes and filters; the last layer is never pruned
X = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
EVERYWHERE = tfprune.Ranking("global", normalize="none")


def network(activation="tanh"):
    """Two convolutions, two Dense layers; tanh, so that means over positions are smaller than those of |x|."""
    return randomize(
        keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                L.Conv2D(HIDDEN["first"], 3, activation=activation, name="first"),
                L.Conv2D(HIDDEN["second"], 3, activation=activation, name="second"),
                L.Flatten(),
                L.Dense(HIDDEN["dense"], activation=activation, name="dense"),
                L.Dense(3, name="classes"),
            ]
        )
    )


@pytest.fixture(scope="module")
def model():
    return network()


def run(model, stay=None):
    """The outputs of a model, with a factor of 0 or 1 behind each activation, and what each layer carries."""
    x, carried = X, {}
    for layer in model.layers:
        x = layer(x)
        if layer.name in HIDDEN:
            means = np.asarray(x, np.float64).mean(axis=tuple(range(1, x.ndim - 1)))
            carried[layer.name] = np.abs(means).mean(axis=0)
            x = x if stay is None else x * stay[layer.name].astype("float32")
    return np.asarray(x), carried


def expected(sizes, ratio, scope, sign):
    """Which stay, by sorting: of equal ones the later goes."""
    pools = [[name] for name in sizes] if scope == "local" else [list(sizes)]
    stay = {name: np.ones(len(each), bool) for name, each in sizes.items()}
    for pool in pools:
        ranked = sorted(
            (sign * sizes[name][i], -order, -i, name)
            for order, name in enumerate(pool)
            for i in range(len(sizes[name]))
        )
        for _, _, place, name in ranked[: int(len(ranked) * ratio + 1e-9)]:
            stay[name][-place] = False
    return stay


def found_in(model):
    """Statistics and no samples, so that no weight is refitted."""
    return gather(model, X, MeanActivation.needs)


@pytest.fixture(scope="module")
def found(model):
    return found_in(model)


def assert_removed(model, small, stay):
    for name, kept in stay.items():
        np.testing.assert_array_equal(small.get_layer(name).bias.numpy(), model.get_layer(name).bias.numpy()[kept])
    np.testing.assert_allclose(small(X), run(model, stay)[0], atol=1e-5)


@pytest.mark.parametrize("drop", ["smallest", "largest"])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_what_goes_is_what_the_paper_says(model, found, scope, drop):
    ranking, sign = EVERYWHERE if scope == "global" else "local", 1 if drop == "smallest" else -1
    small = tfprune.prune_channels(model, 0.3, criterion=MeanActivation(drop), data=found, ranking=ranking)
    stay = expected(run(model)[1], 0.3, scope, sign)
    assert sum(int((~each).sum()) for each in stay.values()) == (4 if scope == "global" else 1 + 1 + 1)
    assert_removed(model, small, stay)


def test_the_next_round_takes_its_part_of_what_is_left(model, found):
    left = tfprune.prune_channels(model, 0.3, criterion=MeanActivation(), data=found, ranking=EVERYWHERE)
    stay = expected(run(left)[1], 0.3, "global", 1)
    assert sum(int((~each).sum()) for each in stay.values()) == 3  # of 11
    small = tfprune.prune_channels(left, 0.3, criterion=MeanActivation(), data=found_in(left), ranking=EVERYWHERE)
    assert_removed(left, small, stay)


def test_the_last_of_a_layer_stays_and_others_go_in_its_place():
    model = network()
    layer = model.get_layer("dense")
    layer.set_weights([weight / 1000 for weight in layer.get_weights()])  # all six carry less than any filter
    sizes, ratio = run(model)[1], 6 / 15
    assert not expected(sizes, ratio, "global", 1)["dense"].any()
    small = tfprune.prune_channels(model, ratio, criterion=MeanActivation(), data=found_in(model), ranking=EVERYWHERE)
    stay = {name: np.ones(len(each), bool) for name, each in sizes.items()}
    stay["dense"][:] = np.arange(6) == np.argmax(sizes["dense"])
    others = [(size, name, place) for name in ("first", "second") for place, size in enumerate(sizes[name])]
    _, name, place = min(others)
    stay[name][place] = False
    assert_removed(model, small, stay)


def test_of_equal_nodes_the_later_go():
    model = network("relu")
    layer = model.get_layer("dense")
    kernel, _ = layer.get_weights()
    layer.set_weights([np.repeat(kernel[:, :1], 6, axis=1), np.ones(6)])
    model.get_layer("classes").kernel.assign(np.arange(18.0).reshape(6, 3))
    half = {layer: 0.5}
    small = tfprune.prune_channels(model, half, criterion=MeanActivation(), data=found_in(model))
    assert small.get_layer("classes").kernel.numpy()[:, 0].tolist() == [0.0, 3.0, 6.0]


def test_the_random_control_takes_as_many_and_others(model):
    biases = []
    for seed in (0, 1):
        small = tfprune.prune_channels(model, 0.3, criterion=Random(seed), ranking=EVERYWHERE)
        widths = [small.get_layer(name).bias.shape[0] for name in HIDDEN]
        assert sum(widths) == sum(HIDDEN.values()) - 4
        biases.append(np.concatenate([small.get_layer(name).bias for name in HIDDEN]).tolist())
    assert biases[0] != biases[1]


def test_only_two_orders_are_known():
    with pytest.raises(ValueError, match="drop must be"):
        MeanActivation("random")
