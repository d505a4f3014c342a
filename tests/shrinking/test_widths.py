"""Widths as values, and ratios for each group by hand."""

import json

import keras
import numpy as np
import pytest
from networks import chain, randomize, residual, same, weights_of

import tfprune
from tfprune import Budget, Widths, channel_groups, choose_widths, profile, prune_channels, widen
from tfprune.granularity import Channel

L = keras.layers


def filters(model, *names):
    return tuple(model.get_layer(name).filters for name in names or ("first", "second"))


class TestValue:
    def test_of_a_model(self):
        widths = Widths.of(chain((8, 6)))
        assert widths == {"first": 8, "second": 6}
        assert Widths.of(chain((8, 6)), exclude=lambda layer: layer.name == "first") == {"second": 6}

    def test_json_and_back(self, tmp_path):
        widths = Widths.of(chain((8, 6)))
        assert Widths(json.loads(json.dumps(widths.to_dict()))) == widths
        assert Widths(json.loads(widths.save(tmp_path / "widths.json").read_text())) == widths

    def test_is_printed_and_read_only(self):
        widths = Widths({"first": 8, "second": 1024})
        assert repr(widths) == "Widths({'first': 8, 'second': 1024})"
        assert "first" in str(widths)
        assert "1,024" in str(widths)
        with pytest.raises(TypeError):
            widths["first"] = 3
        widths.to_dict()["first"] = 3
        assert widths["first"] == 8
        assert {widths, Widths({"second": 1024, "first": 8})} == {widths}

    def test_ratio_and_sizes(self):
        model = chain((8, 6))
        widths = Widths({"first": 4, "second": 3})
        assert widths.ratio(model) == 0.5
        small = prune_channels(model, widths)
        assert widths.count(model) == {
            "parameters": small.count_params(),
            "macs": profile(small).macs,
            "weight_bytes": 4 * small.count_params(),
        }
        wide = Widths({"first": 16})
        assert wide.ratio(model) == pytest.approx(1 - 22 / 14)
        assert wide.count(model)["macs"] == profile(widen(model, wide)).macs

    def test_groups_of_the_same_name_are_told_apart(self):
        inner = [
            keras.Sequential([keras.Input((4,)), L.Dense(size, name="dense"), L.Dense(4, name="end")])
            for size in (5, 6)
        ]
        inputs = keras.Input((4,))
        model = keras.Model(inputs, L.Dense(2)(inner[1](inner[0](inputs))))
        widths = Widths.of(model)
        assert (widths["dense"], widths["dense#2"]) == (5, 6)
        small = prune_channels(randomize(model), Widths({"dense#2": 2}))
        assert (Widths.of(small)["dense"], Widths.of(small)["dense#2"]) == (5, 2)

    @pytest.mark.parametrize(
        ("channels", "error", "message"),
        [
            ({"first": 0}, ValueError, "at least 1"),
            ({"first": 2.5}, TypeError, "whole number"),
            ({"first": True}, TypeError, "whole number"),
            ({1: 2}, TypeError, "names of channel groups"),
            ([8], TypeError, "names of channel groups"),
        ],
    )
    def test_what_is_none(self, channels, error, message):
        with pytest.raises(error, match=message):
            Widths(channels)


class TestModelsOfWidths:
    def test_pruning_keeps_the_best(self):
        model = randomize(chain((8, 6)))
        assert same(
            weights_of(prune_channels(model, Widths({"first": 4, "second": 3}))), weights_of(prune_channels(model, 0.5))
        )
        assert filters(prune_channels(model, Widths({"second": 2}))) == (8, 2)

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        "options",
        [
            {"ratio": 0.4},
            {"ratio": 0.4, "ranking": "global"},
            {"ratio": 0.5, "granularity": Channel(round_to=4)},
            {"budget": Budget(macs=0.4)},
            {"budget": Budget(parameters=0.5), "exclude": lambda layer: layer.name == "first"},
        ],
    )
    def test_chosen_ones_make_the_same_model(self, options):
        model = randomize(chain((12, 9)))
        widths = choose_widths(model, **options)
        assert same(weights_of(prune_channels(model, widths)), weights_of(prune_channels(model, **options)))
        assert Widths.of(prune_channels(model, **options), options.get("exclude")) == widths

    def test_widening(self):
        wide = widen(chain((8, 6)), Widths({"first": 10, "second": 3}))
        assert filters(wide) == (10, 3)
        assert Widths.of(wide) == {"first": 10, "second": 3}

    def test_pruned_and_widened_are_as_wide(self):
        model = randomize(residual())
        widths = choose_widths(model, budget=Budget(macs=0.5))
        assert Widths.of(widen(model, widths)) == Widths.of(prune_channels(model, widths)) == widths

    @pytest.mark.parametrize("make", [prune_channels, widen])
    def test_names_that_are_none_of_the_model(self, make):
        with pytest.raises(ValueError, match=r"no channel group 'third'; it has \['first', 'second', .*Widths\.of"):
            make(chain((8, 6)), Widths({"third": 2}))
        with pytest.raises(ValueError, match=r"must keep its 5 channels: model output"):
            make(keras.Sequential([keras.Input((2,)), L.Dense(4), L.Dense(5, name="end")]), Widths({"end": 2}))

    def test_pruning_cannot_widen(self):
        with pytest.raises(ValueError, match=r"cannot make 'first' wider: it has 8 .* asks for 9.*widen can"):
            prune_channels(chain((8, 6)), Widths({"first": 9}))

    def test_excluded_groups_stay(self):
        model = chain((8, 6))
        with pytest.raises(ValueError, match="must keep its 8 channels: 'first' is excluded"):
            prune_channels(model, Widths({"first": 4}), exclude=[model.get_layer("first")])
        assert filters(prune_channels(model, Widths.of(model), exclude=[model.get_layer("first")])) == (8, 6)


class TestRatiosByHand:
    def test_by_group_and_by_layer(self):
        model = randomize(chain((8, 6)))
        first, second = channel_groups(model).free
        assert filters(prune_channels(model, {first: 0.5, second: 0.34})) == (4, 4)
        assert filters(prune_channels(model, {second: 0.5})) == (8, 3)
        assert filters(prune_channels(model, {model.get_layer("first"): 0.25})) == (6, 6)
        assert filters(prune_channels(model, {model.get_layer("first_bn"): 0.25})) == (6, 6)
        assert filters(prune_channels(model, {})) == (8, 6)
        by_hand, alike = prune_channels(model, {first: 0.5, second: 0.5}), prune_channels(model, 0.5)
        assert same(weights_of(by_hand), weights_of(alike))

    def test_by_a_function_of_the_group(self):
        model = randomize(chain((8, 6)))
        assert filters(prune_channels(model, lambda group: 0.5 if group.name == "second" else 0.25)) == (6, 3)
        assert choose_widths(model, lambda group: 2 / group.size) == {"first": 6, "second": 4}

    def test_granularity_holds(self):
        model = randomize(chain((32, 20)))
        small = prune_channels(model, {model.get_layer("first"): 0.6}, granularity=Channel(round_to=8))
        assert filters(small) == (16, 20)

    def test_tied_layers_must_agree(self):
        model = randomize(residual(width=6))
        stem, branch = model.get_layer("stem"), model.get_layer("branch")
        assert filters(prune_channels(model, {stem: 0.5, branch: 0.5}), "stem", "branch") == (3, 3)
        with pytest.raises(ValueError, match=r"'stem' and 'branch' belong to .*'stem'.* ratios are 0\.5 and 0\.25"):
            prune_channels(model, {stem: 0.5, branch: 0.25})
        with pytest.raises(ValueError, match=r"'stem' and 'stem' belong to"):
            prune_channels(model, {stem: 0.5, channel_groups(model).free[0]: 0.25})

    @pytest.mark.parametrize("ratio", [1.0, -0.1, "half", None])
    def test_ratios_out_of_range(self, ratio):
        model = chain((8, 6))
        with pytest.raises(ValueError, match=r"The ratio for 'first' is .*in \[0, 1\)"):
            prune_channels(model, {model.get_layer("first"): ratio})
        with pytest.raises(ValueError, match=r"The ratio for 'first' is .*in \[0, 1\)"):
            prune_channels(model, lambda group: ratio)

    def test_foreign_and_frozen_keys(self):
        model, other = chain((8, 6)), chain((8, 6))
        with pytest.raises(ValueError, match="makes no channels of"):
            prune_channels(model, {other.get_layer("first"): 0.5})
        with pytest.raises(ValueError, match="is not one of"):
            prune_channels(model, {channel_groups(other).free[0]: 0.5})
        with pytest.raises(ValueError, match="'first' is excluded"):
            prune_channels(model, {model.get_layer("first"): 0.5}, exclude=[model.get_layer("first")])
        frozen = next(group for group in channel_groups(model) if group.frozen)
        with pytest.raises(ValueError, match=r"model output.*Leave it out of ratio"):
            prune_channels(model, {frozen: 0.5})
        with pytest.raises(ValueError, match="its channels are frozen: model output"):
            prune_channels(model, {frozen.producers[0].layer: 0.5})
        with pytest.raises(TypeError, match=r"the key 'first'.*get_layer"):
            prune_channels(model, {"first": 0.5})

    def test_what_contradicts_itself(self):
        model = chain((8, 6))
        with pytest.raises(ValueError, match="ranking='global' decides"):
            prune_channels(model, {}, ranking="global")
        with pytest.raises(ValueError, match="ranking='structure' decides"):
            prune_channels(model, Widths({}), ranking="structure")
        with pytest.raises(ValueError, match="Leave out granularity"):
            prune_channels(model, Widths({}), granularity=Channel(round_to=8))
        with pytest.raises(ValueError, match="either ratio or budget"):
            prune_channels(model, {}, budget=Budget(macs=0.5))


def test_a_model_is_not_changed_by_counting():
    model = randomize(residual())
    before = weights_of(model)
    Widths.of(model).count(model)
    choose_widths(model, budget=Budget(macs=0.5))
    assert same(before, weights_of(model))
    assert np.isfinite(tfprune.profile(model).macs)
