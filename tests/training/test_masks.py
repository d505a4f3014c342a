import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from networks import compiled, dense, images, randomize, same, weights_of

from tfprune.training.masks import HeldMasks, apply_masks, record_masks, recorded_mask, variables_by_path

L = keras.layers


def masks_for(model):
    """Drop the second hidden unit: a column of the kernel and its bias."""
    hidden = model.get_layer("hidden")
    kernel, bias = np.ones((2, 4), bool), np.ones(4, bool)
    kernel[:, 1] = bias[1] = False
    return {hidden.kernel.path: kernel, hidden.bias.path: bias}


def fit(model, **options):
    x, y = images(16, shape=(2,), classes=2)
    model.fit(x, y, batch_size=4, verbose=0, **options)


def masked_values(model, masks):
    found = variables_by_path(model)
    return np.concatenate([found[path].numpy()[~mask] for path, mask in masks.items()])


@given(hnp.arrays(bool, (2, 4)))
def test_apply_masks_zeroes_exactly_the_masked_weights(mask):
    model = randomize(dense())
    before = model.get_layer("hidden").kernel.numpy()
    apply_masks(model, {model.get_layer("hidden").kernel.path: mask})
    assert np.array_equal(model.get_layer("hidden").kernel.numpy(), np.where(mask, before, 0.0))


def test_record_masks_marks_what_is_pruned_and_what_lives_at_zero():
    model = randomize(dense())
    hidden = model.get_layer("hidden")
    hidden.bias.assign([1.0, np.nan, -0.0, 0.0])
    record_masks(model, masks_for(model))
    assert recorded_mask(hidden.bias).tolist() == [True, False, True, True]
    assert hidden.bias.numpy().tolist() == [1.0, 0.0, 0.0, 0.0]
    assert recorded_mask(hidden.kernel).all(axis=0).tolist() == [True, False, True, True]


def test_applying_twice_is_applying_once_and_nan_goes():
    model = randomize(dense())
    model.get_layer("hidden").bias.assign([1.0, np.nan, 2.0, np.inf])
    masks = masks_for(model)
    apply_masks(model, masks)
    once = weights_of(model)
    apply_masks(model, masks)
    assert same(once, weights_of(model))
    assert model.get_layer("hidden").bias.numpy().tolist() == [1.0, 0.0, 2.0, np.inf]


@pytest.mark.parametrize("apply", [apply_masks, record_masks, HeldMasks])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, mask: ("no/such/kernel", mask), "No weight of .* has the path 'no/such/kernel'. Known paths"),
        (lambda path, mask: (path, mask[:, :2]), r"bool array of shape \(2, 4\). Received: bool of shape \(2, 2\)"),
        (lambda path, mask: (path, mask.astype(int)), "bool array of shape .* Received: int64"),
    ],
)
def test_masks_that_do_not_fit_change_nothing(apply, change, message):
    model = compiled(randomize(dense()))
    before = weights_of(model)
    masks = masks_for(model)
    path, mask = change(model.get_layer("hidden").kernel.path, next(iter(masks.values())))
    with pytest.raises(ValueError, match=message):
        apply(model, {**dict(reversed(masks.items())), path: mask})
    assert same(before, weights_of(model))
    assert "apply" not in vars(model.optimizer)


def test_two_weights_with_one_path_are_refused():
    twins = [L.Dense(2, name="twin"), L.Dense(2, name="twin")]
    for twin in twins:
        twin.build((None, 2))
    blocks = [keras.Sequential([keras.Input((2,)), twin]) for twin in twins]
    model = randomize(keras.Sequential([keras.Input((2,)), *blocks]))
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"Two weights .* have the path 'twin/kernel'.*different names"):
        apply_masks(model, {"twin/kernel": np.zeros((2, 2), bool)})
    assert same(before, weights_of(model))


def test_an_uncompiled_model_is_refused():
    model = randomize(dense())
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"is not compiled.*model\.compile\(\)"):
        HeldMasks(model, masks_for(model))
    assert same(before, weights_of(model))


def test_held_weights_stay_zero_and_the_others_train():
    model = compiled(randomize(dense((4, 2))), keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)
    model.get_layer("hidden").bias.assign(np.full(4, 9.0))  # every ReLU is open
    masks = masks_for(model)
    held = HeldMasks(model, masks)
    before = weights_of(model)
    assert not masked_values(model, masks).any()
    fit(model)
    assert not masked_values(model, masks).any()
    changed = [(a != b).mean() for a, b in zip(before, weights_of(model), strict=True)]
    assert changed == [0.75, 0.75, 0.75, 1.0]  # nothing reaches the reader of the removed unit either
    held.release()
    assert "apply" not in vars(model.optimizer)


def test_momentum_from_an_earlier_fit_is_cleared():
    model = compiled(randomize(dense((4, 2))), keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)
    fit(model)
    masks = masks_for(model)
    held = HeldMasks(model, masks)
    fit(model)
    held.release()
    slots = {slot.name: slot.numpy() for slot in model.optimizer.variables}
    path = model.get_layer("hidden").kernel.path
    assert not slots[path.replace("/", "_") + "_momentum"][~masks[path]].any()


def test_released_weights_train_again():
    model = compiled(randomize(dense((4, 2))), keras.optimizers.SGD(0.1), jit_compile=False)
    masks = masks_for(model)
    HeldMasks(model, masks).release()
    model.get_layer("hidden").bias.assign(np.ones(4))
    model.get_layer("hidden").kernel.assign(np.ones((2, 4)))
    fit(model)
    assert (masked_values(model, masks) != 1.0).any()
    assert masked_values(model, masks).any()


def test_releasing_writes_the_zeros_once_more():
    model = compiled(randomize(dense()))
    masks = masks_for(model)
    held = HeldMasks(model, masks)
    randomize(model)
    held.release()
    assert not masked_values(model, masks).any()


def test_holders_of_one_fit_hold_together_and_let_go_one_by_one():
    model = compiled(randomize(dense()), "adam")
    masks, kernel = masks_for(model), model.get_layer("classes").kernel
    first = HeldMasks(model, masks)
    second = HeldMasks(model, {kernel.path: np.zeros((4, 3), bool)})
    fit(model)
    assert not kernel.numpy().any()
    assert not masked_values(model, masks).any()
    first.release()
    assert "apply" in vars(model.optimizer)
    fit(model)
    assert not kernel.numpy().any()
    second.release()
    assert "apply" not in vars(model.optimizer)


def test_a_weight_lives_where_every_holder_lets_it():
    model = compiled(randomize(dense()), "adam")
    kernel = model.get_layer("classes").kernel
    one, two = np.random.default_rng(0).random((2, 4, 3)) < 0.6
    holders = [HeldMasks(model, {kernel.path: one}), HeldMasks(model, {kernel.path: two})]
    fit(model)
    assert np.array_equal(kernel.numpy() != 0, one & two)
    assert np.array_equal(recorded_mask(kernel), one & two)
    for holder in holders:
        holder.release()


def test_what_an_interrupted_fit_left_is_released_with_a_warning():
    model = compiled(randomize(dense()))
    first = HeldMasks(model, masks_for(model), run={"epochs": 1})
    kernel = model.get_layer("classes").kernel
    with pytest.warns(UserWarning, match="HeldMasks of a fit that was interrupted"):
        second = HeldMasks(model, {kernel.path: np.zeros((4, 3), bool)}, run={"epochs": 1})
    first.release()  # the first no longer holds anything, and must not let go of the second
    assert "apply" in vars(model.optimizer)
    second.release()
    assert "apply" not in vars(model.optimizer)


def test_a_nan_gradient_does_not_reach_a_masked_weight():
    model = compiled(randomize(dense((4, 2))), jit_compile=False)
    masks = masks_for(model)
    HeldMasks(model, masks)
    x, y = images(4, shape=(2,), classes=2)
    model.train_on_batch(x * np.nan, y)
    assert masked_values(model, masks).tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(model.get_layer("hidden").kernel.numpy()).any()


def test_gradient_accumulation():
    optimizer = keras.optimizers.Adam(0.1, gradient_accumulation_steps=2)
    model = compiled(randomize(dense((4, 2))), optimizer, jit_compile=False)
    masks = masks_for(model)
    held = HeldMasks(model, masks)
    before = weights_of(model)
    fit(model)
    held.release()
    assert not masked_values(model, masks).any()
    assert not same(before, weights_of(model))
