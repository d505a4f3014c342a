"""How many channels each group keeps: a value that pruning, widening and searching speak."""

import math
import numbers
from collections.abc import Iterator, Mapping

import keras
import numpy as np
from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.graph import Analysis, ChannelGroups, analyse
from tfprune.graph.counting import SizeCounter
from tfprune.graph.exclude import Exclude
from tfprune.graph.groups import named
from tfprune.shrinking.budget import COUNTED


class Widths(Report, Mapping[str, int]):
    """How many channels each group of a model has, by the group's name; read only, and printed as a table.

    It comes from a model (`Widths.of`), from a ratio or a budget (`tfprune.choose_widths`), or from your own numbers;
    `tfprune.prune_channels` and `tfprune.widen` make models of it. `to_dict` gives a plain dict for JSON, and
    `Widths(...)` takes it back. To change some: `Widths({**widths, "conv": 8})`.

    Args:
        channels: Numbers of channels by name of the group, as in `tfprune.channel_groups(model)`. Of groups with the
            same name, as in nested models, the second is called `name#2`. Groups that are left out stay as they are.

    Raises:
        TypeError: If it is not a mapping from names to whole numbers.
        ValueError: If a number is below 1.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3)])
    >>> widths = Widths.of(model)
    >>> widths
    Widths({'hidden': 8})
    >>> half = Widths({**widths, "hidden": 4})
    >>> half.ratio(model), half.count(model)["macs"]
    (0.5, 28)
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        if not isinstance(channels, Mapping) or not all(isinstance(name, str) for name in channels):
            raise TypeError(f"Widths map names of channel groups to numbers of channels. Received: {channels!r}.")
        for name, width in channels.items():
            if isinstance(width, bool) or not isinstance(width, numbers.Integral):
                raise TypeError(f"The width of {name!r} must be a whole number. Received: {width!r}.")
            if width < 1:
                raise ValueError(f"The width of {name!r} must be at least 1, or a layer vanishes. Received: {width}.")
        self._channels = {name: int(width) for name, width in channels.items()}

    @classmethod
    def of(cls, model: keras.Model, exclude: Exclude = None) -> "Widths":
        """Return the widths that a model has.

        Args:
            model: A built Keras model that `tfprune.channel_groups` can read.
            exclude: Layers whose groups are left out; see `tfprune.channel_groups`.

        Returns:
            The number of channels of each free group.
        """
        groups = analyse(model, exclude).groups
        return cls({name: group.size for name, group in named(groups).items() if not group.frozen})

    def ratio(self, model: keras.Model) -> float:
        """Return the fraction of the channels of all free groups of a model that go; negative if it gets wider."""
        groups = analyse(model).groups
        return 1 - int(self.resolve(groups).sum()) / sum(group.size for group in groups.free)

    def count(self, model: keras.Model) -> dict[str, int]:
        """Return what a model with these widths has, without making it.

        Where parts of a group are read apart, as behind a split, they are taken to keep their proportions.

        Args:
            model: A model with a fixed input shape.

        Returns:
            Its parameters, MACs for one sample, and bytes of the weights in float32.

        Raises:
            ValueError: If the widths name a group that the model does not have free.
        """
        analysis = analyse(model)
        return SizeCounter(model, analysis)(spread(analysis, self.resolve(analysis.groups)), COUNTED)

    def resolve(self, groups: ChannelGroups) -> np.ndarray:
        """Return the width of each free group.

        Args:
            groups: The groups of a model.

        Returns:
            An int array.

        Raises:
            ValueError: If a name is none of a free group.
        """
        known = named(groups)
        for name in self:
            if name not in known:
                raise ValueError(
                    f"The model {groups.model!r} has no channel group {name!r}; it has {[*known]}. "
                    "Use the names of Widths.of(model)."
                )
            if known[name].frozen and self[name] != known[name].size:
                reasons = "; ".join(known[name].frozen)
                raise ValueError(f"The group {name!r} must keep its {known[name].size} channels: {reasons}.")
        return np.array([self.get(name, group.size) for name, group in known.items() if not group.frozen], int)

    def to_dict(self) -> dict[str, int]:
        """Return the widths by name, ready for JSON."""
        return dict(self._channels)

    def to_table(self) -> Table:
        """Return one row per group."""
        table = new_table("Widths", ["group"], ["channels"])
        for name, width in self.items():
            table.add_row(name, f"{width:,}")
        return table

    def __getitem__(self, name: str) -> int:
        return self._channels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)

    def __hash__(self) -> int:
        return hash(frozenset(self._channels.items()))

    def __repr__(self) -> str:
        return f"Widths({self._channels})"


def spread(analysis: Analysis, widths: np.ndarray) -> np.ndarray:
    """Return how many channels take the place of each; evenly, so that the parts of a split keep their proportions.

    Args:
        analysis: The analysis of a model.
        widths: How wide each free group is to be; an int array.

    Returns:
        For each label of a channel, a number of channels; 0 for those that go.
    """
    counts = np.ones(analysis.trace.num_channels, int)
    for group, width in zip(analysis.groups.free, widths.tolist(), strict=True):
        own = np.diff(np.arange(group.size + 1) * width // group.size)
        for member in group.members:  # each variable keeps a slice
            if not own[member.channels].any():
                own[member.channels[0]] = 1
        counts[group.labels] = own
    gone = np.flatnonzero(counts == 0)
    counts[np.setdiff1d(gone, analysis.spare(gone))] = 1  # each part of a split keeps a channel
    return counts


def multiplied(groups: ChannelGroups, multiplier: float) -> np.ndarray:
    """Return the widths of free groups times a number, rounded up."""
    return np.array([math.ceil(round(group.size * multiplier, 9)) for group in groups.free], int)
