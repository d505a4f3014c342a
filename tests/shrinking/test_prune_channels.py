import keras
import numpy as np
import pytest
from networks import chain, compiled, images, outputs, randomize, residual, same, weights_of

import tfprune
from tfprune import Budget
from tfprune.criteria import geometric_median_distance, l1_norm
from tfprune.granularity import Channel

L = keras.layers
FIRST, SECOND = (4.0, 1.0, 3.0, 2.0), (10.0, 20.0, 50.0, 80.0)
"""Scores of the two hidden layers of `two_layers`: means 2.5 and 40."""


def two_layers(first=FIRST, second=SECOND, bias=True):
    """One number in, two hidden layers whose filters have these norms, one number out."""
    model = keras.Sequential(
        [
            keras.Input((1,)),
            L.Dense(len(first), use_bias=bias, name="first"),
            L.Dense(len(second), use_bias=bias, name="second"),
            L.Dense(1, use_bias=bias, name="end"),
        ]
    )
    model.get_layer("first").kernel.assign([first])
    kernel = np.zeros((len(first), len(second)))
    kernel[0] = second  # every filter of the second layer has one weight
    model.get_layer("second").kernel.assign(kernel)
    model.get_layer("end").kernel.assign(np.arange(1.0, len(second) + 1)[:, None])
    return model


def state(model):
    """Everything of a model that pruning could touch by mistake."""
    optimizer = [variable.numpy().copy() for variable in model.optimizer.variables] if model.compiled else []
    names = [(weight.path, weight.trainable) for weight in model.weights]
    calls = [(layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]
    return weights_of(model) + optimizer, names, calls, model.compiled, id(model.optimizer) if model.compiled else None


def assert_unchanged(before, model):
    after = state(model)
    assert same(before[0], after[0])
    assert before[1:] == after[1:]


def trained():
    """A model that was compiled and fitted, so that its optimizer holds momentum."""
    model = compiled(randomize(residual()), keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    x, y = images(8)
    model.fit(x, y, batch_size=4, verbose=0)
    return model


def survivors(small, name):
    """The norms of the filters that stayed in `two_layers`, by which they are known."""
    return np.abs(small.get_layer(name).kernel.numpy()).sum(axis=0).tolist()


class TestRankings:
    def test_local_takes_the_same_share_of_every_group(self):
        small = tfprune.prune_channels(two_layers(), 0.5)
        assert survivors(small, "first") == [4.0, 3.0]
        assert survivors(small, "second") == [50.0, 80.0]
        assert small.get_layer("end").kernel.numpy().tolist() == [[3.0], [4.0]]

    def test_local_by_hand_computes_what_is_left(self):
        # 1 -> (4, 3); the second layer reads only the 4: (50 * 4, 80 * 4); 3 * 200 + 4 * 320 = 1880
        small = tfprune.prune_channels(two_layers(), 0.5)
        assert small(np.ones((1, 1))).numpy().tolist() == [[1880.0]]

    def test_global_ranks_relative_to_the_mean_of_a_group(self):
        # first: 1.6, 0.4, 1.2, 0.8; second: 0.25, 0.5, 1.25, 2.0. Three of eight go: 0.25, 0.4, 0.5.
        small = tfprune.prune_channels(two_layers(), 3 / 8, ranking="global")
        assert survivors(small, "first") == [4.0, 3.0, 2.0]
        assert survivors(small, "second") == [50.0, 80.0]

    def test_global_leaves_the_last_channel_of_a_group(self):
        # second: 0.04, 0.04, 0.04, 3.88 and first: 1, 1, 1, 1. Seven of eight would leave the first layer empty.
        small = tfprune.prune_channels(two_layers((1.0,) * 4, (1.0, 1.0, 1.0, 97.0)), 7 / 8, ranking="global")
        assert (survivors(small, "first"), survivors(small, "second")) == ([1.0], [97.0])

    def test_structure_ranks_groups_of_the_same_layers_together(self):
        """Three Dense pairs in a row and a layer of another width: only equals are compared."""
        inputs = keras.Input((1,))
        x = L.Dense(4, name="a", use_bias=False)(inputs)
        x = L.Dense(4, name="b", use_bias=False)(x)
        x = L.Dense(2, name="other", use_bias=False)(x)
        model = keras.Model(inputs, L.Dense(1, use_bias=False)(x))
        scores = {"a": (1.0, 1.0, 1.0, 1.0), "b": (0.1, 0.1, 0.1, 9.7), "other": (0.2, 0.1)}
        for name, values in scores.items():
            kernel = np.zeros(model.get_layer(name).kernel.shape)
            kernel[0] = values
            model.get_layer(name).kernel.assign(kernel)

        def widths(ranking, ratio):
            small = tfprune.prune_channels(model, ratio, ranking=ranking)
            return [small.get_layer(name).units for name in scores]

        # Pools of 8 and 2: three and none go; all three from "b", whose relative scores are 0.04 against 1.
        assert widths("structure", 3 / 8) == [4, 1, 2]
        assert widths("local", 3 / 8) == [3, 3, 2]
        assert widths("structure", 1 / 2) == [3, 1, 1]
        # One pool of 10: the 3 of "b" go first, then 0.67 of "other", then "a" from the last.
        assert widths("global", 4 / 10) == [4, 1, 1]
        assert widths("global", 5 / 10) == [3, 1, 1]

    def test_zero_channels_go_first_in_every_ranking(self):
        for ranking in ("local", "global", "structure"):
            model = two_layers((0.0, 5.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0))
            small = tfprune.prune_channels(model, 0.25, ranking=ranking)
            assert 0.0 not in survivors(small, "first"), ranking


@pytest.mark.filterwarnings("ignore:At a ratio")
class TestCounts:
    @pytest.mark.parametrize(("ratio", "width"), [(0.0, 10), (0.09, 10), (0.1, 9), (0.29, 8), (0.3, 7), (0.99, 1)])
    def test_the_product_is_rounded_down(self, ratio, width):
        model = randomize(chain((10, 10)))
        small = tfprune.prune_channels(model, ratio)
        assert [small.get_layer(name).filters for name in ("first", "second")] == [width, width]

    @pytest.mark.parametrize(
        ("options", "ratio", "widths"),
        [
            ({"round_to": 8}, 0.4, (24, 16)),  # 20 stay, rounded up to 24; 12 stay, to 16
            ({"round_to": 8}, 0.75, (8, 8)),  # 8 and 5
            ({"round_to": 8}, 0.1, (32, 20)),  # 29 to 32; 18 to 24, which is more than there are
            ({"min_channels": 9}, 0.9, (9, 9)),
            ({"min_channels": 9, "round_to": 8}, 0.9, (16, 16)),
            ({"min_channels": 64}, 0.9, (32, 20)),
        ],
    )
    @pytest.mark.parametrize("ranking", ["local", "structure"])
    def test_granularity(self, options, ratio, widths, ranking):
        model = randomize(chain((32, 20)))
        small = tfprune.prune_channels(model, ratio, granularity=Channel(**options), ranking=ranking)
        assert tuple(small.get_layer(name).filters for name in ("first", "second")) == widths

    def test_outputs_stay(self):
        for ranking in ("local", "global", "structure"):
            small = tfprune.prune_channels(randomize(residual()), 0.99, ranking=ranking)
            assert small.output_shape == (None, 3)
            assert small.get_layer("stem").filters >= 1

    @pytest.mark.parametrize(("read", "kept"), [("apart", 4), ("together", 5)])
    def test_a_part_of_a_split_keeps_a_channel(self, read, kept):
        """The channels of the first half are the least important; the half may not vanish."""
        inputs = keras.Input((2,))
        halves = keras.ops.split(L.Dense(8, name="wide")(inputs), 2, axis=-1)
        parts = [L.Dense(3, name=f"reader_{each}")(half) for each, half in enumerate(halves)]
        if read == "together":
            parts = [L.ReLU()(halves[0]), halves[1]]
        model = randomize(keras.Model(inputs, L.Dense(1)(L.Concatenate()(parts))))
        model.get_layer("wide").kernel.assign(np.array([[0.1] * 4 + [1.0] * 4] * 2))
        small = tfprune.prune_channels(model, 0.5, exclude=lambda layer: layer.name != "wide")
        kernel = small.get_layer("wide").kernel.numpy()
        np.testing.assert_allclose(kernel, [[0.1] + [1.0] * (kept - 1)] * 2)


class TestCriteria:
    KERNEL = ((0.0, 1.0, 5.0, 6.0, 10.0), (0.1, 0.0, 0.0, 0.0, 0.0))

    def model(self):
        model = keras.Sequential([keras.Input((2,)), L.Dense(5, name="hidden"), L.Dense(1, name="end")])
        model.get_layer("hidden").kernel.assign(self.KERNEL)
        return model

    def test_fpgm_takes_the_middle(self):
        small = tfprune.prune_channels(self.model(), 0.2, criterion=geometric_median_distance)
        assert small.get_layer("hidden").kernel.numpy()[0].tolist() == [0.0, 1.0, 6.0, 10.0]

    def test_l1_takes_the_smallest(self):
        small = tfprune.prune_channels(self.model(), 0.4, criterion=l1_norm)
        assert small.get_layer("hidden").kernel.numpy()[0].tolist() == [5.0, 6.0, 10.0]

    def test_l1_and_l2_disagree(self):
        # L1 norms 6, 5; L2 norms 3.46.., 5
        kernel = np.array([[2.0, 5.0], [2.0, 0.0], [2.0, 0.0]])
        model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="hidden"), L.Dense(1)])
        model.get_layer("hidden").kernel.assign(kernel)
        by_l1 = tfprune.prune_channels(model, 0.5, criterion=l1_norm).get_layer("hidden").kernel.numpy()
        by_l2 = tfprune.prune_channels(model, 0.5).get_layer("hidden").kernel.numpy()
        assert (by_l1[0, 0], by_l2[0, 0]) == (2.0, 5.0)

    def test_your_own_criterion(self):
        def position(weights, axis):
            return np.arange(weights.shape[axis], 0, -1.0)

        small = tfprune.prune_channels(self.model(), 0.6, criterion=position)
        assert small.get_layer("hidden").kernel.numpy()[0].tolist() == [0.0, 1.0]

    def test_a_residual_sum_is_scored_by_the_mean_of_its_kernels(self):
        model = randomize(residual(width=3))
        for name, norms in {"stem": (3.0, 1.0, 2.0), "branch": (1.0, 2.0, 4.0)}.items():
            kernel = np.zeros(model.get_layer(name).kernel.shape)
            kernel[0, 0, 0] = norms  # means 2, 1.5, 3
            model.get_layer(name).kernel.assign(kernel)
        small = tfprune.prune_channels(model, 0.34, exclude=[model.get_layer("head")])
        assert small.get_layer("stem").kernel.numpy()[0, 0, 0].tolist() == [3.0, 2.0]
        assert small.get_layer("branch").kernel.numpy()[0, 0, 0].tolist() == [1.0, 4.0]


class TestExclude:
    def test_by_object_and_by_predicate(self):
        model = randomize(chain((8, 8)))
        by_object = tfprune.prune_channels(model, 0.5, exclude=[model.get_layer("first")])
        by_predicate = tfprune.prune_channels(model, 0.5, exclude=lambda layer: layer.name == "first")
        for small in (by_object, by_predicate):
            assert [small.get_layer(name).filters for name in ("first", "second")] == [8, 4]
        assert same(weights_of(by_object), weights_of(by_predicate))

    def test_of_one_tied_layer_keeps_all(self):
        model = randomize(residual(width=6, last=6))
        small = tfprune.prune_channels(model, 0.5, exclude=[model.get_layer("branch")])
        assert [small.get_layer(name).filters for name in ("stem", "branch", "head")] == [6, 6, 3]

    def test_of_everything_says_that_nothing_is_left(self):
        with pytest.raises(ValueError, match=r"No channel of 'residual' can be removed(.|\n)*'stem' is excluded"):
            tfprune.prune_channels(residual(), 0.5, exclude=lambda layer: True)


def sizes(model):
    found = tfprune.profile(model)
    return {"parameters": found.parameters, "macs": found.macs, "weight_bytes": 4 * found.parameters}


@pytest.mark.filterwarnings("ignore:At a ratio")
class TestBudgets:
    @pytest.mark.sampled(1)
    @pytest.mark.parametrize(
        ("kind", "ranking", "fraction"),
        [
            ("parameters", "local", 0.3),
            ("parameters", "global", 0.75),
            ("macs", "local", 0.75),
            ("macs", "global", 0.3),
            ("weight_bytes", "structure", 0.5),
        ],
    )
    def test_is_met_and_one_step_less_would_not(self, kind, ranking, fraction):
        model = randomize(two_layers((1.0,) * 7, (1.0,) * 5))
        limit = fraction * sizes(model)[kind]
        small = tfprune.prune_channels(model, budget=Budget(**{kind: fraction}), ranking=ranking)
        absolute = tfprune.prune_channels(model, budget=Budget(**{kind: limit}), ranking=ranking)
        assert same(weights_of(small), weights_of(absolute))
        # Every ratio at which anything changes, tried one by one: the largest of them that fits is not larger.
        steps = sorted({count / size for size in (7, 5, 12) for count in range(size)})
        tried = [sizes(tfprune.prune_channels(model, ratio, ranking=ranking))[kind] for ratio in steps]
        assert max(size for size in tried if size <= limit) <= sizes(small)[kind] <= limit
        # And no group can take one channel more.
        widths = tfprune.Widths.of(small)
        for name, width in tfprune.Widths.of(model).items():
            if widths[name] < width:
                wider = tfprune.Widths({**widths, name: widths[name] + 1})
                assert sizes(tfprune.prune_channels(model, wider))[kind] > limit

    def test_by_hand(self):
        # Filters (f, s): parameters are 1 * f + f * s + s. Of 24, f = s = 4: 3 gives 15, 2 gives 8, 1 gives 3.
        model = two_layers(bias=False)
        assert sizes(model) == {"parameters": 24, "macs": 24, "weight_bytes": 96}
        # One channel each, then they come back: of ties the one that is higher above its group's mean comes first.
        # (1, 2) 5, (2, 2) 8, (3, 2) 11, (3, 3) 15, (4, 3) 19, (4, 4) 24; where the next does not fit, the other may.
        for budget, widths in [
            (Budget(parameters=15), (3, 3)),
            (Budget(parameters=14.9), (4, 2)),  # 14
            (Budget(macs=8), (2, 2)),
            (Budget(macs=0.3), (1, 3)),  # 7 of 7.2
            (Budget(weight_bytes=60), (3, 3)),
            (Budget(weight_bytes=59), (4, 2)),
            (Budget(parameters=20, macs=9), (2, 2)),
            (Budget(parameters=5, macs=9), (1, 2)),
            (Budget(parameters=3), (1, 1)),
        ]:
            small = tfprune.prune_channels(model, budget=budget)
            assert tuple(small.get_layer(name).units for name in ("first", "second")) == widths, budget

    def test_that_is_a_fraction_is_not_missed_by_rounding(self):
        # 0.29 of 100 is 28.999999999999996, and 29 are asked for; each hidden channel costs one and one.
        layers = [L.Dense(100, use_bias=False, name="hidden"), L.Dense(1, use_bias=False)]
        model = keras.Sequential([keras.Input((1,)), *layers])
        small = tfprune.prune_channels(model, budget=Budget(macs=0.29))
        assert small.get_layer("hidden").units == 29

    def test_that_is_met_already_prunes_nothing(self):
        # As wide as that, the smallest ratio that is tried when searching, 1/1024, would remove a channel.
        model = keras.Sequential([keras.Input((1,)), L.Dense(1100), L.Dense(1)])
        small = tfprune.prune_channels(model, budget=Budget(parameters=model.count_params()))
        assert same(weights_of(model), weights_of(small))
        assert small is not model

    def test_that_cannot_be_met_says_how_far_it_can_go(self):
        with pytest.raises(ValueError, match=r"cannot be met. The smallest .*'parameters': '3 of 24'"):
            tfprune.prune_channels(two_layers(bias=False), budget=Budget(parameters=2))
        with pytest.raises(ValueError, match=r"'macs': '8 of 24', 'weight_bytes': '32 of 96'.*min_channels"):
            tfprune.prune_channels(
                two_layers(bias=False), budget=Budget(macs=0.1, weight_bytes=50), granularity=Channel(min_channels=2)
            )

    @pytest.mark.parametrize(
        "limits", [{}, {"macs": 0}, {"macs": -0.5}, {"macs": 0.5, "parameters": 0}, {"weight_bytes": float("nan")}]
    )
    def test_without_a_limit_above_zero_is_refused(self, limits):
        with pytest.raises(ValueError, match="at least one limit above 0"):
            Budget(**limits)


class TestBadInput:
    @pytest.mark.parametrize("ratio", [-0.01, 1.0, 1.5, float("nan")])
    def test_ratio_outside(self, ratio):
        with pytest.raises(ValueError, match=r"in \[0, 1\). Received: " + str(ratio)):
            tfprune.prune_channels(chain(), ratio)

    @pytest.mark.parametrize("given", [{}, {"ratio": 0.5, "budget": Budget(macs=0.5)}])
    def test_both_or_neither(self, given):
        with pytest.raises(ValueError, match="either ratio or budget"):
            tfprune.prune_channels(chain(), **given)

    def test_unknown_ranking(self):
        with pytest.raises(ValueError, match=r"'local', 'global' or 'structure'\. Received: 'Local'"):
            tfprune.prune_channels(chain(), 0.5, ranking="Local")

    def test_nan_weights(self):
        model = chain()
        kernel = model.get_layer("first").kernel
        kernel.assign(np.full(kernel.shape, np.nan))
        with pytest.raises(ValueError, match="scores are NaN"):
            tfprune.prune_channels(model, 0.5)

    def test_a_foreign_layer_in_exclude(self):
        with pytest.raises(ValueError, match="not in the model"):
            tfprune.prune_channels(chain(), 0.5, exclude=[L.Dense(2)])


@pytest.mark.filterwarnings("ignore:The smaller model is not exactly")
class TestTheModelItself:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        "options",
        [
            {"ratio": 0.5},
            {"ratio": 0.0},
            {"ratio": 0.5, "ranking": "global"},
            {"ratio": 0.5, "ranking": "structure", "criterion": geometric_median_distance},
            {"ratio": 0.5, "granularity": Channel(round_to=2)},
            {"ratio": 0.5, "exclude": lambda layer: layer.name == "stem"},
            {"budget": Budget(macs=0.5)},
        ],
    )
    def test_is_bit_identical_afterwards(self, options):
        model = trained()
        before = state(model)
        small = tfprune.prune_channels(model, **options)
        assert_unchanged(before, model)
        assert not {id(weight) for weight in model.weights} & {id(weight) for weight in small.weights}
        assert small.compiled
        assert small.optimizer is not model.optimizer

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ratio": 2.0}, "ratio is the fraction"),
            ({"budget": Budget(macs=1)}, "cannot be met"),
            ({"ratio": 0.5, "exclude": lambda layer: True}, "No channel"),
            ({}, "either ratio or budget"),
        ],
    )
    def test_is_bit_identical_after_an_error(self, options, message):
        model = trained()
        before = state(model)
        with pytest.raises(ValueError, match=message):
            tfprune.prune_channels(model, **options)
        assert_unchanged(before, model)

    def test_trains_on_as_if_nothing_had_happened(self):
        x, y = images(8)
        models = [trained(), trained()]
        tfprune.prune_channels(models[0], 0.5)
        for model in models:
            keras.utils.set_random_seed(1)
            model.fit(x, y, batch_size=4, verbose=0)
        assert same(weights_of(models[0]), weights_of(models[1]))


def test_a_ratio_of_zero_is_a_copy():
    model = trained()
    small = tfprune.prune_channels(model, 0.0)
    assert same(weights_of(model), weights_of(small))
    x, _ = images(4)
    assert same(outputs(model, x), outputs(small, x))


def test_pruning_equals_masking_and_shrinking():
    """Independent of keep: zero by hand what goes, and let `shrink` find it."""
    model = randomize(chain((8, 6)))
    small = tfprune.prune_channels(model, 0.5)
    masked = keras.models.clone_model(model)
    masked.set_weights(model.get_weights())
    for name, carrier in (("first", "first_bn"), ("second", None)):
        kernel = model.get_layer(name).kernel.numpy()
        norms = np.sqrt((kernel.astype("float64") ** 2).reshape(-1, kernel.shape[-1]).sum(axis=0))
        gone = np.argsort(norms)[: len(norms) // 2]
        for layer in (name, carrier):
            for variable in masked.get_layer(layer).trainable_variables if layer else ():
                value = variable.numpy()
                value[..., gone] = 0.0
                variable.assign(value)
    expected = tfprune.shrink(masked)
    assert same(weights_of(expected), weights_of(small))


@pytest.mark.parametrize("function", [tfprune.prune_channels, tfprune.choose_widths])
def test_the_former_name_of_the_budget_still_works_and_says_the_new_one(function):
    model, budget = randomize(two_layers(bias=False)), Budget(parameters=15)
    with pytest.warns(DeprecationWarning, match=rf"{function.__name__}\(budget=\.\.\.\)") as said:
        found = function(model, target=budget)
    assert said[0].filename == __file__
    new = function(model, budget=budget)
    assert found == new if isinstance(new, tfprune.Widths) else same(weights_of(found), weights_of(new))
    with pytest.raises(TypeError, match=r"got target= and budget=, which are one argument"):
        function(model, target=budget, budget=budget)
