import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain, randomize

import tfprune
from tfprune import Ranking
from tfprune.criteria import ChannelCriterion, GroupNorm, geometric_median_distance, l1_norm, l2_norm
from tfprune.granularity import Channel
from tfprune.graph import channel_groups
from tfprune.parts.channels import view_of
from tfprune.parts.ranking import as_ranking

L = keras.layers
INF = np.inf


def groups_of(*scores):
    """Groups whose channels have one weight each, made by Dense layers side by side."""
    inputs = keras.Input((1,))
    made = [L.Dense(len(each), use_bias=False, name=f"layer{index}")(inputs) for index, each in enumerate(scores)]
    model = keras.Model(inputs, [L.Dense(1)(tensor) for tensor in made])
    for index, each in enumerate(scores):
        model.get_layer(f"layer{index}").kernel.assign([each])
    groups = {group.name: group for group in channel_groups(model).free}
    return [groups[f"layer{index}"] for index in range(len(scores))]


class TestNormalizations:
    SCORES = np.array([1.0, 4.0, INF, -INF, 3.0])

    @pytest.mark.parametrize(
        ("normalize", "expected"),
        [
            ("mean", [3 / 8, 12 / 8, INF, -INF, 9 / 8]),
            ("max", [1 / 4, 1.0, INF, -INF, 3 / 4]),
            ("lamp", [1 / 26, 1.0, INF, -INF, 9 / 25]),  # 1 / (1 + 9 + 16), 16 / 16, 9 / (9 + 16)
            ("none", SCORES),
        ],
    )
    def test_by_hand(self, normalize, expected):
        found = Ranking(normalize=normalize).normalized(self.SCORES)
        np.testing.assert_allclose(found, expected, rtol=1e-15)

    def test_equal_scores_stay_equal(self):
        assert Ranking(normalize="lamp").normalized(np.array([2.0, 1.0, 2.0, 2.0])).tolist() == [
            *(1 / 3, 1 / 13, 1 / 3, 1 / 3),
        ]

    @given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.sampled_from(["mean", "max", "lamp", "none"]))
    def test_the_order_within_a_group_never_changes(self, scores, normalize):
        scores = np.array(scores, float)
        found = Ranking(normalize=normalize).normalized(scores)
        for one in range(len(scores)):
            for other in range(len(scores)):
                assert (scores[one] <= scores[other]) == (found[one] <= found[other])

    @given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
    def test_lamp_is_its_definition(self, scores):
        expected = [s**2 / sum(v**2 for v in scores if v >= s) if s else 0.0 for s in scores]
        found = Ranking(normalize="lamp").normalized(np.array(scores, float))
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    @pytest.mark.parametrize("size", [1e-200, 1e200])
    def test_lamp_of_very_small_and_large_scores(self, size):
        found = Ranking(normalize="lamp").normalized(np.array([3.0, 4.0]) * size)
        np.testing.assert_allclose(found, [9 / 25, 1.0])

    @pytest.mark.parametrize("normalize", ["mean", "max", "lamp", "none"])
    def test_nothing_to_compare_with(self, normalize):
        for scores in ([INF, -INF], [0.0, 0.0]):
            assert Ranking(normalize=normalize).normalized(np.array(scores)).tolist() == scores

    def test_lamp_refuses_negative_scores(self):
        with pytest.raises(ValueError, match=r"lamp.*must not be negative"):
            Ranking(normalize="lamp").normalized(np.array([1.0, -1.0]))


class TestChoice:
    FIRST, SECOND = (4.0, 1.0, 3.0, 2.0), (10.0, 20.0, 50.0, 80.0)

    @pytest.mark.parametrize(
        ("ranking", "gone"),
        [
            (Ranking("local"), ([1], [0])),
            (Ranking("global"), ([1], [0, 1])),  # 0.25, 0.4, 0.5 of the means
            (Ranking("global", normalize="none"), ([1, 2, 3], [])),  # 1, 2, 3
            (Ranking("global", normalize="max"), ([1], [0, 1])),  # 1/8, 1/4, 1/4: the later first
            # LAMP: first 16/16, 1/30, 9/25, 4/29; second 1/94, 4/93, 25/89, 1
            (Ranking("global", normalize="lamp"), ([1], [0, 1])),
        ],
    )
    def test_three_of_eight_by_hand(self, ranking, gone):
        kept = ranking.choose(groups_of(self.FIRST, self.SECOND), [(l2_norm, 3 / 8)])
        assert tuple(np.flatnonzero(~keep).tolist() for keep in kept) == gone

    def test_the_granularity_holds_in_every_group(self):
        groups = groups_of(range(1, 21), range(1, 13))
        for ranking in ("local", "global"):
            kept = as_ranking(ranking).choose(groups, [(l2_norm, 0.5)], Channel(min_channels=3, round_to=4))
            widths = [int(keep.sum()) for keep in kept]
            assert widths == {"local": [12, 8], "global": [12, 8]}[ranking]
            assert [keep[-width:].all() for keep, width in zip(kept, widths, strict=True)] == [True, True]

    @pytest.mark.parametrize(
        ("granularity", "gone"),
        [
            # By norm 0 and 1 go; of 3, 10, 11, 12, 30, 31, 32 those in the middle: 12 at a sum of 69, then 11 at 70.
            (Channel(), [0, 1, 4, 5]),
            (Channel(min_channels=6), [0, 1, 5]),
            (Channel(round_to=7), [0, 1]),
            (Channel(min_channels=8), [0]),  # not even the first stage is left whole
            (Channel(min_channels=9), []),
        ],
    )
    def test_rounding_takes_from_the_last_stage_first(self, granularity, gone):
        (group,) = groups_of((1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 30.0, 31.0, 32.0))
        shares = [(l2_norm, 0.25), (geometric_median_distance, 0.25)]
        (kept,) = Ranking().choose([group], shares, granularity)
        assert np.flatnonzero(~kept).tolist() == gone

    def test_the_floor_holds_in_every_group(self):
        for floor, widths in ((None, [1, 4]), (0.5, [2, 4]), (0.3, [2, 4])):  # 0.3 of 4 is 1.2, and 2 stay
            kept = Ranking("global", normalize="none", floor=floor).choose(
                groups_of(self.FIRST, self.SECOND), [(l2_norm, 3 / 8)]
            )
            assert [int(keep.sum()) for keep in kept] == widths

    def test_another_criterion_chooses_within_a_group(self):
        def opposite(weights, axis):
            return -l2_norm(weights, axis)

        for granularity, gone in ((Channel(), [0, 2, 3]), (Channel(min_channels=2), [0, 2])):
            ranking = Ranking("global", normalize="none", within=opposite)
            kept = ranking.choose(groups_of(self.FIRST, self.SECOND), [(l2_norm, 3 / 8)], granularity)
            assert [np.flatnonzero(~keep).tolist() for keep in kept] == [gone, []]

    def test_no_shares_keep_everything(self):
        (kept,) = Ranking("global").choose(groups_of((1.0, 2.0)), [])
        assert kept.all()


class TestReduce:
    def model(self):
        """Two kernels of one weight for each channel, joined by an addition."""
        inputs = keras.Input((1,))
        made = [L.Dense(2, use_bias=False, name=name)(inputs) for name in "ab"]
        model = keras.Model(inputs, L.Dense(1)(L.Add()(made)))
        model.get_layer("a").kernel.assign([[1.0, 2.0]])
        model.get_layer("b").kernel.assign([[5.0, 3.0]])
        return model

    @pytest.mark.parametrize(
        ("reduce", "expected"),
        [("mean", [3.0, 2.5]), ("sum", [6.0, 5.0]), ("max", [5.0, 3.0]), ("product", [5.0, 6.0])],
    )
    def test_by_hand(self, reduce, expected):
        group = channel_groups(self.model()).free[0]
        assert Ranking(reduce=reduce).scores(group, l1_norm).tolist() == expected
        small = tfprune.prune_channels(self.model(), 0.5, criterion=l1_norm, ranking=Ranking(reduce=reduce))
        assert small.get_layer("a").kernel.numpy().tolist() == [[1.0 if expected[0] > expected[1] else 2.0]]

    def test_one_score_per_channel_cannot_be_reduced(self):
        group = channel_groups(self.model()).free[0]
        with pytest.raises(ValueError, match=r"GroupNorm gives one score per channel.*'max'"):
            Ranking(reduce="max").scores(group, GroupNorm())

    def test_scores_of_another_shape_are_refused(self):
        class Wrong(ChannelCriterion):
            def score(self, view):
                return np.ones(view.size + 1)

        group = channel_groups(self.model()).free[0]
        with pytest.raises(ValueError, match=r"Wrong must return one score for each of the 2 channels.*\(3,\)"):
            Ranking().scores(group, Wrong())

        class Scalars(ChannelCriterion):
            def score(self, view):
                return [(member, 1.0) for member in view.with_role("producer")]

        with pytest.raises(ValueError, match=r"Scalars must .* of the 2 positions of 'kernel', .*producer.*\(\)"):
            Ranking().scores(group, Scalars())
        with pytest.raises(ValueError, match=r"one score for each of the 2 channels on axis 1.*\(1, 2\)"):
            Ranking().scores(group, lambda weights, axis: weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scope": "layers"}, r"scope must be one of \('local', 'global', 'structure'\). Received: 'layers'"),
        ({"reduce": "median"}, r"reduce must be one of \('mean', 'sum', 'max', 'product'\)"),
        ({"normalize": "l2"}, r"normalize must be one of \('mean', 'max', 'lamp', 'none'\)"),
        ({"scope": "global", "cost": "latency"}, r"cost must be one of \('macs', 'parameters'\)"),
        ({"cost": "macs"}, r"cost='macs' compares the channels of all groups.*Received: scope='local'"),
        ({"floor": 1.5}, r"floor is the fraction of a group that stays, in \[0, 1\]. Received: 1.5"),
    ],
)
def test_rankings_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ranking(**arguments)


def test_a_view_shows_what_was_asked_for_by_role():
    model = randomize(chain((4, 6)))
    group = channel_groups(model).free[0]
    among = np.array([True, False, False, True])
    view = view_of(group, among, statistics={"activations": np.arange(8.0).reshape(4, 2)})
    assert (view.name, view.size) == ("first", 2)
    found = {(member.name, member.role, member.effect): member for member in view.members}
    assert set(found) == {
        ("kernel", "producer", None),
        ("gamma", "affine", "scale"),
        ("beta", "affine", "shift"),
        ("moving_mean", "statistics", "shift"),
        ("moving_variance", "statistics", None),
        ("kernel", "consumer", None),
    }
    first, second = (model.get_layer(name).kernel.numpy() for name in ("first", "second"))
    assert np.array_equal(found["kernel", "producer", None].weights, first[..., [0, 3]])
    assert np.array_equal(found["kernel", "consumer", None].weights, second[:, :, [0, 3]])
    assert found["kernel", "consumer", None].rows.shape == (2, 9 * 6)
    assert np.array_equal(found["gamma", "affine", "scale"].weights, model.get_layer("first_bn").gamma.numpy()[[0, 3]])
    assert all(member.channels.tolist() == [0, 1] for member in view.members)
    assert view.statistics["activations"].tolist() == [[0.0, 1.0], [6.0, 7.0]]
