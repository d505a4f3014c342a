"""The check that every rule must pass: a masked model and its shrunken copy compute the same."""

import keras
import numpy as np

from tfprune.graph import channel_groups
from tfprune.parts.channels import channel_masks
from tfprune.shrinking.removal import shrink
from tfprune.training.masks import apply_masks

TOLERANCE = 1e-5


def randomize(model, seed=0):
    """Give every weight a random value, variances a positive one."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed_generator" in weight.path:
            continue
        value = random.uniform(0.3, 1.0, weight.shape)
        if "variance" not in weight.path:
            value *= random.choice([-1.0, 1.0], weight.shape)
        weight.assign(value / np.sqrt(np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else value)


def arrays(model, batch=4, size=9, seed=1):
    """Random samples in the structure of the model's inputs."""
    random = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda tensor: random.normal(size=(batch, *(axis or size for axis in tensor.shape[1:]))).astype("float32"),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )


def frozen_reasons(model):
    """Return the reasons of each group by its name."""
    return {group.name: "; ".join(group.frozen) for group in channel_groups(model)}


def shrunken_equals_masked(model, inputs=None, tmp_path=None, fraction=0.4, seed=0, free=None):
    """Mask random channels of all free groups, shrink, compare outputs and sizes; return the shrunken model."""
    randomize(model, seed)
    random = np.random.default_rng(seed)
    groups = channel_groups(model)
    assert groups.free
    if free is not None:
        assert {member.layer.name for group in groups.free for member in group.producers} == set(free)
    dead = [group.keep_one_each(random.uniform(size=group.size) < fraction) for group in groups.free]
    assert sum(each.sum() for each in dead) > 0
    apply_masks(model, channel_masks(zip(groups.free, (~each for each in dead), strict=True), ("producer", "affine")))
    small = shrink(model)
    inputs = arrays(model) if inputs is None else inputs
    compare(model, small, inputs)
    assert small.count_params() == expected_parameters(model, zip(groups.free, dead, strict=True))
    if tmp_path is not None:
        small.save(tmp_path / "small.keras")
        compare(small, keras.models.load_model(tmp_path / "small.keras"), inputs)
    return small


def compare(first, second, inputs):
    """Assert equal outputs, relative to how much they vary with the input, but for the rounding of the numbers."""
    outputs = [keras.tree.flatten(model(inputs, training=False)) for model in (first, second)]
    for before, after in zip(*outputs, strict=True):
        before, after = keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(after)
        spread = before.std(axis=0).max()
        assert spread > 1e-3
        rounding = 4 * np.finfo(before.dtype).eps * np.abs(before).max()
        np.testing.assert_allclose(after, before, rtol=0, atol=TOLERANCE * spread + rounding)


def expected_parameters(model, choice):
    """Count the parameters that stay when the dead slices go from every variable."""
    kept = {}
    for group, dead in choice:
        for member in group.members:
            axes = kept.setdefault(id(member.variable), {})
            axes[member.axis] = axes.get(member.axis, True) & ~member.mark(dead)
    total = 0
    for weight in model.weights:
        shape = list(weight.shape)
        for axis, stays in kept.get(id(weight), {}).items():
            shape[axis] = int(stays.sum())
        total += int(np.prod(shape))
    return total
