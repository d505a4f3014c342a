"""What a statistic is: which tensors and gradients it wants to see, and what it adds up."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import keras
import numpy as np

from tfprune.graph import Analysis, ChannelGroup, analyse
from tfprune.graph.groups import named
from tfprune.statistics.taps import Taps


@dataclass(frozen=True, eq=False)
class Subject:
    """The model that statistics are of; it is traced when channels are asked for, and no sooner.

    Attributes:
        model: The model.
    """

    model: keras.Model

    @cached_property
    def analysis(self) -> Analysis:
        """The channels of the model."""
        return analyse(self.model)

    @cached_property
    def groups(self) -> dict[str, ChannelGroup]:
        """Its channel groups by name, also the frozen ones."""
        return named(self.analysis.groups)


class Collector(ABC):
    """Gathers one or several statistics of a model, batch by batch, inside a compiled step.

    A new statistic is a subclass, and a line in `gathering.COLLECTORS`. What it adds up lies in `tf.Variable`s that it
    makes in `__init__`, in float32: one number per weight or channel, never one per sample.

    Attributes:
        names: What it gathers.
        of: Whether the arrays belong to `"variables"` (by path) or to channel groups (`"channels"`, by name).
        of_single_samples: Whether samples come one by one instead of in batches, which takes several times as long.
        num_passes: How often the data is read; what is gathered in one pass may say what is wanted in the next.
    """

    names: ClassVar[tuple[str, ...]]
    of: ClassVar[Literal["variables", "channels"]]
    of_single_samples: ClassVar[bool] = False
    num_passes: ClassVar[int] = 1

    @abstractmethod
    def __init__(self, subject: Subject) -> None:
        """Make what it adds up in.

        Args:
            subject: The model.
        """

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The variables for which it wants gradients."""
        return ()

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The layers whose inputs and outputs it wants to see."""
        return ()

    def sources(self, taps: Taps) -> list[Any]:
        """Return the tensors and variables for which it wants the gradient of the summed loss of a batch."""
        return []

    @property
    def directions(self) -> Sequence[Any] | None:
        """For each of `variables` a tensor of its shape, if products of the Hessian with these are wanted."""
        return None

    @abstractmethod
    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add a batch.

        Args:
            taps: What passed the layers; the first axis of each tensor is that of the samples.
            gradients: For each of `sources`, the gradient of the loss summed over the samples of the batch. Where there
                are `directions`, for each of `variables` the Hessian's product instead. None for what the loss does
                not depend on.
        """

    def end_pass(self, num_samples: int) -> None:  # noqa: B027 most have nothing to do
        """Get ready for the next pass, after all data was read.

        Args:
            num_samples: How many samples were added.
        """

    @abstractmethod
    def result(self, num_samples: int) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return by the name of each statistic the arrays, by path or group.

        Args:
            num_samples: How many samples were added.
        """


def tensor_of(source: Any) -> Any:
    """Return what a tape knows a variable by; a tensor is returned as it is.

    Args:
        source: A Keras variable, or a tensor. Of a variable that a strategy holds once for each replica, the one that
            is read outside them.

    Example:

    >>> tensor_of(keras.Variable([1.0])).shape
    TensorShape([1])
    """
    if not isinstance(source, keras.Variable):
        return source
    strategy = getattr(source.value, "distribute_strategy", None)
    return strategy.experimental_local_results(source.value)[0] if strategy is not None else source.value
