"""What is pruned in every round, and how much of what is left."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from tfprune.common.checks import check_choice
from tfprune.criteria import AnyChannelCriterion, Magnitude, WeightCriterion, as_weight_criterion
from tfprune.granularity import Channel, Granularity, Unstructured, check_granularity
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.parts.ranking import AnyRanking


@dataclass(frozen=True)
class PruneWeights:
    """Prune single weights: each round a fraction of those that are left.

    Of a layer with n weights left, or of all layers together, `floor(fraction * n)` go, those with the lowest scores;
    of equal scores the later ones. Every layer keeps its best weight.

    Attributes:
        fraction: The fraction of what is left, in (0, 1). For layers of their own fraction, a dict from layers, or a
            function from a layer to one or None: each is pruned apart, and layers without one stay dense.
        criterion: What makes a weight important.
        ranking: `"local"` prunes each layer alike, as in small networks; `"global"` ranks all layers together, as in
            deep ones.
        granularity: `Unstructured()`, `NofM(2, 4)` or `Block((4, 1))`.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.

    Example:

    >>> PruneWeights(ranking="global").fraction
    0.2
    """

    fraction: float | Overrides = 0.2
    criterion: WeightCriterion = Magnitude()  # noqa: RUF009 (pure)
    ranking: Literal["local", "global"] = "local"
    granularity: Granularity = Unstructured()  # noqa: RUF009 (pure)
    exclude: Exclude = None

    def __post_init__(self) -> None:
        as_weight_criterion(self.criterion, "PruneWeights")
        check_choice("ranking", self.ranking, ("local", "global"))
        check_granularity(self.granularity, Granularity, "PruneWeights")  # type: ignore[type-abstract]
        if not (isinstance(self.fraction, Mapping) or callable(self.fraction)):
            check_part("fraction", self.fraction)
        elif self.ranking == "global":
            raise ValueError(
                'ranking="global" ranks the weights of all layers together, and fractions by layer rank them apart. '
                "Give one fraction, and name what stays dense in `exclude`."
            )

    @property
    def of_each(self) -> float | None:
        """The fraction of what is left, if it is one number for all layers."""
        return float(self.fraction) if isinstance(self.fraction, Real) else None

    def settings(self) -> dict[str, object]:
        """Return what tells it from others, as plain values, but for what functions do."""
        return {
            "prune": "weights",
            "criterion": _described(self.criterion),
            "ranking": self.ranking,
            "granularity": repr(self.granularity),
        }


@dataclass(frozen=True)
class PruneChannels:
    """Remove channels: each round a ratio of those that are left, physically, so that training gets cheaper.

    Of a channel group with n channels left, `floor(ratio * n)` go; with a global ranking, of all groups together.

    Attributes:
        ratio: The ratio of what is left, in (0, 1).
        criterion: What makes a channel important; None for the L2 norm of its kernels. One that reads data gets that of
            the training.
        ranking: See `tfprune.prune_channels`.
        granularity: Which numbers of channels may stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Example:

    >>> PruneChannels(0.1, ranking="global").ratio
    0.1
    """

    ratio: float = 0.2
    criterion: AnyChannelCriterion | None = None
    ranking: AnyRanking = "local"
    granularity: Channel = Channel()  # noqa: RUF009 (pure)
    exclude: Exclude = None

    def __post_init__(self) -> None:
        check_part("ratio", self.ratio)
        check_granularity(self.granularity, Channel, "PruneChannels")

    @property
    def of_each(self) -> float:
        """The ratio of what is left."""
        return self.ratio

    def settings(self) -> dict[str, object]:
        """Return what tells it from others, as plain values, but for what functions do."""
        return {
            "prune": "channels",
            "ratio": self.ratio,
            "criterion": "l2_norm" if self.criterion is None else _described(self.criterion),
            "ranking": self.ranking if isinstance(self.ranking, str) else _described(self.ranking),
            "granularity": repr(self.granularity),
        }


def check_part(name: str, value: Any) -> float:
    """Return a fraction, or raise if it is not a number in (0, 1).

    Args:
        name: What the argument is called.
        value: What was given.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError(f"{name} must be a number in (0, 1): the part of what is left that goes. Received: {value!r}.")
    return float(value)


def _described(item: Any) -> str:
    """The name of a function or a class, with the plain values that an object of it holds; no address of an object."""
    if hasattr(item, "__name__"):
        return str(item.__name__)
    held = {name: value for name, value in vars(item).items() if isinstance(value, str | int | float | bool | None)}
    return f"{type(item).__name__}({', '.join(f'{name}={value!r}' for name, value in sorted(held.items()))})"
