"""GroupLasso over residual branches: the formula, blocks that die and are removed, and those that must stay."""

import keras
import numpy as np
import pytest
from networks import compiled, images, outputs, outputs_without_tfprune, randomize, relative_difference

import tfprune
from tfprune.callbacks import GroupLasso

L = keras.layers
RATE, STRENGTH = 0.1, 0.2
SHORT = {"samples": 8, "run_eagerly": True}  # where one step tells as much as many: eager steps trace nothing


def linear_blocks(scales):
    """x + (x A) B for each scale, without biases: 48 weights in a branch."""
    inputs = x = keras.Input((4,))
    for index, _ in enumerate(scales):
        y = L.Dense(6, use_bias=False, name=f"a{index}")(x)
        x = L.Add()([x, L.Dense(4, use_bias=False, name=f"b{index}")(y)])
    model = randomize(keras.Model(inputs, x))
    for index, scale in enumerate(scales):
        for name in "ab":
            kernel = model.get_layer(f"{name}{index}").kernel
            kernel.assign(kernel.numpy() * scale)
    model.compile(keras.optimizers.SGD(RATE), "mse", run_eagerly=True)
    return model


def kernels(model):
    return [[model.get_layer(f"{name}{index}").kernel.numpy() for name in "ab"] for index in range(3)]


def norms(model):
    return np.array([np.sqrt(sum((kernel**2).sum() for kernel in pair)) for pair in kernels(model)])


def resnet(blocks=3):
    """Residual blocks with BatchNormalization; the second of them narrows the image and has a projection."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.ReLU()(L.BatchNormalization(momentum=0.9)(L.Conv2D(6, 3, padding="same", use_bias=False)(inputs)))
    for index in range(blocks):
        strides = 2 if index == 1 else 1
        y = L.Conv2D(6, 3, strides, padding="same", use_bias=False, name=f"first{index}")(x)
        y = L.ReLU()(L.BatchNormalization(momentum=0.9)(y))
        y = L.Conv2D(6, 3, padding="same", use_bias=False, name=f"second{index}")(y)
        y = L.BatchNormalization(momentum=0.9)(y)
        shortcut = x if strides == 1 else L.Conv2D(6, 1, strides, name="projection")(x)
        x = L.ReLU()(L.Add(name=f"add{index}")([shortcut, y]))
    return keras.Model(inputs, L.Dense(3, name="classes")(L.GlobalAveragePooling2D()(x)), name="resnet")


def trained(callback, scales, epochs=2, samples=32, **options):
    """A resnet whose branches start at these scales, after a fit."""
    keras.utils.set_random_seed(0)
    model = resnet(len(scales))
    for index, scale in enumerate(scales):
        for variable in branch_weights(model, index):
            variable.assign(variable.numpy() * scale)
    compiled(model, keras.optimizers.SGD(0.05), **{"jit_compile": False, **options})
    return model, model.fit(*images(samples), batch_size=8, epochs=epochs, verbose=0, callbacks=[callback]).history


def branch_weights(model, index):
    names = [layer.name for layer in model.layers]
    start, end = names.index(f"first{index}"), names.index(f"second{index}")
    found = [*model.layers[start:end], model.layers[end], model.layers[end + 1]]
    return [v for layer in found if layer.name != "projection" for v in layer.trainable_variables]


def left(model):
    return [layer.name for layer in model.layers if layer.name.startswith(("first", "second", "add"))]


def assert_shrinks_exactly(model, tmp_path=None):
    small, (x, _) = tfprune.shrink(model), images(8, seed=5)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5
    if tmp_path is not None:
        small.save(tmp_path / "small.keras")
        found = outputs_without_tfprune(tmp_path, ["small"], x)["small"]
        assert relative_difference(outputs(small, x), found) < 1e-5
    return small


@pytest.mark.sampled(1)
@pytest.mark.parametrize("weighting", [True, False])
def test_the_penalty_and_a_proximal_step_are_the_formula(weighting):
    model = linear_blocks([1.0, 0.5, 0.005])
    before, length = kernels(model), norms(model)
    step = RATE * STRENGTH * (np.sqrt(48) if weighting else 1)
    factors = np.maximum(0, 1 - step / length)
    assert (factors > 0).tolist() == [True, True, False]
    callback = GroupLasso(STRENGTH, parts="depth", size_weighting=weighting)
    # Zeros in, zeros out: there is no gradient.
    history = model.fit(np.zeros((2, 4)), np.zeros((2, 4)), verbose=0, callbacks=[callback]).history
    for pair, old, factor in zip(kernels(model), before, factors, strict=True):
        for kernel, start in zip(pair, old, strict=True):
            np.testing.assert_allclose(kernel, start * factor, rtol=1e-5)
    penalty = step / RATE * (length * factors).sum()
    assert history["regularization_loss"] == pytest.approx([penalty], rel=1e-5)
    assert history["channels_below_threshold"] == [1]


def test_a_subgradient_step_is_the_formula():
    model = linear_blocks([1.0, 0.5, 0.1])
    before, length = kernels(model), norms(model)
    callback = GroupLasso(STRENGTH, parts="depth", update="subgradient", size_weighting=False)
    model.fit(np.zeros((2, 4)), np.zeros((2, 4)), verbose=0, callbacks=[callback])
    for pair, old, norm in zip(kernels(model), before, length, strict=True):
        for kernel, start in zip(pair, old, strict=True):
            np.testing.assert_allclose(kernel, start * (1 - RATE * STRENGTH / norm), rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"jit_compile": True, "steps_per_execution": 4}, marks=pytest.mark.slow)], ids=str
)
def test_weak_blocks_die_in_the_step_and_shrink_removes_them(options, tmp_path):
    model, history = trained(GroupLasso(0.05, parts="depth"), [1.0, 1.0, 0.05], **options)
    assert history["channels_below_threshold"][-1] == 1
    assert all(not variable.numpy().any() for variable in branch_weights(model, 2))
    small = assert_shrinks_exactly(model, tmp_path if options else None)
    assert {type(layer).__module__.split(".")[0] for layer in small.layers} == {"keras"}
    assert left(small) == ["first0", "second0", "add0", "first1", "second1", "add1"]
    assert np.isfinite(small.train_on_batch(*images(8))).all()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("min_channels", [1, 2])
def test_too_high_a_strength_leaves_min_channels_branches_and_warns(min_channels):
    with pytest.warns(UserWarning, match=f"has left {min_channels} of 3 parts of 'residual branches'"):
        model, history = trained(GroupLasso(1e3, parts="depth", min_channels=min_channels), [1.0, 0.3, 0.1], **SHORT)
    assert history["channels_below_threshold"] == [3 - min_channels] * 2
    small = assert_shrinks_exactly(model)
    assert left(small)[:3] == ["first0", "second0", "add0"]
    assert sum(name.startswith("add") for name in left(small)) == min_channels


def test_a_block_with_a_projection_leaves_the_projection():
    with pytest.warns(UserWarning, match="has left 1 of 3"):
        model, _ = trained(GroupLasso(1e3, parts="depth"), [0.3, 0.1, 1.0], **SHORT)
    small = assert_shrinks_exactly(model)
    assert left(small) == ["first2", "second2", "add2"]
    assert "projection" in [layer.name for layer in small.layers]


def test_a_branch_below_the_threshold_becomes_zero_when_training_ends():
    model, history = trained(GroupLasso(1e-6, parts="depth", threshold=0.5), [1.0, 1.0, 0.05], **{**SHORT, "epochs": 1})
    assert history["channels_below_threshold"] == [1]
    assert "add2" not in left(assert_shrinks_exactly(model))


@pytest.mark.slow
def test_a_branch_with_an_excluded_layer_stays():
    callback = GroupLasso(1e3, parts="depth", exclude=lambda layer: layer.name == "first1")
    with pytest.warns(UserWarning, match="has left 1 of 2"):
        model, _ = trained(callback, [1.0, 0.05, 0.3], **SHORT)
    assert left(assert_shrinks_exactly(model)) == ["first0", "second0", "add0", "first1", "second1", "add1"]


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_model_with_too_few_blocks_is_refused(blocks):
    model = compiled(resnet(blocks))
    with pytest.raises(ValueError, match=f"nothing to prune in 'resnet': it has {blocks} residual"):
        model.fit(*images(8), verbose=0, callbacks=[GroupLasso(0.1, parts="depth")])
    assert "apply" not in vars(model.optimizer)
