"""Channels by what data says: what is taken where nothing is said, and what is refused; measuring changes nothing."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import chain, images, randomize, residual, same, weights_of

import tfprune
from tfprune import Budget, Ranking, Widths
from tfprune.criteria import ChannelCriterion, GroupFisher, GroupNorm, Taylor, l1_norm, l2_norm
from tfprune.rewriting.kept_positions import kept_positions
from tfprune.statistics import Statistics, gather

L = keras.layers
PER_MAC = Ranking("global", normalize="none", cost="macs")
ALL_OF_THE_HEAD = Statistics(
    1, {}, {"gate_gradient_squared": {"stem": np.full(10, 5.0), "head": np.array([0.01] * 6 + [2.0] * 6)}}
)


@pytest.fixture(scope="module")
def model():
    """A residual network that ends in a softmax."""
    keras.utils.set_random_seed(0)
    tied = randomize(residual(10, 12))
    model = keras.Model(tied.inputs, L.Softmax()(tied.outputs[0]))
    model.compile(keras.optimizers.SGD(momentum=0.9), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def data():
    return images(24)


@pytest.fixture(scope="module")
def statistics(model, data):
    return gather(model, data[0], ["gate_gradient_squared"], temperature=4.0)


def two_layers():
    layers = [keras.Input((2,)), *(L.Dense(n, use_bias=False, name=name) for n, name in ((3, "a"), (2, "b"), (1, "c")))]
    return keras.Sequential(layers)


class TestDefaults:
    def test_information_per_mac_says_how_many_and_which(self, model, data, statistics):
        small = tfprune.prune_channels(model, budget=Budget(macs=0.5), data=data)
        options = {"criterion": GroupFisher(), "data": statistics}
        widths = tfprune.choose_widths(model, budget=Budget(macs=0.5), ranking=PER_MAC, **options)
        assert Widths.of(small) == widths
        assert widths["stem"] / 10 != pytest.approx(widths["head"] / 12, abs=0.1)
        expected = tfprune.prune_channels(model, widths, **options)
        tfprune.reconstruct(expected, model, data[0])
        assert same(weights_of(expected), weights_of(small))
        # Widths that are chosen so give the same model, with the same data.
        assert same(weights_of(tfprune.prune_channels(model, widths, data=data)), weights_of(small))

    def test_a_budget_of_parameters_weighs_by_parameters(self, model, data, statistics):
        budget = Budget(weight_bytes=0.4)
        ranking = dataclasses.replace(PER_MAC, cost="parameters")
        options = {"criterion": GroupFisher(), "data": statistics}
        expected = tfprune.choose_widths(model, budget=budget, ranking=ranking, **options)
        assert tfprune.choose_widths(model, budget=budget, data=data) == expected

    def test_a_ranking_alone_still_goes_by_information(self, model):
        found = tfprune.choose_widths(model, 0.25, data=ALL_OF_THE_HEAD, ranking="global")
        assert found == {"stem": 10, "head": 7}
        assert found != tfprune.choose_widths(model, 0.25, ranking="global")

    def test_without_data_all_is_as_before(self, model):
        explicit = tfprune.prune_channels(model, 0.5, criterion=l2_norm, ranking="local")
        assert same(weights_of(tfprune.prune_channels(model, 0.5)), weights_of(explicit))


class TestData:
    def test_every_form_says_the_same(self, model, data):
        x, y = data
        batches = ((x[part], y[part]) for part in (slice(0, 16), slice(16, None)))  # which can be read only once
        forms = [tf.data.Dataset.from_tensor_slices(x).batch(16), batches]
        assert same(*(weights_of(tfprune.prune_channels(model, 0.5, data=form)) for form in forms))

    def test_measuring_and_choosing_leave_the_model_alone(self, model, data):
        state = [*weights_of(model), *(variable.numpy() for variable in model.optimizer.variables)]
        tfprune.prune_channels(model, 0.5, data=data)
        after = [*weights_of(model), *(variable.numpy() for variable in model.optimizer.variables)]
        assert same(state, after)
        assert not any("call" in vars(layer) for layer in model.layers)

    def test_statistics_of_weights_reach_the_criterion(self, model, data):
        """Taylor's squares by hand, from the gradients."""
        found = gather(model, data, ["gradient"], loss="compiled")
        small = tfprune.choose_widths(model, 0.5, criterion=Taylor("squares"), data=data, ranking="global")
        assert small == tfprune.choose_widths(model, 0.5, criterion=Taylor("squares"), data=found, ranking="global")
        scores = Ranking().scores(tfprune.channel_groups(model).free[1], Taylor("squares"), statistics=found)
        total = np.zeros(12)
        for name, axis in (("head", -1), ("classes", 0)):
            layer = model.get_layer(name)
            for weight in layer.weights if name == "head" else [layer.kernel]:
                product = np.moveaxis((weight.numpy() * found.variables["gradient"][weight.path]) ** 2, axis, -1)
                total += product.reshape(-1, 12).sum(axis=0)
        np.testing.assert_allclose(scores, total, rtol=1e-5)

    @pytest.mark.slow
    def test_two_criteria_of_different_losses(self, model, data, statistics):
        gates = gather(model, data, ["gate_gradient"], loss="compiled")
        ranking = dataclasses.replace(PER_MAC, within=Taylor())
        small = tfprune.prune_channels(model, 0.4, criterion=GroupFisher(4.0), data=data, ranking=ranking)
        widths = tfprune.choose_widths(model, 0.4, criterion=GroupFisher(), data=statistics, ranking=PER_MAC)
        expected = tfprune.prune_channels(model, widths, criterion=Taylor(), data=gates)
        kept, wanted = (kept_positions(each, model).axes["head/kernel"][-1] for each in (small, expected))
        assert kept.tolist() == wanted.tolist()
        assert Widths.of(small) == widths


def test_counts_and_the_choice_within_a_group_come_from_two_criteria():
    model = two_layers()
    model.get_layer("a").kernel.assign([[3.0, 1.0, 2.0]] * 2)
    # By information one of a goes, the cheapest; by its norm it is the second.
    found = Statistics(1, {}, {"gate_gradient_squared": {"a": np.array([1.0, 9.0, 8.0]), "b": np.array([7.0, 7.0])}})
    for within, kept in ((None, [1.0, 2.0]), (l2_norm, [3.0, 2.0])):
        ranking = dataclasses.replace(PER_MAC, within=within)
        small = tfprune.prune_channels(model, 1 / 5, criterion=GroupFisher(), data=found, ranking=ranking)
        assert small.get_layer("a").kernel.numpy()[0].tolist() == kept
        assert small.get_layer("b").units == 2
    for ranking in ("local", "global"):
        kept = tfprune.prune_channels(model, 0.4, criterion=l2_norm, ranking=Ranking(ranking, within=l1_norm))
        assert Widths.of(kept) == tfprune.choose_widths(model, 0.4, criterion=l2_norm, ranking=ranking)


class Needy(ChannelCriterion):
    needs = ("mood",)

    def score(self, view):
        return view.statistics["mood"]


FOREIGN = Statistics(1, {}, {"gate_gradient_squared": {"stem": np.ones(3), "head": np.ones(12)}})
PARTIAL = Statistics(1, {}, {"gate_gradient_squared": {"head": np.ones(12)}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": GroupFisher()}, r"^GroupFisher needs 'gate_gradient_squared', which data says\. Give data="),
        ({"ranking": Ranking(within=GroupFisher())}, "^GroupFisher needs 'gate_gradient_squared'"),
        ({"criterion": Needy(), "data": images(4)[0]}, r"Needy needs the statistics \['mood'\], .*not provided"),
        ({"criterion": GroupFisher(), "data": Statistics(1)}, "GroupFisher needs the statistics"),
        ({"data": FOREIGN}, r"of another model: they have 3 channels of 'stem', and the model has 10"),
        ({"data": PARTIAL}, "GroupFisher cannot score 'stem': there is no 'gate_gradient_squared'"),
        ({"data": FOREIGN, "criterion": l2_norm}, "l2_norm reads weights only, .* data would not be used"),
        ({"data": images(4)[0] * np.nan}, "not finite|NaN"),
        ({"ranking": PER_MAC}, "Scores of l2_norm are not comparable across groups, and per macs"),
        ({"ratio": 0.8, "ranking": PER_MAC, "data": FOREIGN}, r"ratio=0\.8 removes more than the floor .* keeps 0\.25"),
        ({"data": FOREIGN, "rounds": 2}, "Statistics are those of the model as it is, and 2 rounds need"),
        ({"rounds": 0}, "rounds must be a whole number of at least 1"),
        (
            {"ratio": Widths({"stem": 4}), "ranking": PER_MAC, "data": FOREIGN},
            "decides how many channels of each group",
        ),
    ],
)
def test_what_is_refused(model, options, message):
    before = weights_of(model)
    with pytest.raises(ValueError, match=message):
        tfprune.prune_channels(model, **{"ratio": 0.5, **options})
    assert same(before, weights_of(model))


def test_labels_that_are_missing_are_asked_for(model, data):
    with pytest.raises(TypeError, match="needs labels"):
        tfprune.prune_channels(model, 0.5, criterion=Taylor(), data=data[0])


def test_data_that_nothing_would_use_is_refused(model, data):
    with pytest.raises(ValueError, match=r"GroupNorm reads weights only, .* data would not be used\. Leave it out"):
        tfprune.choose_widths(model, 0.5, criterion=GroupNorm(), data=data)
    small = tfprune.prune_channels(model, 0.5, criterion=GroupNorm(), data=data)
    expected = tfprune.prune_channels(model, 0.5, criterion=GroupNorm())
    tfprune.reconstruct(expected, model, data[0])
    assert same(weights_of(expected), weights_of(small))


def test_no_more_than_a_thousand_samples_are_read():
    model = randomize(chain((8, 6)))
    read = []

    def batches():
        while True:
            read.append(1)
            yield images(256)[0]

    tfprune.prune_channels(model, 0.5, data=batches())
    assert len(read) == 4
