"""Structures against NumPy loops: plain layers, tied ones, concatenations, Flatten, recurrent and frozen layers."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import dense, randomize, residual

from tfprune.graph import channel_groups
from tfprune.parts.structures import Slices, Structure, along, coupled, multiples, of_group, of_member, scaled, wholes

L = keras.layers


def concatenated():
    """Two convolutions side by side, read by one: it has slices of two groups."""
    image = keras.Input((6, 6, 2))
    left, right = L.Conv2D(3, 3, name="left")(image), L.Conv2D(4, 3, name="right")(image)
    x = L.Concatenate()([L.ReLU()(left), L.BatchNormalization()(right)])
    return keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(5, 1, name="reader")(x))))


def flattened():
    """Each channel is read at nine positions of the Dense kernel."""
    return keras.Sequential([keras.Input((5, 5, 2)), L.Conv2D(4, 3, name="conv"), L.Flatten(), L.Dense(3)])


def recurrent():
    """Each unit has four columns of two kernels, and a row of one."""
    return keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="lstm"), L.Dense(2)])


def depthwise():
    layers = [keras.Input((6, 6, 2)), L.Conv2D(4, 1, name="conv"), L.DepthwiseConv2D(3), L.Conv2D(3, 1), L.Flatten()]
    return keras.Sequential([*layers, L.Dense(2)])


MODELS = [residual, concatenated, flattened, recurrent, depthwise, dense]


def read(variable):
    return keras.ops.convert_to_tensor(variable)


def looped_squares(structure):
    """The squared norm of every part, member by member and position by position."""
    squares = np.zeros(structure.size)
    for member in structure.group.with_role("producer", "affine", "consumer"):
        for position, channel in zip(member.positions, member.channels, strict=True):
            squares[channel] += (np.take(member.variable.numpy().astype("float64"), position, member.axis) ** 2).sum()
    return squares


def looped_product(structure, per_part, outside):
    """Every variable, with each slice times the number of its part; a variable may be cut along two axes."""
    values = {}
    for member in structure.group.with_role("producer", "affine", "consumer"):
        numbers = np.full(member.variable.shape[member.axis], outside)
        numbers[member.positions] = per_part[member.channels]
        shape = [1] * len(member.variable.shape)
        shape[member.axis] = -1
        values.setdefault(member.variable.path, (member.variable.numpy(), []))[1].append(numbers.reshape(shape))
    return values


@pytest.mark.parametrize("build", MODELS)
def test_coupled_channels_are_what_a_loop_finds(build):
    model = randomize(build())
    structures = coupled(channel_groups(model).free)
    assert structures
    for structure in structures:
        np.testing.assert_allclose(structure.squared_norms(read), looped_squares(structure), rtol=1e-5)
        per_part = np.random.default_rng(1).uniform(0.5, 2, structure.size)
        per_part[0] = 0.0
        found = {
            v.path: value.numpy() for v, value in scaled([(structure, keras.ops.array(per_part, "float32"))], read)
        }
        looped = looped_product(structure, per_part, outside=1.0)
        assert found.keys() == looped.keys()
        for path, (value, factors) in looped.items():
            np.testing.assert_allclose(found[path], value * np.prod(np.broadcast_arrays(*factors), axis=0), rtol=1e-5)
        found = {v.path: value.numpy() for v, value in multiples([(structure, keras.ops.array(per_part))], read)}
        for path, (value, numbers) in looped_product(structure, per_part, outside=0.0).items():
            np.testing.assert_allclose(found[path], value * sum(numbers), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("build", MODELS)
def test_masks_are_zero_where_scaling_by_zero_is(build):
    model = randomize(build())
    for structure in coupled(channel_groups(model).free):
        dead = np.arange(structure.size) % 2 == 1
        masks = structure.masks(dead)
        for variable, value in scaled([(structure, keras.ops.array(1.0 - dead, "float32"))], read):
            assert np.array_equal(value.numpy() != 0, masks[variable.path])
            assert not np.signbit(value.numpy()[~masks[variable.path]]).any()


def test_part_sizes_by_hand():
    sizes = {s.name: s.part_sizes.tolist() for s in coupled(channel_groups(flattened()).free)}
    assert sizes == {"conv": [3 * 3 * 2 + 1 + 9 * 3] * 4}
    sizes = {s.name: s.part_sizes.tolist() for s in coupled(channel_groups(recurrent()).free)}
    columns, rows, biases, read = 4 * (3 + 4), 4 * 4, 4, 2
    assert sizes["lstm"] == [columns + rows + biases + read] * 4
    sizes = {s.name: s.part_sizes.tolist() for s in coupled(channel_groups(concatenated()).free)}
    assert sizes["left"] == [18 + 1 + 5] * 3
    assert sizes["right"] == [18 + 1 + 2 + 5] * 4


@pytest.mark.parametrize(("axes", "size"), [((3,), 5), ((2,), 4), ((0, 1, 2), 24), ((), 1), ((-1,), 5), ((3, 2), 20)])
def test_slices_along_axes(axes, size):
    value = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    structure = along("conv", keras.Variable(value), axes)
    others = tuple(axis for axis in range(4) if axis not in [axis % 4 for axis in axes])
    expected = np.sqrt((value**2).sum(axis=others)).ravel()
    assert structure.size == size == expected.size
    np.testing.assert_allclose(np.sqrt(structure.squared_norms(read)), expected, rtol=1e-5)
    assert structure.part_sizes.tolist() == [120 // size] * size


def test_whole_variables_may_vanish_but_not_all_parts():
    first, second, third = (
        keras.Variable(np.full(shape, value)) for shape, value in [((2, 3), 1.0), (4, 2.0), ((), 3.0)]
    )
    structure = wholes("branches", [[first, second], [third]])
    assert structure.part_sizes.tolist() == [10, 1]
    assert structure.squared_norms(read).numpy().tolist() == [22.0, 9.0]
    assert structure.largest(structure.squared_norms(read), 1, "float32").numpy().tolist() == [1.0, 0.0]
    found = {
        variable.path: value.numpy() for variable, value in scaled([(structure, keras.ops.array([0.5, 0.0]))], read)
    }
    assert found[first.path].tolist() == [[0.5] * 3] * 2
    assert found[second.path].tolist() == [1.0] * 4
    assert found[third.path] == 0
    masks = structure.masks(np.array([True, False]))
    assert [masks[variable.path].any() for variable in (first, second, third)] == [False, False, True]


def test_members_on_their_own():
    group = next(group for group in channel_groups(concatenated()).free if group.name == "left")
    reader = group.with_role("consumer")[0]
    kernel = reader.variable
    structure = of_member(reader)
    assert (structure.name, structure.size) == ("reader", 3)
    np.testing.assert_allclose(structure.squared_norms(read), (kernel.numpy()[0, 0, :3] ** 2).sum(axis=1), rtol=1e-5)
    ((variable, value),) = scaled([(structure, keras.ops.zeros(3))], read)
    assert variable is kernel
    assert (value.numpy()[0, 0, :3] == 0).all()
    assert np.array_equal(value.numpy()[0, 0, 3:], kernel.numpy()[0, 0, 3:])


def test_members_with_other_axes_tell_places_apart():
    model = randomize(keras.Sequential([keras.Input((9, 9, 2)), L.Conv2D(4, 3), L.Conv2D(5, 3), L.Flatten()]))
    reader = channel_groups(model).free[0].with_role("consumer")[0]
    structure = of_member(reader, axes=(0, 1))
    kernel = model.layers[1].kernel.numpy()
    expected = (np.moveaxis(kernel, 2, 0) ** 2).sum(axis=3).ravel()
    np.testing.assert_allclose(np.sort(structure.squared_norms(read)), np.sort(expected), rtol=1e-5)
    assert structure.part_sizes.tolist() == [5] * 36


def test_what_is_not_trained_takes_no_part():
    model = dense()
    model.get_layer("hidden").trainable = False
    (group,) = channel_groups(model).free
    (only,) = of_group(group, "producer", "consumer").slices
    assert only.variable is model.get_layer("classes").kernel
    assert len(of_group(group, "producer", "consumer", trainable_only=False).slices) == 2


def test_overlapping_structures_multiply_and_add():
    variable = keras.Variable(np.arange(1.0, 7.0).reshape(2, 3))
    rows, columns = along("rows", variable, (0,)), along("columns", variable, (1,))
    numbers = [(rows, keras.ops.array([2.0, 3.0])), (columns, keras.ops.array([1.0, 0.0, 5.0]))]
    ((_, product),) = scaled(numbers, read)
    assert product.numpy().tolist() == [[2.0, 0.0, 30.0], [12.0, 0.0, 90.0]]
    ((_, total),) = multiples(numbers, read)
    assert total.numpy().tolist() == [[3.0, 4.0, 21.0], [16.0, 15.0, 48.0]]


def test_nan_is_not_hidden_by_a_zero_elsewhere():
    variable = keras.Variable([[np.nan, 1.0], [2.0, -3.0]])
    ((_, value),) = scaled([(along("kernel", variable, (1,)), keras.ops.array([np.nan, 0.0]))], read)
    assert np.isnan(value.numpy()[:, 0]).all()
    assert (value.numpy()[:, 1] == 0).all()


@settings(max_examples=15)
@given(st.lists(st.floats(0, 9, width=32), min_size=2, max_size=9), st.integers(1, 4), st.integers(0, 99))
def test_the_largest_parts_stay(squares, count, seed):
    size = len(squares)
    chosen = np.random.default_rng(seed).permutation(size)[: max(1, size // 2)]
    parts = np.full(size, -1)
    parts[chosen] = chosen  # another variable that has only some of the parts
    slices = [Slices(keras.Variable(np.zeros((2, size))), (1,), each) for each in (np.arange(size), parts)]
    structure = Structure("any", size, tuple(slices))
    factors = structure.protect(keras.ops.array(squares), keras.ops.zeros(size), count).numpy()
    assert set(np.unique(factors)) <= {0.0, 1.0}
    for holder in (np.arange(size), np.sort(chosen)):
        order = holder[np.argsort(-np.array(squares)[holder], kind="stable")][:count]
        assert (factors[order] == 1).all()
    assert (factors == 1).sum() <= 2 * count
    kept = structure.protect(keras.ops.array(squares), keras.ops.full((size,), 0.25), count).numpy()
    assert (kept == 0.25).all()
