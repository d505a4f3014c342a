"""What a criterion sees: of a variable its weights, of a channel everything that makes, carries and reads it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np

Role = Literal["producer", "affine", "statistics", "consumer"]
Effect = Literal["scale", "shift"]


def _none() -> Mapping[str, np.ndarray]:
    return MappingProxyType({})


@dataclass(frozen=True, eq=False)
class WeightView:
    """The weights of one variable, and what data says about them; read only.

    Attributes:
        name: What the variable is called, such as `"kernel"` or `"gamma"`.
        read: Reads the weights; called once, when they are asked for.
        statistics: What data says about the weights, by name; arrays of the shape of `weights`.

    Example:

    >>> view = WeightView("kernel", lambda: np.array([[3.0, -4.0]]))
    >>> np.abs(view.weights)
    array([[3., 4.]])
    """

    name: str
    read: Callable[[], np.ndarray]
    statistics: Mapping[str, np.ndarray] = field(default_factory=_none, kw_only=True)

    @cached_property
    def weights(self) -> np.ndarray:
        """The weights, in the variable's layout and dtype."""
        weights = np.asarray(self.read()).view()
        weights.flags.writeable = False
        return weights


@dataclass(frozen=True, eq=False)
class MemberView(WeightView):
    """The slices of one variable that belong to the channels of a view; `weights` holds just these.

    Attributes:
        role: What the variable does to the channels: a `"producer"` (kernel) makes them, `"affine"` (bias, gamma,
            beta, depthwise kernel) acts on one channel alone, `"statistics"` (moving mean and variance) follow it,
            and a `"consumer"` (a later kernel) reads them.
        effect: Of an affine member, whether it multiplies (`"scale"`) or adds (`"shift"`).
        axis: The axis of the variable along which it is sliced.
        channels: For each position on that axis, the channel of the view that it belongs to. A channel may have
            several, as behind a `Flatten` or in an LSTM, and a member may have none of some channels.
        layer: Which layer holds the variable; members of one layer have the same.

    Example:

    >>> kernel = MemberView("kernel", lambda: np.ones((3, 3, 8, 2)), "producer", None, -1, np.arange(2))
    >>> kernel.rows.shape
    (2, 72)
    """

    role: Role
    effect: Effect | None
    axis: int
    channels: np.ndarray
    layer: str = field(default="", kw_only=True)

    @property
    def multiplies(self) -> bool:
        """Whether its weights multiply what the channels carry: kernels, gammas and depthwise kernels do."""
        return self.role in ("producer", "consumer") or (self.role, self.effect) == ("affine", "scale")

    @property
    def rows(self) -> np.ndarray:
        """The weights as float64 with a row for each position: shape (positions, weights of one slice)."""
        return self._as_rows(self.weights)

    def rows_of(self, statistic: str) -> np.ndarray:
        """Return what data says about the weights in the layout of `rows`.

        Args:
            statistic: Its name.
        """
        return self._as_rows(self.statistics[statistic])

    def _as_rows(self, array: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(array, self.axis, 0)
        return rows.reshape(rows.shape[0], -1).astype(np.float64)


@dataclass(frozen=True, eq=False)
class ChannelView:
    """Channels that are scored together, with all variables that make, carry and read them; read only.

    Attributes:
        name: The name of the channel group.
        size: How many channels there are.
        members: The slices of variables that belong to the channels.
        statistics: What data says about the channels, by name; arrays of shape (size, ...).

    Example:

    >>> kernel = MemberView("kernel", lambda: np.array([[3.0, 0.0], [4.0, 1.0]]), "producer", None, 1, np.arange(2))
    >>> view = ChannelView("hidden", 2, (kernel,))
    >>> view.total((member, np.abs(member.rows).sum(axis=1)) for member in view.with_role("producer"))
    array([7., 1.])
    """

    name: str
    size: int
    members: tuple[MemberView, ...]
    statistics: Mapping[str, np.ndarray] = field(default_factory=_none, kw_only=True)

    def with_role(self, *roles: Role) -> tuple[MemberView, ...]:
        """Return the members that play one of these roles."""
        return tuple(member for member in self.members if member.role in roles)

    def total(self, parts: Iterable[tuple[MemberView, np.ndarray]]) -> np.ndarray:
        """Return for each channel the sum of what several members have for it.

        Args:
            parts: Pairs of a member and one number for each of its positions.

        Returns:
            One float64 number per channel, shape (size,).
        """
        total = np.zeros(self.size)
        for member, numbers in parts:
            np.add.at(total, member.channels, numbers)
        return total
