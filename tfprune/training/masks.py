"""Masks on a live model: masked weights are exactly zero, whatever the optimizer does.

Masks are plain `dict[variable path, bool array]`, False where a weight is pruned. `HeldMasks` keeps them inside
the compiled training step.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfprune.training.optimizers import optimizer_parts, updating_optimizers
from tfprune.training.step import (
    Gradients,
    StepHook,
    TrainingStep,
    Weight,
    averages_by_path,
    slots_by_path,
)

Masks = dict[str, np.ndarray]


def variables_by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the weights of a model by their path.

    Args:
        model: A built Keras model.

    Returns:
        All weights, trainable or not.

    Raises:
        ValueError: If two weights have the same path, so that a mask could not tell them apart.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden")])
    >>> [path.split("/")[-2:] for path in variables_by_path(model)]
    [['hidden', 'kernel'], ['hidden', 'bias']]
    """
    found: dict[str, keras.Variable] = {}
    for variable in model.weights:
        if found.setdefault(variable.path, variable) is not variable:
            raise ValueError(
                f"Two weights of {model.name!r} have the path {variable.path!r}, so a mask cannot tell them apart. "
                "Give the layers different names."
            )
    return found


def apply_masks(model: keras.Model, masks: Masks, factor: float = 0.0) -> None:
    """Set every masked weight of a model to zero, once, or to a part of what it is.

    Args:
        model: A built Keras model.
        masks: For each variable path, a bool array of the variable's shape; False where pruned.
        factor: How much of a masked weight is left.

    Raises:
        ValueError: If a path or a shape does not fit the model; no weight is changed then.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> kernel = model.layers[0].kernel
    >>> apply_masks(model, {kernel.path: np.array([[True, False, True]] * 2)})
    >>> bool((kernel.numpy()[:, 1] == 0).all())
    True
    """
    for variable, mask in _match(model, masks):
        left = variable * factor if factor else ops.zeros_like(variable)  # NaN times 0 is NaN
        variable.assign(ops.where(mask, variable, left))


def merge_masks(masks: Masks, others: Masks) -> None:
    """Add masks to others: a weight lives where all of them let it.

    Args:
        masks: By variable path; changed.
        others: By variable path.

    Example:

    >>> masks = {"kernel": np.array([True, True, False])}
    >>> merge_masks(masks, {"kernel": np.array([True, False, True])})
    >>> masks["kernel"]
    array([ True, False, False])
    """
    for path, mask in others.items():
        masks[path] = masks[path] & mask if path in masks else mask


def record_masks(model: keras.Model, masks: Masks) -> None:
    """Prune weights for good: a masked weight becomes -0.0, and a living one that is zero +0.0; see `HeldMasks`.

    Args:
        model: A built Keras model.
        masks: For each variable path, a bool array of the variable's shape; False where pruned.

    Raises:
        ValueError: If a path or a shape does not fit the model; no weight is changed then.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> kernel = model.layers[0].kernel
    >>> record_masks(model, {kernel.path: np.array([[True, False, True]] * 2)})
    >>> recorded_mask(kernel)[0]
    array([ True, False,  True])
    """
    for variable, mask in _match(model, masks):
        _write(variable, mask, mask)


class HeldMasks(StepHook):
    """Keep masked weights at zero through every step of the training that follows, until released.

    The optimizer sees no gradient of a masked weight, so that its momentum stays zero, and the weight is zero after
    each update. Several may hold masks in one `fit`: a weight lives where all of them let it.

    A masked weight is written as -0.0, a living one that happens to be zero as +0.0. Both equal zero everywhere, and
    so the weights alone tell which are masked: see `recorded_mask`.

    Args:
        model: A built and compiled Keras model.
        masks: For each variable path, a bool array of the variable's shape; False where pruned.
        run: See `StepHook`.

    Raises:
        ValueError: If the model is not compiled, or a path or a shape does not fit it.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile("sgd", "mse")
    >>> kernel = model.layers[0].kernel
    >>> held = HeldMasks(model, {kernel.path: np.array([[True, False, True]] * 2)})
    >>> history = model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
    >>> bool((kernel.numpy()[:, 1] == 0).all())
    True
    >>> held.release()
    """

    last = True
    outlasts = True

    def __init__(self, model: keras.Model, masks: Masks, run: Any = None) -> None:
        matched = _match(model, masks)
        self._model = model
        self._variables = {variable.path: variable for variable, _ in matched}
        with model.distribute_strategy.scope():
            self._held = {
                variable.path: keras.Variable(-mask.astype("float32"), dtype=variable.dtype, trainable=False)
                for variable, mask in matched
            }
        super().__init__(model, run)
        self.masks: Masks = {}
        self.update(masks)

    def update(self, masks: Masks, fresh: Masks | None = None) -> None:
        """Hold other masks from now on.

        Args:
            masks: Some or all of the masks, as before.
            fresh: By path, True where a weight starts anew: at zero, with nothing remembered by the optimizer.
        """
        _match(self._model, masks)
        others = held_by_others(self._model, self.run, than=self)
        slots, initial = slots_by_path(self._model), _initial_values(self._model)
        averages = {id(average) for each in averages_by_path(self._model).values() for average in each}
        for path, mask in masks.items():
            self.masks[path] = mask
            keep = mask if fresh is None or path not in fresh else mask & ~fresh[path]
            living = mask & others[path] if path in others else mask
            self._held[path].assign(tf.where(mask, -1.0, 0.0))
            _write(self._variables[path], keep, living)
            for slot in slots.get(path, []):
                if id(slot) in averages:  # what becomes the weight in the end carries the mark of a masked weight too
                    slot.assign(tf.where(keep, slot, tf.cast(0.0, slot.dtype)))
                    slot.assign(tf.where(mask, slot, _negative_zero(slot)))
                else:
                    slot.assign(tf.where(keep, slot, tf.cast(initial.get(id(slot), 0.0), slot.dtype)))

    def release(self) -> None:
        """Write the zeros once more (`use_ema` overwrites weights at the end) and let the optimizer go."""
        self.detach()
        for path, mask in self.masks.items():
            # Living weights stay as they are: some may be masked by another holder.
            variable = self._variables[path]
            variable.assign(tf.where(mask, variable, _negative_zero(variable)))

    def before_update(self, gradients: Gradients) -> Gradients:
        """Hide the gradients of masked weights from the optimizer."""
        return {path: self._masked(path, gradients[path]) for path in self._held if path in gradients}

    def after_update(self, weight: Weight) -> list[tuple[keras.Variable, Any]]:
        """Write the zeros again."""
        # The moving averages of the weights overwrite them now and then; everything else that the optimizer
        # remembers of a masked weight stays zero because its gradient does.
        averages = averages_by_path(self._model)
        pairs = [(path, variable) for path, variable in self._variables.items()]
        pairs += [(path, average) for path in self._variables for average in averages.get(path, ())]
        return [(variable, self._masked(path, _positive(variable, weight(variable)))) for path, variable in pairs]

    def _masked(self, path: str, value: Any) -> Any:
        # The mask is held as -1 and 0, since -(x * -1) is x, but -(0) is the -0.0 that marks a masked weight.
        # Not a plain product, since NaN * 0 is NaN; and not where(), which costs more on a CPU.
        mask = ops.convert_to_tensor(self._held[path])
        if isinstance(value, tf.IndexedSlices):
            rows = tf.gather(mask, value.indices)
            return tf.IndexedSlices(_kill(value.values, rows), value.indices, value.dense_shape)
        return _kill(value, mask)


def recorded_mask(variable: keras.Variable) -> np.ndarray:
    """Return which weights a variable says are alive: all but those that `HeldMasks` has written as -0.0.

    Args:
        variable: A weight of a model, trained in this process or loaded from a file.

    Returns:
        A bool array of the variable's shape.

    Example:

    >>> recorded_mask(keras.Variable([1.0, 0.0, -0.0]))
    array([ True,  True, False])
    """
    values = variable.numpy()
    return ~((values == 0) & np.signbit(values))


def living_weights(variable: keras.Variable) -> np.ndarray:
    """Return which weights are alive, whichever way the others were pruned.

    Args:
        variable: A weight of a model.

    Returns:
        A bool array of the variable's shape: the recorded mask if any weight is marked as pruned (so that a weight
        that has just been grown at zero counts as living), otherwise all weights that are not zero.

    Example:

    >>> living_weights(keras.Variable([1.0, 0.0, -0.0])), living_weights(keras.Variable([1.0, 0.0, 2.0]))
    (array([ True,  True, False]), array([ True, False,  True]))
    """
    recorded = recorded_mask(variable)
    return variable.numpy() != 0 if recorded.all() else recorded


def held_by_others(model: keras.Model, run: Any, than: StepHook | None = None) -> Masks:
    """Return the masks that other callbacks of this `fit` hold already.

    Args:
        model: A built and compiled Keras model.
        run: See `StepHook`.
        than: Whose own masks do not count.

    Returns:
        By variable path, False where any of them holds a weight at zero.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> held_by_others(model, run=None)  # outside of `fit` nobody does
    {}
    """
    masks: Masks = {}
    for hook in TrainingStep.hooks_of(model):
        if isinstance(hook, HeldMasks) and hook.run is run and hook is not than:
            masks |= {path: mask & masks.get(path, True) for path, mask in hook.masks.items()}
    return masks


def _initial_values(model: keras.Model) -> dict[int, float]:
    """What optimizers give their slots at the start, where it is not zero: the accumulators of Adagrad and Ftrl."""
    found: dict[int, float] = {}
    for part in (part for optimizer in updating_optimizers(model) for part in optimizer_parts(optimizer)):
        for slot in part.variables:
            if slot.path.endswith("_accumulator") and not slot.path.endswith("_gradient_accumulator"):
                found[id(slot)] = getattr(part, "initial_accumulator_value", 0.0)
    return found


def _kill(value: Any, negative_mask: Any) -> Any:
    return -tf.math.multiply_no_nan(value, tf.cast(negative_mask, value.dtype))


def _positive(variable: keras.Variable, value: Any) -> Any:
    """A constraint such as NonNeg makes living weights -0.0, which would say that they are masked."""
    return value if getattr(variable, "constraint", None) is None else tf.where(tf.equal(value, 0), 0.0, value)


def _write(variable: keras.Variable, keep: np.ndarray, living: np.ndarray) -> None:
    """Write a kernel's zeros: +0.0 where a weight lives, -0.0 where it is masked.

    One after the other, so that there is never more than one new copy of a kernel, which may have 400 megabytes.

    Args:
        variable: The kernel.
        keep: Whose values stay.
        living: Which weights live.
    """
    stays = tf.not_equal(variable, 0)
    stays = tf.logical_and(stays, keep)
    variable.assign(tf.where(stays, variable, tf.cast(0.0, variable.dtype)))
    variable.assign(tf.where(living, variable, _negative_zero(variable)))


def _negative_zero(like: keras.Variable) -> Any:
    # TensorFlow keeps the constants 0.0 and -0.0 in one place of its cache, since they are equal.
    return -tf.zeros((), like.dtype)


def _match(model: keras.Model, masks: Masks) -> list[tuple[keras.Variable, np.ndarray]]:
    variables = variables_by_path(model)
    for path, mask in masks.items():
        if path not in variables:
            raise ValueError(f"No weight of {model.name!r} has the path {path!r}. Known paths: {sorted(variables)}.")
        if mask.shape != tuple(variables[path].shape) or mask.dtype != bool:
            raise ValueError(
                f"The mask of {path!r} must be a bool array of shape {tuple(variables[path].shape)}. "
                f"Received: {mask.dtype} of shape {mask.shape}."
            )
    return [(variables[path], mask) for path, mask in masks.items()]
