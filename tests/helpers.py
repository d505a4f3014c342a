"""Checks that many tests share."""

import pathlib
import tempfile
import warnings

import keras
import numpy as np

import tfprune
from tfprune.graph import ChannelGroup, channel_groups
from tfprune.parts.channels import channel_masks
from tfprune.training.masks import apply_masks

VOCABULARY = 11
"""Integer inputs are below this number."""


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Give every variable random values, statistics and biases too; variances are positive."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            values = generator.normal(size=tuple(variable.shape)) * 0.5
            variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)


def random_inputs(model: keras.Model, samples: int = 8, seed: int = 1) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    found = []
    for tensor in model.inputs:
        shape = [size or samples for size in tensor.shape]
        if keras.backend.is_float_dtype(tensor.dtype):
            found.append(generator.normal(size=shape).astype("float32"))
        else:
            found.append(generator.integers(0, VOCABULARY, size=shape))
    return found


def outputs_of(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    given = inputs if len(inputs) > 1 else inputs[0]
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(model(given, training=False))]


def difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """The largest difference beyond the rounding of the numbers, relative to how much they vary over the samples."""
    worst = 0.0
    for first, second in zip(expected, actual, strict=True):
        spread = float((first - first.mean(axis=0)).std())
        assert spread > 1e-3, "the outputs do not vary with the inputs, so comparing them proves nothing"
        rounding = 4 * np.finfo(first.dtype).eps * float(np.abs(first).max())
        worst = max(worst, (float(np.abs(first - second).max()) - rounding) / spread)
    return worst


def choose_randomly(model: keras.Model, ratio: float, seed: int = 2) -> list[tuple[ChannelGroup, np.ndarray]]:
    """For every free group, which channels stay."""
    generator = np.random.default_rng(seed)
    choice = []
    for group in channel_groups(model).free:
        dead = np.zeros(group.size, bool)
        dead[generator.permutation(group.size)[: max(1, round(ratio * group.size))]] = True
        choice.append((group, ~group.keep_one_each(dead)))
    return choice


def assert_shrinks_exactly(
    model: keras.Model, ratio: float = 0.5, seed: int = 0, tolerance: float = 1e-5
) -> tuple[keras.Model, dict[str, int]]:
    """Mask random channels of all free groups of a model with random weights, and check what shrinking makes of it.

    The smaller model must compute what the masked one does, have exactly the channels that stay, and survive being
    saved. Removing the same channels from the model that is not masked must give the same.

    Args:
        model: The model; its weights are overwritten.
        ratio: The part of the channels that goes.
        seed: For the weights.
        tolerance: The largest difference allowed, relative to the spread of the outputs.

    Returns:
        The smaller model, and how many channels each free group kept.
    """
    randomize(model, seed)
    choice = choose_randomly(model, ratio)
    assert choice, f"no free group:\n{channel_groups(model)}"
    kept = {group: np.flatnonzero(stays) for group, stays in choice}
    sizes = {id(group): len(indices) for group, indices in kept.items()}
    inputs = random_inputs(model)
    removed_at_once = outputs_of(tfprune.shrink(model, keep=kept), inputs)

    apply_masks(model, channel_masks(choice, ("producer", "affine")))
    expected = outputs_of(model, inputs)
    small = tfprune.shrink(model)
    actual = outputs_of(small, inputs)
    assert difference(expected, actual) < tolerance
    assert difference(expected, removed_at_once) < tolerance

    assert small.count_params() < model.count_params()
    after = [(group.name, group.size) for group in channel_groups(small).free]
    assert after == [(group.name, sizes[id(group)]) for group in kept]
    assert difference(actual, outputs_of(_saved_and_loaded(small), inputs)) < 1e-6
    return small, dict(after)


def _saved_and_loaded(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Keras converts its variables in an old way
            model.save(path)
        return keras.models.load_model(path)


def frozen_reasons(model: keras.Model, name: str) -> str:
    """Why the group of this name is frozen, in one line; empty if it is free."""
    found = [group for group in channel_groups(model) if group.name == name]
    assert found, f"no group {name!r}:\n{channel_groups(model)}"
    return "; ".join(reason for group in found for reason in group.frozen)


def macs_of(model: keras.Model, name: str) -> int:
    """The MACs of the layer of this name, for one sample."""
    nodes = [node for node in tfprune.graph.walk(model) if node.operation.name == name]
    return sum(tfprune.graph.multiply_accumulates(node) for node in nodes)
