"""Group norm sparse learning, and growing regularization: weight decay that is stronger for weak channels."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.callbacks.penalties.base import SparsityRegularization, add_to
from tfprune.common.checks import check_fraction, check_not_negative
from tfprune.criteria import l1_norm
from tfprune.granularity import Channel, floor_share
from tfprune.graph import ChannelGroup
from tfprune.graph.exclude import Exclude
from tfprune.parts.ranking import Ranking
from tfprune.parts.structures import Structure, coupled, multiples
from tfprune.schedules import ScheduleLike
from tfprune.training.masks import Masks
from tfprune.training.step import Gradients, Weight


class GroupNormRegularization(SparsityRegularization):
    """Decay weak channels faster than strong ones, with all that makes, carries and reads them, in every step.

    In each group of channels that must go together, channel i with norm I_i has the weight decay strength * g_i,
    where g_i = 2 ** (4 * (I_max - I_i) / (I_max - I_min)): 1 for the strongest channel and 16 for the weakest. It is
    part of the gradient that the optimizer sees, of biases and of gamma and beta too. Norms are those of the step; they
    count biases and beta, which the criterion `GroupNorm` and the authors' code leave out.

    Decay makes weights small but not zero. Channels whose norm is at most `threshold` become zero when training ends;
    to remove a fixed part of all channels, prune with `tfprune.prune_channels` afterwards, at a loss that is small
    because they are.

    Reference: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, https://arxiv.org/abs/2301.12900

    Args:
        strength: The weight decay of the strongest channel: a number of at least 0, a function from
            the step to it, or a schedule.
        threshold: Channels whose norm, over all that belongs to them, is at most this count as dead in the logs, and
            become zero when training ends.
        min_channels: How many channels of each group always stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune.

    Example:

    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> y = np.abs(x[:, 0])  # two units are enough
    >>> callback = GroupNormRegularization(0.02, threshold=0.02)
    >>> history = model.fit(x, y, batch_size=8, epochs=40, verbose=0, callbacks=[callback])
    >>> history.history["channels_below_threshold"][-1]
    6
    """

    def __init__(
        self,
        strength: ScheduleLike,
        *,
        threshold: float = 1e-4,
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        super().__init__(strength, threshold, min_channels, exclude)

    def find_structures(self, groups: Sequence[ChannelGroup]) -> Sequence[Structure]:
        """Return the channels of groups with all that belongs to them."""
        return coupled(groups)

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Add strength * g_i * w for each channel."""
        numbers = [
            (structure, strength * _factors(structure.squared_norms(ops.convert_to_tensor)))
            for structure in self.structures
        ]
        return add_to(gradients, multiples(numbers, ops.convert_to_tensor))

    def penalty(self) -> float:
        """Return half the sum of g_i times the squared norm."""
        squared = [structure.squared_norms(ops.convert_to_tensor) for structure in self.structures]
        return sum(float(ops.sum(_factors(each) * each)) / 2 for each in squared)


class GrowingRegularization(SparsityRegularization):
    """Give channels a weight decay that grows while training goes on: all of a fixed set alike, or weak ones faster.

    With a `ratio` it is GReg-1 of the paper: when training starts, floor(C * ratio) channels of each group are chosen
    by the smallest L1 norm of the kernels that make them. Every `frequency` updates the decay of all of them grows by
    `delta`, up to `limit`, where it is held, and nothing else decays. They become zero when training ends, for
    `tfprune.shrink` to remove. Train long enough to hold the limit for a while: the growth alone takes
    frequency * limit / delta updates.

    Without a `ratio` no set is chosen. Every `frequency` updates the decay of channel i with norm I_i grows by
    delta * (I_max - I_i) / (I_max - I_min), where the largest and the smallest norm are those of its group: the weakest
    channels fade away slowly enough for the others to take over, and the strongest never feels anything. This is a
    variant of tfprune; GReg-2 of the paper raises all decays alike until weights part by themselves, and chooses then.
    Channels whose norm is at most `threshold` become zero when training ends; to remove a fixed part of all channels,
    prune with `tfprune.prune_channels` afterwards.

    All that makes, carries and reads a channel decays with it; in the paper only the filter does.

    What has grown is not part of the model: where `BackupAndRestore` resumes a training, all decays start at zero
    again, and a set is chosen anew. The weights have kept what the decays made of them, so that it is mostly the same.

    Reference: Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, https://arxiv.org/abs/2012.09243

    Args:
        delta: By how much a decay grows each time: of every chosen channel, or of the weakest; a number of at least 0.
            The paper: 1e-4.
        ratio: The fraction of channels of each group to choose, in (0, 1); None for the variant without a set.
        frequency: It grows every so many updates of the weights.
        limit: No decay grows beyond this. The learning rate times the decay must stay well below 1. The paper: 1.
        threshold: Channels whose norm, over all that belongs to them, is at most this count as dead in the logs, and
            without a `ratio` become zero when training ends.
        min_channels: How many channels of each group always stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune.

    Example:

    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> y = np.abs(x[:, 0])  # two units are enough
    >>> callback = GrowingRegularization(0.01, ratio=0.75, frequency=1)
    >>> history = model.fit(x, y, batch_size=8, epochs=40, verbose=0, callbacks=[callback])
    >>> history.history["channels_below_threshold"][-1]
    6
    """

    def __init__(
        self,
        delta: float,
        *,
        ratio: float | None = None,
        frequency: int = 10,
        limit: float = 1.0,
        threshold: float = 1e-4,
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        self.delta = check_not_negative("delta", delta)
        super().__init__(self.delta, threshold, min_channels, exclude)
        self.ratio = None if ratio is None else check_fraction("ratio", ratio)
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency is a whole number of updates, at least 1. Received: {frequency!r}.")
        self.frequency = frequency
        self.limit = check_not_negative("limit", limit)
        self._grown: dict[Structure, keras.Variable] = {}
        self._updates: dict[Structure, keras.Variable] = {}
        self._chosen: dict[Structure, np.ndarray] = {}

    def find_structures(self, groups: Sequence[ChannelGroup]) -> Sequence[Structure]:
        """Return the channels of groups with all that belongs to them, none of which has decayed yet."""
        found = coupled(groups)
        if self.ratio is not None and found and not any(floor_share(each.size, self.ratio) for each in found):
            widest = max(each.size for each in found)
            raise ValueError(
                f"At a ratio of {self.ratio:g} no channel would be chosen: the widest group has {widest}, and counts "
                f"are rounded down. Use a ratio of at least {1 / widest:.3g}."
            )
        with self.model.distribute_strategy.scope():
            # In units of delta.
            self._grown = {structure: _state(np.zeros(structure.size), "float32") for structure in found}
            self._updates = {structure: _state(0, "int32") for structure in found}
        return found

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Add the decay of the channel times the weight."""
        numbers = [(structure, strength * self._grown[structure]) for structure in self.structures]
        return add_to(gradients, multiples(numbers, ops.convert_to_tensor))

    def pull_weights(self, weight: Weight, rate: Any, strength: Any) -> Sequence[tuple[keras.Variable, Any]]:
        """Let the decays grow; the weights stay as they are."""
        moved = rate * strength > 0
        changed: list[tuple[keras.Variable, Any]] = []
        for structure in self.structures:
            if not self.moves_with(structure):
                continue
            updates = ops.convert_to_tensor(self._updates[structure]) + ops.cast(moved, "int32")
            due = moved & ops.equal(updates % self.frequency, 0)
            grown = ops.convert_to_tensor(self._grown[structure])
            if self.ratio is None:
                more = grown + weakness(structure.squared_norms(weight))
            else:
                more = grown + self._chosen[structure].astype("float32")
            if self.delta:
                more = ops.minimum(more, self.limit / self.delta)
            changed += [(self._updates[structure], updates), (self._grown[structure], ops.where(due, more, grown))]
        return changed

    def penalty(self) -> float:
        """Return half the sum of the decays, in units of delta, times the squared norms."""
        return sum(
            float(ops.sum(self._grown[structure] * structure.squared_norms(ops.convert_to_tensor))) / 2
            for structure in self.structures
        )

    def decays(self) -> dict[Structure, np.ndarray]:
        """Return how far the decay of every channel has grown."""
        return {structure: self.delta * grown.numpy() for structure, grown in self._grown.items()}

    def dead_masks(self) -> Masks:
        """Return masks of the chosen set, or, without a `ratio`, of the channels that are dead."""
        return self.masks_of(self._chosen) if self.ratio is not None else super().dead_masks()

    def _start(self, epoch: int) -> None:
        # Where BackupAndRestore has loaded weights, it has done so by now.
        if self.ratio is not None:
            self._chosen = {structure: self._choose(structure) for structure in self.structures}
        super()._start(epoch)

    def _choose(self, structure: Structure) -> np.ndarray:
        """The channels of a group with the smallest L1 norms, as many as the ratio asks for and may go."""
        assert structure.group is not None
        assert self.ratio is not None
        granularity = Channel(min_channels=self.min_channels)
        return ~Ranking().choose([structure.group], [(l1_norm, self.ratio)], granularity)[0]


def weakness(squared_norms: Any) -> Any:
    """Return how weak channels are among those of their group: 0 for the largest norm, 1 for the smallest.

    Args:
        squared_norms: For each channel the sum of its squared weights.

    Returns:
        (I_max - I) / (I_max - I_min) of the norms I; 0 where all are the same.

    Example:

    >>> weakness(ops.array([1.0, 9.0, 4.0])).numpy().tolist()
    [1.0, 0.0, 0.5]
    """
    norms = ops.sqrt(squared_norms)
    largest = ops.max(norms)
    return ops.divide_no_nan(largest - norms, largest - ops.min(norms))


def _factors(squared_norms: Any) -> Any:
    return ops.power(2.0, 4.0 * weakness(squared_norms))


def _state(value: Any, dtype: str) -> keras.Variable:
    return keras.Variable(value, dtype=dtype, trainable=False, aggregation="only_first_replica")
