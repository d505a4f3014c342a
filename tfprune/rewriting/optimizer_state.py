"""What an optimizer remembers, cut to the channels that stay in a smaller copy of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.training.masks import variables_by_path
from tfprune.training.optimizers import optimizer_parts, updating_optimizers
from tfprune.training.step import slots_by_path

WHOLE_KERNELS = (keras.optimizers.Adafactor, keras.optimizers.Lamb, keras.optimizers.Muon)
"""Their steps follow from the size or the norm of whole kernels, so that slices of their state train in another way."""


@dataclass(frozen=True, eq=False)
class SlicedVariable:
    """A variable of a smaller copy, and which part of the model's variable it holds.

    Attributes:
        source: The variable of the model.
        target: The variable of the copy.
        kept: For each axis the positions that stay; int arrays.
    """

    source: keras.Variable
    target: keras.Variable
    kept: tuple[np.ndarray, ...]

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Return the part of an array of the source's shape that the copy holds."""
        return values[np.ix_(*self.kept)]


def check_carries(model: keras.Model) -> None:
    """Raise if the state of what trains a model cannot be cut to some of the channels.

    Args:
        model: A built Keras model; it is not changed.

    Raises:
        ValueError: If the model is not compiled, is trained by several optimizers, or by one whose state has no part
            that belongs to a channel; or if two weights have the same path.
    """
    optimizers = updating_optimizers(model)
    if not model.compiled or len(optimizers) > 1 or len(optimizer_parts(optimizers[0])) > 1:
        raise ValueError(
            f"The optimizer's state is carried where one optimizer trains all weights, given to compile(). "
            f"{model.name!r} is {'trained by several' if model.compiled else 'not compiled'}. Compile it with one, or "
            "shrink it without carry_optimizer, with a new optimizer."
        )
    if isinstance(optimizers[0], WHOLE_KERNELS):
        raise ValueError(
            f"A step of {type(optimizers[0]).__name__} depends on the size or norm of whole kernels, so a smaller "
            "model does not train as the larger one with its channels at zero. Use SGD, Adam or another optimizer that "
            "updates each weight by itself, or shrink without carry_optimizer."
        )
    variables_by_path(model)


def carry_optimizer(model: keras.Model, small: keras.Model, variables: Sequence[SlicedVariable]) -> None:
    """Give the optimizer of a smaller copy what the model's has: steps, learning rate, loss scale, and slots in slices.

    An optimizer that has made no step has no slots, and then neither has the copy's.

    Args:
        model: The model; it is not changed.
        small: The copy, compiled like it.
        variables: The variables of the copy, and what they are a part of.

    Raises:
        ValueError: If a slot is not of the shape of its weight, as those that `check_carries` does not know may be.
    """
    old, new = model.optimizer, small.optimizer
    slots: list[tuple[Any, Any, SlicedVariable]] = []
    if getattr(old, "inner_optimizer", old).built:
        with small.distribute_strategy.scope():
            new.build(small.trainable_variables)
        before, after = slots_by_path(model), slots_by_path(small)
        slots = [
            (source, target, each)
            for each in variables
            if each.source.path in before
            for source, target in zip(before[each.source.path], after[each.target.path], strict=True)
        ]
    sliced = [{id(slot[side]) for slot in slots} for side in (0, 1)]
    rest = [
        [variable for variable in optimizer.variables if id(variable) not in known]
        for optimizer, known in zip((old, new), sliced, strict=True)
    ]
    strange = [each.path for each in rest[0] if len(each.shape)]
    if strange or len(rest[0]) != len(rest[1]):
        raise ValueError(
            f"{type(old).__name__} keeps {', '.join(strange) or 'variables'} that belong to no channel, so its state "
            "cannot be cut to the channels that stay. Shrink without carry_optimizer, with a new optimizer."
        )
    for source, target in zip(*rest, strict=True):
        target.assign(source)
    for source, target, each in slots:
        target.assign(each.cut(source.numpy()))
