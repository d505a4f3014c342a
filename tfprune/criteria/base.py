"""What a criterion is: it names the statistics that it needs, and turns a view into scores, where higher means keep."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from tfprune.criteria.views import ChannelView, MemberView, WeightView

KernelFunction: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
"""A function from (weights, axis) to one score per position on that axis: a criterion of the kernels alone."""

ChannelScores: TypeAlias = np.ndarray | Sequence[tuple[MemberView, np.ndarray]]
"""One score per channel; or pairs of a member and one score for each of its positions, for the ranking to reduce."""

PROVIDERS: dict[str, str] = dict.fromkeys(
    (
        "activation_magnitude",
        "activation_mean",
        "activation_variance",
        "activation_zeros",
        "gate_gradient",
        "gate_gradient_squared",
        "gradient",
        "hessian_gradient",
        "hessian_weights",
        "input_norm",
        "squared_gradient",
    ),
    "data= of prune_channels",
)
"""Who can provide a statistic, by its name."""


class Criterion:
    """What makes channels or weights important.

    Attributes:
        needs: The names of the statistics that it reads from a view. It is refused where they are not to be had.
        loss: Of which loss they are: `"sampled"`, with labels drawn from what the model answers; `"compiled"`, the
            model's own loss and labels; or a function of `y_true` and `y_pred`.
        temperature: What the logits of a softmax are divided by before labels are drawn, or before the compiled loss.
        comparable: Whether scores of different groups are on one scale, as changes of the loss are, so that they can be
            weighed by what channels cost. Norms are not.
    """

    needs: Collection[str] = ()
    loss: Any = "sampled"
    temperature: float = 1.0
    comparable: bool = False


class ChannelCriterion(Criterion, ABC):
    """A criterion of channels, which sees all members of their group.

    A subclass has one method, `score`. A plain function from `(weights, axis)` to scores is accepted wherever a
    criterion of channels is: it sees one kernel that makes the channels at a time.

    Example:

    >>> class LargestWeight(ChannelCriterion):
    ...     def score(self, view):
    ...         return [(member, np.abs(member.rows).max(axis=1)) for member in view.with_role("producer")]
    """

    @abstractmethod
    def score(self, view: ChannelView) -> ChannelScores:
        """Return how important each channel is; higher means keep.

        Args:
            view: The channels.

        Returns:
            One score per channel; or a list of pairs of a member and one score for each of its positions, which the
            ranking makes one (`Ranking(reduce=...)`).
        """


class WeightCriterion(Criterion, ABC):
    """A criterion of single weights.

    Attributes:
        scope: What its scores can be compared with: `"global"` all weights of the network, `"local"` those of the same
            kernel, `"output"` those that make the same output.
        sums_to_one: Whether scores are divided by their sum over the network.
        rounds: In how many rounds weights go, if nobody says it.

    Example:

    >>> class Largest(WeightCriterion):
    ...     def score(self, view):
    ...         return np.abs(view.weights)
    """

    scope: ClassVar[Literal["global", "local", "output"]] = "local"
    sums_to_one: ClassVar[bool] = False
    rounds: ClassVar[int] = 1

    @abstractmethod
    def score(self, view: WeightView) -> np.ndarray:
        """Return how important each weight is; higher means keep.

        Args:
            view: The weights of one variable.

        Returns:
            One score per weight, in the shape of the weights.
        """


class KernelCriterion(ChannelCriterion):
    """A plain function as a criterion of channels: it scores each kernel that makes them apart.

    Args:
        function: From (weights, axis) to one score per position on that axis.

    Raises:
        ValueError: When it scores, if the function does not return one score per position.

    Example:

    >>> from tfprune.criteria import l1_norm
    >>> kernel = MemberView("kernel", lambda: np.array([[3.0, 0.0], [4.0, 1.0]]), "producer", None, 1, np.arange(2))
    >>> [scores.tolist() for _, scores in KernelCriterion(l1_norm).score(ChannelView("hidden", 2, (kernel,)))]
    [[7.0, 1.0]]
    """

    def __init__(self, function: KernelFunction) -> None:
        self.function = function

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def score(self, view: ChannelView) -> list[tuple[MemberView, np.ndarray]]:
        """Return the function's scores of each kernel that makes the channels."""
        return [(member, self._of(member)) for member in view.with_role("producer")]

    def _of(self, member: MemberView) -> np.ndarray:
        # A copy, as the function may work in place.
        found = np.asarray(self.function(member.weights.copy(), member.axis))
        if found.shape != member.channels.shape:
            raise ValueError(
                f"The criterion must return one score for each of the {len(member.channels)} channels on axis "
                f"{member.axis} of weights of shape {member.weights.shape}. It returned the shape {found.shape}."
            )
        return found


AnyChannelCriterion: TypeAlias = ChannelCriterion | KernelFunction
"""What is accepted as a criterion of channels."""


def as_channel_criterion(criterion: AnyChannelCriterion, provided: Collection[str] = ()) -> ChannelCriterion:
    """Return a criterion of channels, made of a plain function if need be.

    Args:
        criterion: A `ChannelCriterion`, or a function from (weights, axis) to scores.
        provided: The names of the statistics that there will be.

    Raises:
        TypeError: If it is neither.
        ValueError: If it needs statistics that there will not be.

    Example:

    >>> from tfprune.criteria import l1_norm
    >>> as_channel_criterion(l1_norm)
    l1_norm
    """
    if isinstance(criterion, type):
        raise TypeError(f"criterion must be an object: {criterion.__name__}(), not the class {criterion.__name__}.")
    if isinstance(criterion, WeightCriterion):
        raise TypeError(
            f"{type(criterion).__name__} scores single weights, and channels are to be scored here. Use a criterion of "
            "channels, such as tfprune.criteria.l2_norm or GroupNorm()."
        )
    if not isinstance(criterion, ChannelCriterion):
        if not callable(criterion):
            raise TypeError(
                "criterion must be a ChannelCriterion or a function from (weights, axis) to one score per channel, "
                f"such as tfprune.criteria.l1_norm. Received: {criterion!r}."
            )
        criterion = KernelCriterion(criterion)
    check_needs(criterion, provided)
    return criterion


def as_weight_criterion(criterion: Any, who: str) -> WeightCriterion:
    """Return a criterion of single weights, or raise if it is none.

    Args:
        criterion: What was given.
        who: What it was given to, for the message.

    Raises:
        TypeError: If it is something else; the message says what fits, and where this one would.

    Example:

    >>> from tfprune.criteria import l1_norm
    >>> as_weight_criterion(l1_norm, "prune_weights")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    TypeError: prune_weights prunes single weights, ... l1_norm ... scores channels: tfprune.prune_channels takes it.
    """
    if isinstance(criterion, WeightCriterion):
        return criterion
    if isinstance(criterion, type):
        raise TypeError(f"criterion must be an object: {criterion.__name__}(), not the class {criterion.__name__}.")
    other = ""
    if isinstance(criterion, ChannelCriterion) or callable(criterion):
        name = getattr(criterion, "__name__", type(criterion).__name__)
        other = f" {name} scores channels: tfprune.prune_channels takes it."
    raise TypeError(
        f"{who} prunes single weights, so criterion must be a WeightCriterion, such as tfprune.criteria.Magnitude() or "
        f"LAMP(). Received: {criterion!r}.{other}"
    )


def check_needs(criterion: Criterion, provided: Collection[str]) -> None:
    """Raise if a criterion needs statistics that there will not be.

    Args:
        criterion: The criterion.
        provided: The names of the statistics that there will be.

    Raises:
        ValueError: The message says what is missing, and who could provide it.
    """
    missing = sorted(set(criterion.needs) - set(provided))
    if missing:
        known = "; ".join(f"{name!r} by {who}" for name, who in PROVIDERS.items())
        raise ValueError(
            f"{type(criterion).__name__} needs the statistics {missing}, which are not provided here. Statistics that "
            f"this version can provide: {known}. Use a criterion of the weights, such as GroupNorm(), or give your "
            "own criterion what it needs when you make it."
        )
