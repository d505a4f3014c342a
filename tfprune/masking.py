"""Masks on a live model: masked weights are exactly zero, whatever the optimizer does.

Masks are plain `dict[variable path, bool array]`, False where a weight is pruned. `HeldMasks` keeps them inside
the compiled training step: for the length of a `fit` it wraps `apply` of the model's own optimizer, so that the
optimizer sees no gradient of a pruned weight (its momentum stays zero) and the weight is zero after each update,
also between the steps of `steps_per_execution`. Nothing of it is saved with the model.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

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


def apply_masks(model: keras.Model, masks: Masks) -> None:
    """Set every masked weight of a model to zero, once.

    Args:
        model: A built Keras model.
        masks: For each variable path, a bool array of the variable's shape; False where pruned.

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
        variable.assign(ops.where(mask, variable, ops.zeros_like(variable)))


class HeldMasks:
    """Keep masked weights at zero through every step of the training that follows, until released.

    Args:
        model: A built and compiled Keras model.
        masks: For each variable path, a bool array of the variable's shape; False where pruned.

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

    def __init__(self, model: keras.Model, masks: Masks) -> None:
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                f"The model {model.name!r} is not compiled, so no optimizer trains it. Call model.compile() first."
            )
        matched = _match(model, masks)
        self._model = model
        self._optimizer = model.optimizer
        self._masks = masks
        earlier = getattr(self._optimizer.apply, "__self__", None)
        if isinstance(earlier, HeldMasks):
            warnings.warn(
                f"{model.name!r} already holds masks: from a fit that was interrupted, or from another callback in "
                "this fit. They are released now; use one callback that holds masks per fit.",
                stacklevel=2,
            )
            earlier.release()
        with model.distribute_strategy.scope():
            self._held = {
                variable.path: keras.Variable(mask, dtype=variable.dtype, trainable=False, name="mask")
                for variable, mask in matched
            }
        self._plain_apply = self._optimizer.apply
        self._optimizer.apply = self._apply
        model.make_train_function(force=True)  # a step that was compiled before would go on without the masks
        apply_masks(model, masks)
        self._clear_slots(matched)

    def release(self) -> None:
        """Write the zeros once more (`use_ema` overwrites weights at the end) and let the optimizer go."""
        if self._optimizer.apply == self._apply:
            del self._optimizer.apply
        self._model.train_function = None  # its trace holds the masks
        apply_masks(self._model, self._masks)

    def _clear_slots(self, matched: list[tuple[keras.Variable, np.ndarray]]) -> None:
        """Zero what the optimizer remembers of masked weights from an earlier fit: its momentum would live on."""
        optimizer = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        masks = {id(variable): mask for variable, mask in matched}
        # A slot is named after its variable, such as "sgd/dense_kernel_momentum"; the longest name that fits owns it.
        names = {variable.path.replace("/", "_") + "_": variable for variable in self._model.trainable_variables}
        for slot in optimizer.variables:
            fitting = [name for name in names if slot.path.split("/")[-1].startswith(name)]
            mask = masks.get(id(names[max(fitting, key=len)])) if fitting else None
            if mask is not None and tuple(slot.shape) == mask.shape:
                slot.assign(ops.where(mask, slot, ops.zeros_like(slot)))

    def _apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        variables = self._model.trainable_variables if trainable_variables is None else list(trainable_variables)
        self._plain_apply([self._mask(*pair) for pair in zip(grads, variables, strict=True)], variables)
        for variable in variables:
            if variable.path in self._held:
                self._optimizer.assign(variable, self._mask(ops.convert_to_tensor(variable), variable))

    def _mask(self, value: Any, variable: keras.Variable) -> Any:
        mask = self._held.get(variable.path)
        if mask is None or value is None:
            return value
        # Not value * mask, since NaN * 0 is NaN; and not where(), which costs twice as much on a CPU.
        return tf.math.multiply_no_nan(ops.convert_to_tensor(value), ops.convert_to_tensor(mask))


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
