"""The same architecture with other widths."""

import keras
import numpy as np
import pytest
from networks import chain, compiled, densely_connected, images, preactivation, randomize, residual, same, weights_of

import tfprune
from tfprune import Budget, channel_groups, profile, widen

L = keras.layers


def widths(model):
    return {group.name: group.size for group in channel_groups(model).free}


def test_every_free_group_is_wider_and_the_rest_is_as_before():
    model = residual()
    before = weights_of(model)
    wide = widen(model, 1.5)
    assert widths(wide) == {"stem": 8, "head": 11}
    assert wide.get_layer("branch").filters == wide.get_layer("stem").filters == 8
    assert wide.output_shape == model.output_shape
    assert wide.input_shape == model.input_shape
    assert [layer.name for layer in wide.layers] == [layer.name for layer in model.layers]
    assert type(wide) is type(model)
    assert same(before, weights_of(model))


@pytest.mark.parametrize(
    ("multiplier", "filters"),
    [(1, (4, 6)), (1.0, (4, 6)), (0.5, (2, 3)), (0.51, (3, 4)), (1e-6, (1, 1)), (3, (12, 18))],
)
def test_widths_are_rounded_up(multiplier, filters):
    wide = widen(chain(), multiplier)
    assert (wide.get_layer("first").filters, wide.get_layer("second").filters) == filters
    assert isinstance(wide, keras.Sequential)
    assert wide.get_layer("first_bn").gamma.shape == (filters[0],)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("make", [chain, residual, preactivation, densely_connected])
@pytest.mark.parametrize("multiplier", [0.5, 2])
def test_it_is_the_model_that_would_be_built_by_hand(make, multiplier):
    # All widths of these networks are arguments, and follow each other.
    options = {
        chain: {"filters": (8, 12)},
        residual: {"width": 10, "last": 14},
        preactivation: {"width": 12, "inner": 8},
        densely_connected: {"growth": 6},
    }[make]
    by_hand = make(**options) if multiplier == 2 else make()
    wide = widen(make(), 2) if multiplier == 2 else widen(make(**options), 0.5)
    if make is densely_connected:  # its stem is not an argument
        assert wide.get_layer("grow1").filters == by_hand.get_layer("grow1").filters
    else:
        assert [tuple(w.shape) for w in wide.weights] == [tuple(w.shape) for w in by_hand.weights]


def test_weights_are_new_and_random():
    model = randomize(residual())
    first, second = widen(model, 1), widen(model, 1)
    for name in ("stem", "branch", "head", "classes"):
        kernels = [m.get_layer(name).kernel.numpy() for m in (model, first, second)]
        assert not np.array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[1], kernels[2])
    assert (first.get_layer("stem_bn").gamma.numpy() == 1).all()
    assert (first.get_layer("stem_bn").moving_mean.numpy() == 0).all()


def test_it_trains_with_the_settings_of_the_model(tmp_path):
    wide = widen(compiled(residual(), keras.optimizers.Adam(0.01), jit_compile=False), 2)
    before = weights_of(wide)
    history = wide.fit(*images(16), batch_size=8, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert not same(before, weights_of(wide))
    assert float(wide.optimizer.learning_rate) == pytest.approx(0.01)
    wide.save(tmp_path / "wide.keras")
    assert keras.models.load_model(tmp_path / "wide.keras").count_params() == wide.count_params()


def test_morphnet_shrinks_then_widens():
    model = randomize(residual())
    small = tfprune.prune_channels(model, 0.4)
    wide = widen(small, budget=Budget(macs=float(profile(model).macs)))
    assert profile(small).macs < profile(wide).macs <= profile(model).macs


def test_grouped_and_depthwise_convolutions_keep_their_groups():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(8, 1, name="expand"),
            L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
            L.BatchNormalization(name="bn"),
            L.Conv2D(6, 3, groups=2, name="grouped"),
            L.Conv2D(4, 1, name="last"),
            L.Flatten(),
            L.Dense(5),
        ]
    )
    wide = widen(model, 1.3)
    assert wide.get_layer("grouped").groups == 2
    assert wide.get_layer("grouped").filters == 8
    made = wide.get_layer("expand").filters
    assert made == 12  # tied in fours by the depth multiplier and the groups
    assert wide.get_layer("bn").gamma.shape == (2 * made,)
    assert wide.layers[-1].kernel.shape == (4 * 4 * wide.get_layer("last").filters, 5)


def test_parts_of_a_split_keep_their_proportions():
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(8, 3, name="conv")(inputs)
    x = L.Concatenate()([L.Conv2D(3, 1, name="left")(x[..., :2]), L.Conv2D(3, 1, name="right")(x[..., 2:])])
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    assert [widen(model, 2).get_layer(name).kernel.shape[2] for name in ("left", "right")] == [4, 12]
    assert [widen(model, 0.5).get_layer(name).kernel.shape[2] for name in ("left", "right")] == [1, 3]
    assert [widen(model, 0.01).get_layer(name).kernel.shape[2] for name in ("left", "right")] == [1, 1]


def test_attention_normalization_and_recurrence():
    inputs = keras.Input((6, 4))
    x = L.Dense(8, name="in")(inputs)
    x = L.Add()([x, L.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = L.RMSNormalization(epsilon=1e-3, name="rms")(x)
    x = L.GroupNormalization(2, name="groups")(L.Dense(8, name="grouped")(x))
    x = L.Bidirectional(L.LSTM(3, name="lstm"))(x)
    model = keras.Model(inputs, L.Dense(2)(x))
    wide = widen(model, 1.5)
    assert wide.get_layer("attention").num_heads == 3
    assert wide.get_layer("attention").key_dim == 6
    assert wide.get_layer("in").units == 12
    assert wide.get_layer("rms").epsilon == 1e-3
    assert wide.get_layer("groups").groups == 3
    assert wide(np.ones((2, 6, 4), "float32")).shape == (2, 2)


def test_nested_models_and_frozen_groups():
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 3, name="inside"), L.ReLU()], name="inner")
    inputs = keras.Input((8, 8, 2))
    x = L.GlobalAveragePooling2D()(inner(L.Conv2D(4, 3, padding="same", name="outside")(inputs)))
    x = L.LayerNormalization()(L.Dense(5, name="normalized")(x))
    model = keras.Model(inputs, L.Dense(3, name="classes")(x))
    wide = widen(model, 2)
    assert wide.get_layer("inner").get_layer("inside").kernel.shape == (3, 3, 8, 8)
    assert wide.get_layer("normalized").units == 5
    assert wide.get_layer("classes").units == 3


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = L.Dense(4, "relu", name="first"), L.Dense(2)

    def call(self, x):
        return self.second(self.first(x))


def test_a_subclassed_model_comes_back_as_a_functional_one():
    model = Subclassed()
    model.compile("sgd", "mse")
    model(np.ones((1, 3)))
    wide = widen(model, 2)
    assert wide.get_layer("first").units == 8
    assert wide.compiled


def test_adapted_state_is_kept():
    normalization = L.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(0).normal(5, 2, (50, 3)))
    model = keras.Sequential([keras.Input((3,)), normalization, L.Dense(4), L.Dense(2)])
    wide = widen(model, 2)
    x = np.ones((1, 3), "float32")
    np.testing.assert_allclose(wide.get_layer("normalization")(x), normalization(x))


@pytest.mark.slow
def test_mobilenet():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=5)
    wide = widen(model, 1.4)
    assert all(wide.get_layer(g.name).filters == -(-g.size * 7 // 5) for g in channel_groups(model).free)
    assert wide.output_shape == (None, 5)
    smaller = widen(model, budget=Budget(macs=0.5))
    assert 0.47 * profile(model).macs < profile(smaller).macs <= 0.5 * profile(model).macs


@pytest.mark.sampled(3)
@pytest.mark.parametrize("limit", ["parameters", "macs", "weight_bytes"])
@pytest.mark.parametrize("factor", [0.3, 7.5])
def test_budget_is_met_and_the_next_width_would_not_be(limit, factor):
    model = residual(width=8, last=8)
    size = {
        "parameters": profile(model).parameters,
        "macs": profile(model).macs,
        "weight_bytes": 4 * profile(model).parameters,
    }
    allowed = int(size[limit] * factor)
    budget = Budget(**{limit: factor if factor < 1 else allowed})
    wide = widen(model, budget=budget)
    width = wide.get_layer("stem").filters

    def measured(model):
        found = profile(model)
        return {"parameters": found.parameters, "macs": found.macs, "weight_bytes": 4 * found.parameters}[limit]

    assert measured(wide) <= allowed
    assert measured(widen(model, (width + 1) / 8)) > allowed


def test_several_limits_hold_at_once():
    model = residual()
    found = profile(widen(model, budget=Budget(macs=4 * profile(model).macs, parameters=2 * profile(model).parameters)))
    assert found.macs <= 4 * profile(model).macs
    assert profile(model).parameters < found.parameters <= 2 * profile(model).parameters


def test_budget_that_attention_estimates_wrongly_is_met():
    inputs = keras.Input((16, 4))
    x = L.Dense(16)(inputs)
    x = L.MultiHeadAttention(2, 8)(x, x)
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)))
    limit = 3 * profile(model).macs
    assert 0.5 * limit < profile(widen(model, budget=Budget(macs=limit))).macs <= limit


@pytest.mark.parametrize("multiplier", [0, -1, float("nan"), float("inf")])
def test_multipliers_out_of_range(multiplier):
    with pytest.raises(ValueError, match="multiplier must be a number above 0"):
        widen(chain(), multiplier)


@pytest.mark.parametrize("multiplier", ["2", True, [2]])
def test_multipliers_of_another_type(multiplier):
    with pytest.raises(TypeError, match=r"multiplier must be a number or tfprune\.Widths"):
        widen(chain(), multiplier)


def test_models_and_budgets_that_cannot_be():
    with pytest.raises(ValueError, match="cannot be met by narrowing alone"):
        widen(chain(), budget=Budget(parameters=3))
    with pytest.raises(ValueError, match="allows more than 1024 times"):
        widen(chain(), budget=Budget(parameters=1e15))
    with pytest.raises(ValueError, match="no width can change"):
        widen(keras.Sequential([keras.Input((2,)), L.Dense(3)]), 2)
    with pytest.raises(TypeError, match="Expected a Keras 3 model"):
        widen("model", 2)


def test_a_budget_in_the_place_of_the_multiplier_still_works_and_says_its_name():
    with pytest.warns(DeprecationWarning, match=r"widen\(model, budget=Budget\(\.\.\.\)\)"):
        wide = widen(chain(), Budget(parameters=2 * profile(chain()).parameters))
    named = widen(chain(), budget=Budget(parameters=2 * profile(chain()).parameters))
    assert profile(wide).parameters == profile(named).parameters


@pytest.mark.parametrize("given", [{}, {"multiplier": 2, "budget": Budget(macs=0.5)}])
def test_a_multiplier_or_a_budget(given):
    with pytest.raises(ValueError, match="Give either multiplier or budget"):
        widen(chain(), **given)
    with pytest.raises(TypeError, match="budget must be a Budget"):
        widen(chain(), budget=0.5)
