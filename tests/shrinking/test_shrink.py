import keras
import numpy as np
import pytest
from networks import (
    chain,
    compiled,
    dense,
    images,
    kill,
    outputs,
    randomize,
    relative_difference,
    residual,
    same,
    weights_of,
)

import tfprune

L = keras.layers


def assert_same_outputs(model, small, tolerance=1e-5):
    x = np.random.default_rng(3).normal(size=(4, *model.input_shape[1:])).astype("float32")
    assert relative_difference(outputs(model, x), outputs(small, x)) < tolerance


def test_a_dense_net_by_hand():
    model = dense((3, 1))
    hidden, classes = model.layers
    hidden.set_weights([np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]]), np.array([5.0, 0.0, 6.0])])
    classes.set_weights([np.array([[7.0], [8.0], [9.0]]), np.array([10.0])])
    small = tfprune.shrink(model)
    assert [weight.tolist() for weight in weights_of(small)] == [
        [[1.0, 2.0], [3.0, 4.0]],
        [5.0, 6.0],
        [[7.0], [9.0]],
        [10.0],
    ]
    # relu([1, 1] @ kernel + bias) = [9, 12]; 9 * 7 + 12 * 9 + 10 = 181
    assert outputs(small, np.ones((1, 2), "float32"))[0].tolist() == [[181.0]]


@pytest.mark.parametrize("positions", [[0], [4], [1, 3], [0, 1, 2, 3]])
def test_tied_layers_shrink_together(positions):
    model = randomize(residual())
    for name in ("stem", "branch"):
        kill(model.get_layer(name), positions, model.get_layer(f"{name}_bn"))
    small = tfprune.shrink(model)
    assert [small.get_layer(name).filters for name in ("stem", "branch", "head")] == [5 - len(positions)] * 2 + [7]
    assert small.get_layer("head").kernel.shape == (1, 1, 5 - len(positions), 7)
    assert_same_outputs(model, small)


def test_a_channel_that_only_some_tied_layers_lose_stays():
    model = randomize(residual())
    kill(model.get_layer("stem"), [0, 1], model.get_layer("stem_bn"))
    kill(model.get_layer("branch"), [1, 2], model.get_layer("branch_bn"))
    small = tfprune.shrink(model)
    assert small.get_layer("stem").filters == small.get_layer("branch").filters == 4
    assert_same_outputs(model, small)


@pytest.mark.parametrize("left", ["gamma", "beta"])
def test_a_constant_that_gamma_or_beta_leaves_is_folded(left):
    model = randomize(chain())
    bn = model.get_layer("first_bn")
    value = getattr(bn, left).numpy()
    kill(model.get_layer("first"), [0, 2], bn)
    getattr(bn, left).assign(np.abs(value))
    bn.moving_mean.assign(-np.abs(bn.moving_mean.numpy()))  # so that ReLU lets the constant pass
    small = tfprune.shrink(model)
    assert small.get_layer("first").filters == 2
    assert_same_outputs(model, small)


def test_nothing_dead_warns_and_copies():
    model = randomize(chain())
    with pytest.warns(UserWarning, match=r"No channel of the model is dead.*FPGM\(0\.4\)"):
        small = tfprune.shrink(model)
    assert same(weights_of(model), weights_of(small))
    assert all(a is not b for a, b in zip(model.weights, small.weights, strict=True))


def test_a_layer_whose_channels_are_all_dead_keeps_one():
    model = randomize(dense())
    kill(model.get_layer("hidden"), [0, 1, 2, 3])
    small = tfprune.shrink(model)
    assert small.get_layer("hidden").units == 1
    assert_same_outputs(model, small)


def test_model_outputs_and_unknown_layers_keep_dead_channels():
    model = randomize(dense())
    kill(model.get_layer("classes"), [0])
    with pytest.warns(UserWarning, match="1 channels have zero kernels, but they are frozen"):
        assert tfprune.shrink(model).get_layer("classes").units == 3


def test_flatten_takes_the_right_rows():
    model = keras.Sequential([keras.Input((3, 2, 1)), L.Conv2D(4, 1, name="conv"), L.Flatten(), L.Dense(2, name="end")])
    kill(randomize(model).get_layer("conv"), [0, 2])
    small = tfprune.shrink(model)
    kernel = model.get_layer("end").kernel.numpy().reshape(3, 2, 4, 2)
    assert np.array_equal(small.get_layer("end").kernel.numpy(), kernel[:, :, [1, 3]].reshape(12, 2))
    assert_same_outputs(model, small)


def test_shrinking_again_is_shrinking_once():
    model = randomize(chain())
    kill(model.get_layer("second"), [1, 5])
    once = tfprune.shrink(model)
    with pytest.warns(UserWarning, match="No channel"):
        twice = tfprune.shrink(once)
    assert same(weights_of(once), weights_of(twice))


def test_names_types_and_data_types_are_kept():
    inputs = keras.Input((4, 4, 1), name="picture", dtype="uint8")
    x = L.Rescaling(1 / 255)(inputs)
    x = L.Conv2D(3, 1, name="conv", dtype="mixed_float16")(x)
    x = L.Conv2D(2, 1, name="end", trainable=False)(x)
    model = randomize(keras.Model(inputs, x, name="mine"))
    kill(model.get_layer("conv"), [1])
    small = tfprune.shrink(model)
    assert (small.name, type(small)) == ("mine", type(model))
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert (small.inputs[0].name, small.inputs[0].dtype) == ("picture", "uint8")
    assert small.get_layer("conv").dtype_policy.name == "mixed_float16"
    assert [layer.trainable for layer in small.layers] == [layer.trainable for layer in model.layers]
    assert type(tfprune.shrink(killed_dense())) is keras.Sequential


def killed_dense(**options):
    model = randomize(dense(**options))
    kill(model.get_layer("hidden"), [1])
    return model


def test_several_named_inputs_and_outputs():
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}
    hidden = L.Dense(3, "relu", name="hidden")
    x = L.Concatenate()([hidden(inputs["a"]), L.Dense(2)(inputs["b"])])
    model = randomize(keras.Model(inputs, {"u": L.Dense(1)(x), "v": L.Dense(2)(x)}))
    kill(hidden, [2])
    small = tfprune.shrink(model)
    data = {"a": np.ones((3, 2), "float32"), "b": np.full((3, 2), 2.0, "float32")}
    assert set(small(data)) == {"u", "v"}
    assert relative_difference(outputs(model, data), outputs(small, data)) < 1e-5
    assert small.get_layer("hidden").units == 2


def nested():
    block_in = keras.Input((4,), name="block_in")
    y = L.Dense(5, "relu", name="wide")(block_in)
    block = keras.Model(block_in, L.Dense(4, name="narrow")(y), name="block")
    inputs = keras.Input((4,))
    return randomize(keras.Model(inputs, L.Dense(1, name="end")(block(block(inputs)))))


def test_a_nested_model_called_twice_stays_one():
    model = nested()
    kill(model.get_layer("block").get_layer("wide"), [0, 3])
    small = tfprune.shrink(model)
    assert small.get_layer("block").get_layer("wide").units == 3
    assert len(small.weights) == len(model.weights)
    assert_same_outputs(model, small)


@pytest.mark.parametrize("kind", ["functional", "sequential", "sequential in sequential", "twice"])
def test_channels_that_enter_a_nested_model_are_removed(kind):
    block_in = keras.Input((None, None, 4), name="block_in")
    layers = [L.Conv2D(4, 1, name="inside"), L.ReLU(name="relu")]
    block = keras.Sequential([block_in, *layers], name="block")
    if kind == "functional":
        block = keras.Model(block_in, layers[1](layers[0](block_in)), name="block")
    inputs, before, after = keras.Input((5, 5, 2)), L.Conv2D(4, 3, name="before"), L.Conv2D(2, 1, name="after")
    if kind == "sequential in sequential":
        model = keras.Sequential([inputs, before, block, after])
    else:
        x = block(before(inputs))
        model = keras.Model(inputs, after(block(x) if kind == "twice" else x))
    randomize(model)
    kill(before, [0, 3])
    if kind == "twice":
        kill(layers[0], [0, 3])
    small = tfprune.shrink(model)
    assert small.get_layer("block").get_layer("inside").kernel.shape[2] == 2
    assert small.get_layer("block").inputs[0].shape == (None, None, None, 2)
    assert [w.path.split("/")[-2:] for w in small.weights] == [w.path.split("/")[-2:] for w in model.weights]
    assert_same_outputs(model, small)


def test_a_shared_layer_stays_one():
    inputs = keras.Input((3,))
    shared, mid = L.Dense(3, "relu", name="shared"), L.Dense(4, name="mid")
    model = randomize(keras.Model(inputs, L.Dense(1)(mid(shared(L.Dense(3)(shared(inputs)))))))
    kill(mid, [1])
    small = tfprune.shrink(model)
    assert len(small.weights) == len(model.weights)
    assert small.get_layer("mid").units == 3
    assert_same_outputs(model, small)


def test_a_layer_shared_with_a_nested_model_stays_one():
    shared, mid = L.Dense(3, "relu", name="shared"), L.Dense(4, name="mid")
    block_in = keras.Input((3,))
    block = keras.Model(block_in, shared(block_in), name="block")
    inputs = keras.Input((3,))
    model = randomize(keras.Model(inputs, L.Dense(1)(mid(block(shared(inputs))))))
    kill(mid, [1])
    small = tfprune.shrink(model)
    assert_same_outputs(model, small)
    assert small.count_params() < model.count_params()
    assert len(small.weights) == len(model.weights)


def own_loss(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2)


class OwnMetric(keras.metrics.MeanAbsoluteError):
    pass


def test_compile_settings_are_kept_with_own_functions_and_classes():
    # Reads the private model._compile_config: own_loss is not registered with Keras, and found by it alone.
    model = killed_dense()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.7),
        own_loss,
        metrics=["mae", OwnMetric(name="own")],
        weighted_metrics=["mse"],
        steps_per_execution=2,
        jit_compile=False,
    )
    assert model._compile_config.config["loss"] is own_loss
    small = tfprune.shrink(model)
    assert small.loss is own_loss
    assert small.optimizer is not model.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert small.steps_per_execution == 2
    assert small.jit_compile is False
    before = weights_of(small)
    history = small.fit(np.ones((4, 2)), np.ones((4, 3)), batch_size=2, verbose=0).history
    assert set(history) == {"loss", "mae", "own", "mse"}
    assert not same(before, weights_of(small))


def test_an_uncompiled_model_gives_an_uncompiled_one():
    assert not tfprune.shrink(killed_dense()).compiled


def test_dropout_state_is_copied_and_the_model_trains():
    model = keras.Sequential([keras.Input((2,)), L.Dense(4, "relu", name="hidden"), L.Dropout(0.5, seed=3), L.Dense(3)])
    kill(randomize(model).get_layer("hidden"), [0])
    small = compiled(tfprune.shrink(model), jit_compile=False)
    x, y = images(8, shape=(2,), classes=2)
    assert np.isfinite(small.train_on_batch(x, y)[0])
    states = [layer.seed_generator.state.numpy().tolist() for layer in (model.layers[1], small.layers[1])]
    assert states[0][0] == states[1][0] == 3


def test_a_shrunken_model_is_saved_and_loaded(tmp_path):
    model = randomize(residual())
    kill(model.get_layer("head"), [1, 2])
    small = tfprune.shrink(model)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    x, _ = images(4)
    assert same(outputs(small, x), outputs(loaded, x))
    assert loaded.get_layer("head").filters == 5


class OwnTrainStep(keras.Model):
    def train_step(self, *args):
        return super().train_step(*args)


def test_a_functional_subclass_stays_one():
    inputs = keras.Input((2,))
    x = L.Dense(4, "relu", name="hidden")(inputs)
    model = randomize(OwnTrainStep(inputs, L.Dense(1)(x)))
    kill(model.get_layer("hidden"), [1])
    small = tfprune.shrink(model)
    assert type(small) is type(model)
    assert_same_outputs(model, small)


class OwnCall(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x) * self.dense.bias


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("model.keras", TypeError, "Expected a Keras 3 model"),
        (keras.Sequential([L.Dense(1)]), ValueError, "is not built"),
        (type("Model", (), {"__module__": "tf_keras.src"})(), TypeError, "comes from tf_keras"),
    ],
)
def test_what_cannot_be_read_is_refused(model, error, message):
    with pytest.raises(error, match=message):
        tfprune.shrink(model)


def test_a_model_with_its_own_call_is_refused_and_unchanged():
    model = OwnCall()
    model(np.ones((1, 3)))
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"computes in its own call\(\).*uses the variable"):
        tfprune.shrink(model)
    assert same(before, weights_of(model))


@pytest.mark.parametrize("make", [lambda: L.Dense(4, name="a"), lambda: L.Conv2D(4, 1, name="a")])
def test_a_lora_layer_is_left_alone(make):
    layer = make()
    model = randomize(keras.Sequential([keras.Input((2, 2, 3)), layer, L.Conv2D(3, 1, name="b"), L.Conv2D(1, 1)]))
    layer.enable_lora(2)
    kill(model.get_layer("b"), [1])
    small = tfprune.shrink(model)
    assert small.get_layer("b").filters == 2
    assert_same_outputs(model, small)
