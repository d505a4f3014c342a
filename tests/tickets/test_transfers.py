"""Tickets in other models: what goes where, against tables written by hand."""

import functools

import keras
import numpy as np
import pytest

from tfprune.masking import apply_masks, recorded_mask
from tfprune.tickets import shuffled, to_new_head, to_other_depth
from tfprune.tickets.transfers import block_numbers
from tfprune.training.masks import record_masks

L = keras.layers


def conv(x, filters, name, strides=1):
    x = L.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return L.BatchNormalization(name=f"{name}_norm")(x)


@functools.cache
def resnet(*depths, widths=(4, 6), classes=3, named=True):
    """Stages of residual blocks; the first block of each stage but the first has a projection."""
    inputs = keras.Input((8, 8, 2))
    x = L.ReLU()(conv(inputs, widths[0], "stem"))
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in range(depth):
            name, strides = f"{stage}{block}", 2 if stage and not block else 1
            branch = conv(L.ReLU()(conv(x, width, f"{name}a", strides)), width, f"{name}b")
            shortcut = L.Conv2D(width, 1, strides, name=f"{name}_projection")(x) if strides > 1 else x
            x = L.ReLU()(L.Add(name=name)([shortcut, branch]))
    outputs = L.Dense(classes, name="classes" if named else None)(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def blocks_of(transfer):
    """From each block of the target to that of the source, by the names of their layers."""
    found = {}
    for path, source in transfer.sources.items():
        layer, there = path.split("/")[0], source.split("/")[0]
        assert path.split("/")[1] == source.split("/")[1]
        if layer[0].isdigit():
            assert layer[2:] == there[2:]
            found.setdefault(layer[:2], set()).add(there[:2])
        else:
            assert layer == there
    return {block: "".join(names) for block, names in found.items()}


TABLES = {
    "interleave": {
        **{"00": "00", "01": "01", "02": "01", "03": "02", "04": "02"},
        **{"10": "10", "11": "11", "12": "11", "13": "11"},
    },
    "append": {
        **{"00": "00", "01": "01", "02": "02", "03": "01", "04": "02"},
        **{"10": "10", "11": "11", "12": "11", "13": "11"},
    },
}


@pytest.mark.parametrize("order", TABLES)
def test_blocks_are_repeated_by_the_table(order):
    transfer = to_other_depth(resnet(3, 2), resnet(5, 4), order)
    assert blocks_of(transfer) == TABLES[order]
    assert transfer.fresh == transfer.left == ()
    assert {path[:2] for path in transfer.replicas} == ({"02", "04"} if order == "interleave" else {"03", "04"}) | {
        "12",
        "13",
    }


def test_blocks_are_left_out_by_the_table():
    assert blocks_of(to_other_depth(resnet(5, 3), resnet(3, 2))) == {
        **{"00": "00", "01": "01", "02": "03"},
        **{"10": "10", "11": "11"},
    }
    appended = to_other_depth(resnet(5, 3), resnet(3, 2), "append")
    assert blocks_of(appended) == {**{"00": "00", "01": "01", "02": "02"}, **{"10": "10", "11": "11"}}
    assert {path[:2] for path in appended.left} == {"03", "04", "12"}


def test_the_mapping_of_the_authors_from_32_layers_to_56():
    assert block_numbers(5, 9, "interleave") == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert block_numbers(9, 5, "interleave") == [0, 1, 3, 5, 7]
    assert block_numbers(5, 9, "append") == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    assert block_numbers(1, 3, "append") == [0, 0, 0]


def test_a_table_of_ones_own_with_a_block_that_stays_fresh_and_dense():
    source, target = resnet(2, 2), resnet(3, 2)
    transfer = to_other_depth(source, target, [[0, None, 1], [0, 1]])
    assert blocks_of(transfer) == {"00": "00", "02": "01", "10": "10", "11": "11"}
    assert {path[:2] for path in transfer.fresh} == {"01"}
    weights = transfer.weights({w.path: w.numpy() + 1 for w in source.weights})
    fresh = target.get_layer("01a_conv").kernel
    np.testing.assert_array_equal(weights[fresh.path], fresh.numpy())
    assert fresh.path not in transfer.masks({w.path: np.ones(w.shape, bool) for w in source.trainable_weights})


def test_masks_and_weights_travel_bit_for_bit():
    source, target = resnet(3, 2), resnet(5, 4)
    random = np.random.default_rng(0)
    weights = {w.path: random.normal(size=w.shape).astype("float32") for w in source.weights}
    masks = {path: random.random(w.shape) < 0.5 for path, w in weights.items() if path.endswith("_conv/kernel")}
    transfer = to_other_depth(source, target)
    for path, weight in transfer.weights(weights).items():
        np.testing.assert_array_equal(weight, weights[transfer.sources[path]])
    moved = transfer.masks(masks)
    assert len(moved) == 1 + 2 * 5 + 2 * 4
    assert all(np.array_equal(mask, masks[transfer.sources[path]]) for path, mask in moved.items())
    moved["stem_conv/kernel"][:] = False
    assert masks["stem_conv/kernel"].any()

    control = moved | shuffled({path: moved[path] for path in transfer.replicas if path in moved}, seed=3)
    changed = {path[:2] for path, mask in control.items() if not np.array_equal(mask, moved[path])}
    assert changed == {"02", "04", "12", "13"}
    record_masks(target, control)
    assert np.array_equal(recorded_mask(target.get_layer("02a_conv").kernel), control["02a_conv/kernel"])


def test_another_head_and_another_depth_at_once():
    source, target = resnet(2, 2, classes=10), resnet(3, 2, classes=4)
    transfer = to_other_depth(source, target, head=[target.get_layer("classes")])
    assert transfer.fresh == ("classes/kernel", "classes/bias") == transfer.left


def test_the_body_of_a_ticket_goes_to_a_model_with_another_head():
    source, target = resnet(2, 1, classes=10), resnet(2, 1, classes=4, named=False)
    new = target.layers[-1]
    transfer = to_new_head(source, target, [new])
    assert transfer.fresh == (new.kernel.path, new.bias.path)
    assert transfer.left == ("classes/kernel", "classes/bias")
    assert all(path == there for path, there in transfer.sources.items())
    before = new.get_weights()
    weights = transfer.weights({w.path: np.full(w.shape, 2.0, "float32") for w in source.weights})
    assert all((weights[path] == 2).all() for path in transfer.sources)
    np.testing.assert_array_equal(weights[new.kernel.path], before[0])


def test_layers_whose_names_were_counted_up_are_matched_in_order():
    def build(classes):
        return keras.Sequential([keras.Input((4,)), L.Dense(3, "relu"), L.BatchNormalization(), L.Dense(classes)])

    source, target = build(5), build(2)
    transfer = to_new_head(source, target, [target.layers[-1]])
    kernel = source.layers[0].kernel
    mask = np.eye(4, 3, dtype=bool)
    apply_masks(target, transfer.masks({kernel.path: mask}))
    assert (target.layers[0].kernel.numpy()[~mask] == 0).all()
    assert transfer.sources[target.layers[1].moving_variance.path] == source.layers[1].moving_variance.path


def test_what_does_not_fit_is_told():
    source = resnet(2, 2)
    for target, message in (
        (resnet(2, 2, classes=5), r"'classes/kernel' of shape \(6, 5\).*'classes/kernel' of shape \(6, 3\).*`head`"),
        (resnet(2, 2, widths=(4, 8)), r"'10a_conv/kernel' of shape \(3, 3, 4, 8\).*\(3, 3, 4, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            to_new_head(source, target, [])
        with pytest.raises(ValueError, match=r"does not fit"):
            to_other_depth(source, target)
    with pytest.raises(ValueError, match=r"has 49 weights to match.*only 39"):
        to_new_head(resnet(1, 2), resnet(2, 2), [])
    with pytest.raises(ValueError, match=r"'classes' in head is no layer of"):
        to_new_head(source, resnet(3, 2), [source.get_layer("classes")])
    with pytest.raises(ValueError, match=r"has 2 stages of residual blocks, and .* has 1"):
        to_other_depth(source, resnet(2, widths=(4,)))
    chain = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    with pytest.raises(ValueError, match=r"no residual block.*to_new_head"):
        to_other_depth(chain, chain)


def test_numbers_of_blocks_that_are_not_there_are_told():
    source, target = resnet(2, 2), resnet(3, 2)
    with pytest.raises(ValueError, match=r"whose stages have \[3, 2\]. Received: \[2, 2\]"):
        to_other_depth(source, target, [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"Stage 0 of the source has the blocks 0 to 1. Received: 2"):
        to_other_depth(source, target, [[0, 1, 2], [0, 1]])
    with pytest.raises(ValueError, match=r"'interleave', 'append' or numbers"):
        to_other_depth(source, target, "reversed")
    with pytest.raises(ValueError, match=r"block 1 of stage 1 has 10 weights, and the block .* 12"):
        to_other_depth(source, target, [[0, 1, 1], [0, 0]])


def test_arrays_of_other_models_are_refused():
    transfer = to_other_depth(resnet(2, 2), resnet(3, 2))
    for move in (transfer.masks, transfer.weights):
        with pytest.raises(ValueError, match=r"'other/kernel' is no weight of the model that the transfer begins with"):
            move({"other/kernel": np.ones(3, bool)})


def test_shuffled_masks_keep_the_count_of_every_layer():
    random = np.random.default_rng(0)
    masks = {f"{name}/kernel": random.random((20, 30)) < share for name, share in (("a", 0.2), ("b", 0.2), ("c", 0.9))}
    first, again, other = shuffled(masks, 1), shuffled(masks, 1), shuffled(masks, 2)
    for path, mask in masks.items():
        assert first[path].shape == mask.shape
        assert first[path].sum() == mask.sum()
        assert np.array_equal(first[path], again[path])
        assert not np.array_equal(first[path], mask)
        assert not np.array_equal(first[path], other[path])
    overlap = (first["a/kernel"] & masks["a/kernel"]).mean()
    assert overlap == pytest.approx(masks["a/kernel"].mean() ** 2, abs=0.02)  # as of independent places
    assert not np.array_equal(first["a/kernel"].nonzero(), first["b/kernel"].nonzero())
    with pytest.raises(ValueError, match=r"'a' must be of dtype bool"):
        shuffled({"a": np.ones(3)})
