"""What every criterion of channels that reads data promises. A new one adds one row to ROWS and inherits all of it."""

from collections.abc import Mapping

import keras
import numpy as np
import pytest
from networks import randomize

from tfprune import criteria
from tfprune.callbacks import FilterPruning
from tfprune.criteria import ChannelCriterion
from tfprune.graph import channel_groups
from tfprune.parts.channels import view_of
from tfprune.statistics import Statistics, gather

L = keras.layers
ROWS: Mapping[str, ChannelCriterion] = {
    "APoZ": criteria.APoZ(),
    "Fluctuation": criteria.Fluctuation(),
    "GroupFisher": criteria.GroupFisher(),
    "LabelFreeHessian": criteria.LabelFreeHessian(),
    "MeanActivation": criteria.MeanActivation(),
    "SecondOrderStructuredPruning": criteria.SecondOrderStructuredPruning(),
    "Taylor": criteria.Taylor(),
    "Taylor-sum": criteria.Taylor("sum"),
    "Taylor-squares": criteria.Taylor("squares"),
}
CHANNELS = 5
ORDER = np.array([3, 0, 4, 1, 2])
EXPORTED = [getattr(criteria, name) for name in criteria.__all__]


def network() -> keras.Model:
    """Two convolutions whose channels an addition ties, read by a third and through Flatten."""
    inputs = keras.Input((5, 5, 2))
    first = L.ReLU()(L.BatchNormalization()(L.Conv2D(CHANNELS, 3, name="first")(inputs)))
    second = L.Conv2D(CHANNELS, 3, padding="same", activation="tanh", name="second")(first)
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.Flatten()(L.Add()([first, second]))))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return randomize(model)


def permute(model: keras.Model) -> None:
    """Give the channels other places, in all that makes, carries and reads them."""
    for member in channel_groups(model).free[0].members:
        value = np.moveaxis(member.variable.numpy(), member.axis, 0)
        new = value.copy()
        for channel in range(CHANNELS):
            new[member.positions[member.channels == channel]] = value[
                member.positions[member.channels == ORDER[channel]]
            ]
        member.variable.assign(np.moveaxis(new, 0, member.axis))


def scores(model: keras.Model, found: Statistics, criterion: ChannelCriterion, among: np.ndarray | None = None):
    """What a criterion makes of a group; of several scores of a channel the sum."""
    (group,) = channel_groups(model).free
    view = view_of(group, among, found.of_group(group.name), found.of_variable)
    made = criterion.score(view)
    return view.total(made) if isinstance(made, list) else made


@pytest.fixture(scope="module")
def gathered():
    """The network and its permuted twin, each with all statistics of the same data."""
    random = np.random.default_rng(0)
    data = random.normal(size=(6, 5, 5, 2)).astype("float32"), random.integers(0, 3, 6)
    model, twin = network(), network()
    permute(twin)
    needed = {name for row in ROWS.values() for name in row.needs}
    return [(each, gather(each, data, needed, loss="compiled", batch_size=4)) for each in (model, twin)]


def test_every_criterion_that_reads_data_has_a_row():
    classes = {each for each in EXPORTED if isinstance(each, type) and issubclass(each, ChannelCriterion)}
    reading = {each for each in classes if each is criteria.Taylor or each.needs}
    assert {type(row) for row in ROWS.values()} == reading


@pytest.mark.parametrize("name", ROWS)
def test_gives_one_finite_score_per_channel(name, gathered):
    found = scores(*gathered[0], ROWS[name])
    assert found.shape == (CHANNELS,)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert len(set(found.tolist())) > 1


@pytest.mark.parametrize("name", ROWS)
def test_channels_that_change_places_take_their_scores_along(name, gathered):
    found, permuted = (scores(*each, ROWS[name]) for each in gathered)
    np.testing.assert_allclose(permuted, found[ORDER], rtol=2e-3, atol=1e-4 * found.max())


@pytest.mark.parametrize("name", ROWS)
def test_sees_only_the_channels_that_are_asked_for(name, gathered):
    among = np.array([True, False, True, True, False])
    np.testing.assert_allclose(scores(*gathered[0], ROWS[name], among), scores(*gathered[0], ROWS[name])[among])


@pytest.mark.parametrize("name", ROWS)
def test_is_refused_where_there_is_no_data(name):
    criterion = ROWS[name]
    with pytest.raises(ValueError, match=rf"needs the statistics .*'{sorted(criterion.needs)[0]}'.*data="):
        FilterPruning(0.5, criterion)
