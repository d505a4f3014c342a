"""DSR's updates, by hand and against the paper's steps written down once more with plain loops."""

import keras
import numpy as np
import pytest
from networks import compiled

from tfprune.callbacks import DSR
from tfprune.callbacks.weights.dsr import share_out
from tfprune.schedules import Constant

L = keras.layers
NAMES = ("second", "classes")


@pytest.fixture(scope="module")
def model():
    layers = [L.Dense(4, name="first"), L.Dense(6, name="second"), L.Dense(3, name="classes")]
    return compiled(keras.Sequential([keras.Input((5,)), *layers]), "sgd", jit_compile=False)


def started(model, fraction, **options):
    """A callback as it is in the first step of a `fit`, and none of it needs tracing."""
    callback = DSR(0.5, **{"drop": Constant(fraction, frequency=5), "seed": 1, **options})
    callback.set_model(model)
    callback.set_params({"epochs": 10, "steps": 10})
    callback.on_train_begin()
    return callback


def naive(weights, masks, fraction, threshold):
    """What stays, and how many each layer grows."""
    living = {name: [abs(w) for w in weights[name][mask]] for name, mask in masks.items()}
    wanted = int(sum(map(len, living.values())) * fraction + 1e-9)
    found = []
    for doublings in range(-60, 60):
        height = threshold * 2.0**doublings
        dropped = sum(sum(w < height for w in ws) - (max(ws) < height) for ws in living.values())  # the largest stays
        found.append((abs(dropped - wanted), dropped, height))
    _, dropped, height = min(found)
    kept = {}
    for name, mask in masks.items():
        kept[name] = mask & (abs(weights[name]) >= height)
        largest = max(np.ndindex(mask.shape), key=lambda i, name=name, mask=mask: mask[i] * abs(weights[name][i]))
        kept[name][largest] = True
    return kept, dropped


def random_case(seed):
    random = np.random.default_rng(seed)
    shapes = {"second": (4, 6), "classes": (6, 3)}
    masks = {name: random.random(shape) < 0.6 for name, shape in shapes.items()}
    weights = {name: np.where(masks[name], random.normal(size=shape), -0.0) for name, shape in shapes.items()}
    return {name: array.astype("float32") for name, array in weights.items()}, masks


def test_an_update_by_hand(model):
    """Of 12 living weights a quarter is to go, 3: below 0.2 are 1, below 0.4 2, below 0.8 7, so 2 go."""
    second, classes = np.zeros((4, 6), "float32"), np.zeros((6, 3), "float32")
    second[0] = [0.1, 0.5, -0.5, 0.6, 2.0, -3.0]
    second[1, :2] = [0.7, 0.3]
    classes[0] = [0.7, -0.9, 1.0]
    classes[1, 0] = 5.0
    weights = {"second": second, "classes": classes}
    callback = started(model, 0.25, threshold=0.2)
    masks, fresh = callback.update_masks(weights, {name: array != 0 for name, array in weights.items()}, {}, 5)
    assert [int(masks[name].sum()) for name in NAMES] == [6 + 1, 4 + 1]  # 2 * 6/10 and 2 * 4/10: 1 each, by remainders
    kept = {name: masks[name] & ~fresh[name] for name in NAMES}
    assert kept["second"][0].tolist() == [False, True, True, True, True, True]
    assert kept["second"][1].tolist() == [True, False, False, False, False, False]
    assert np.array_equal(kept["classes"], classes != 0)


@pytest.mark.parametrize("threshold", [1e-3, 0.7])
@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8])
def test_updates_are_those_of_the_paper(model, fraction, threshold):
    callback = started(model, fraction, threshold=threshold)
    for seed in range(5):
        weights, masks = random_case(seed)
        kept, moved = naive(weights, masks, fraction, threshold)
        new, fresh = callback.update_masks(weights, masks, {}, 5)
        left = [int(kept[name].sum()) for name in NAMES]
        for name, living, exact in zip(NAMES, left, (moved * part / sum(left) for part in left), strict=True):
            assert np.array_equal(new[name] & ~fresh[name], kept[name])
            assert not (fresh[name] & kept[name]).any()
            full = new[name].all() or any(new[other].all() for other in NAMES)
            assert full or abs(int(new[name].sum()) - living - exact) < 1
        assert sum(int(mask.sum()) for mask in new.values()) == sum(int(mask.sum()) for mask in masks.values())


def test_weights_grow_at_any_free_place(model):
    weights, masks = random_case(0)
    kept, _ = naive(weights, masks, 0.3, 1e-3)
    grown = {name: np.zeros(mask.shape, int) for name, mask in masks.items()}
    for seed in range(60):
        _, fresh = started(model, 0.3, seed=seed).update_masks(weights, masks, {}, 5)
        for name in NAMES:
            grown[name] += fresh[name]
    for name in NAMES:
        assert np.array_equal(grown[name] > 0, ~kept[name])
        free = grown[name][~kept[name]]
        assert free.max() < 4 * free.mean()


def test_equal_weights_all_go_but_for_one_of_each_layer(model):
    masks = {"second": np.ones((4, 6), bool), "classes": np.zeros((6, 3), bool)}
    masks["classes"][2, 1] = True
    weights = {name: mask.astype("float32") for name, mask in masks.items()}
    new, fresh = started(model, 0.9).update_masks(weights, masks, {}, 5)
    kept = {name: np.argwhere(new[name] & ~fresh[name]).tolist() for name in NAMES}
    assert kept == {"second": [[0, 0]], "classes": [[2, 1]]}
    assert [int(new[name].sum()) for name in NAMES] == [1 + 12, 1 + 11]  # 23 in two equal parts


def test_nothing_moves_where_nothing_is_to_go(model):
    weights, masks = random_case(1)
    new, fresh = started(model, 0.0).update_masks(weights, masks, {}, 5)
    assert all(new[name] is masks[name] for name in NAMES)
    assert not fresh


@pytest.mark.parametrize(
    ("count", "parts", "room", "expected"),
    [
        (10, [1, 2, 4], [9, 9, 9], [1, 3, 6]),
        (3, [1, 1, 1, 1], [9, 9, 9, 9], [1, 1, 1, 0]),
        (10, [1, 2, 4], [9, 9, 4], [2, 4, 4]),
        (10, [0, 1, 9], [9, 9, 2], [0, 8, 2]),
        (0, [0, 0], [0, 0], [0, 0]),
    ],
)
def test_what_is_shared_out_is_whole_and_fits(count, parts, room, expected):
    assert share_out(count, parts, room) == expected


def test_the_first_layer_is_dense_unless_the_user_says_otherwise(model):
    for options, names in (
        ({}, ["second", "classes"]),
        ({"exclude": lambda layer: layer.name == "first"}, ["second", "classes"]),
        ({"first_layer_dense": False}, ["first", "second", "classes"]),
    ):
        fresh = keras.models.clone_model(model)
        fresh.compile("sgd")
        callback = started(fresh, 0.1, **options)
        callback.on_epoch_begin(0)
        assert list(callback.masks) == names
        assert callback.sparsity == 0.5
        callback.on_train_end()


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ValueError, match="threshold must be above 0"):
        DSR(0.5, threshold=0.0)
    with pytest.raises(ValueError, match="sparsity is the fraction"):
        DSR(1.0)
    with pytest.raises(ValueError, match=r"leaves the first layer .* dense, and there is no other"):
        started(model, 0.1, exclude=model.layers[1:])
    with pytest.warns(UserWarning, match="DSR replaces weights every 2 steps"):
        started(model, 0.1, drop=Constant(0.1, frequency=2))
