"""What the callbacks share that prune by the gammas of BatchNormalization."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.callbacks.penalties.base import SparsityRegularization
from tfprune.graph import Analysis, ChannelGroup, analyse
from tfprune.parts.gamma_choice import masks_without, trained_switches
from tfprune.parts.gammas import Switched
from tfprune.parts.structures import Structure
from tfprune.training.masks import Masks


class GammaRegularization(SparsityRegularization):
    """Base of the callbacks that pull at the gammas of BatchNormalization, and remove the channels that they switch.

    See `SparsityRegularization` for the arguments.

    Args:
        strength: How hard to pull: a number of at least 0, a function from the step to it, or a schedule.
        threshold: Channels whose score is at most this count as dead.
        min_channels: How many channels of every group always stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Example:

    >>> import keras
    >>> class Decay(GammaRegularization):
    ...     def combine(self, magnitudes):
    ...         return magnitudes.max(axis=0).filled(0)
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(),
    ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> callback = Decay(0.1, threshold=1e-3)
    >>> history = model.fit(np.ones((8, 8, 8, 1)), np.ones((8, 2)), verbose=0, callbacks=[callback])
    >>> history.history["channels_below_threshold"]
    [0]
    """

    def find_structures(self, groups: Sequence[ChannelGroup]) -> list[Structure]:
        """Find which channels are switched by gammas, or raise if none is."""
        self.analysis: Analysis = analyse(self.model, self.exclude)
        self.switched: list[Switched] = trained_switches(self.model, self.analysis, self.exclude, type(self).__name__)
        return [each.structure for each in self.switched]

    @abstractmethod
    def combine(self, magnitudes: np.ma.MaskedArray) -> np.ndarray:
        """Return one score per channel.

        Args:
            magnitudes: |gamma|, with a row for each BatchNormalization that the channels pass through; masked where
                one has no part in a channel.
        """

    def scores(self) -> list[np.ndarray]:
        """Return the scores of all channels as the weights are now."""
        return [self.combine(each.magnitudes()) for each in self.switched]

    def dead(self) -> dict[Structure, np.ndarray]:
        """Return which channels have a score of at most `threshold`; `min_channels` of each never do."""
        return {
            each.structure: (scores <= self.threshold) & ~each.protected(scores, self.min_channels)
            for each, scores in zip(self.switched, self.scores(), strict=True)
        }

    def masks_without(self, gone: Sequence[np.ndarray]) -> Masks:
        """Return masks of all that makes and carries channels.

        Args:
            gone: For each of `switched`, one bool per channel, True for those that go.
        """
        return masks_without(self.switched, gone)

    def dead_masks(self) -> Masks:
        """Return masks of all that makes and carries dead channels."""
        return self.masks_without(list(self.dead().values()))

    def _log(self, logs: dict[str, Any] | None, **values: float) -> None:
        if logs is not None:
            logs.update(values)
