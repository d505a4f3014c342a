"""Which residual blocks a model could do without: by how little they change, or how little is lost without them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tfprune.criteria.base import Criterion


@dataclass(frozen=True)
class BlockView:
    """What a criterion sees of a block; read only.

    Attributes:
        name: The name of the block.
        layers: The names of its layers with weights.
        num_parameters: How many weights go with it.
        statistics: What data says about it, by name.
    """

    name: str
    layers: tuple[str, ...]
    num_parameters: int
    statistics: Mapping[str, float] = field(default_factory=dict)


class BlockCriterion(Criterion, ABC):
    """A criterion of residual blocks.

    Example:

    >>> class Largest(BlockCriterion):
    ...     def score(self, view):
    ...         return view.num_parameters
    """

    @abstractmethod
    def score(self, view: BlockView) -> float:
        """Return how important a block is; higher means keep.

        Args:
            view: The block.
        """


@dataclass(frozen=True)
class BlockInfluence(BlockCriterion):
    """How much a block turns what passes through it: one minus the cosine of its input and its output.

    The cosine is that of the vectors along the last axis: of the channels at every position of every sample. Its mean
    over them is 0 for a block that adds nothing, whatever it costs. No labels are needed. Where input or output is zero
    there is no angle; the cosine counts as 0.5 there, as in the published code.

    Reference: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024,
    https://arxiv.org/abs/2403.03853

    Args:
        angular: Whether to take the angle instead, as a fraction of half a turn: arccos(cosine) / pi.

    Example:

    >>> view = BlockView("add", (), 0, {"cosine_distance": 0.25, "angular_distance": 0.2})
    >>> BlockInfluence().score(view), BlockInfluence(angular=True).score(view)
    (0.25, 0.2)
    """

    angular: bool = False
    needs = ("cosine_distance", "angular_distance")

    def score(self, view: BlockView) -> float:
        """Return the mean distance between the block's input and its output."""
        return view.statistics["angular_distance" if self.angular else "cosine_distance"]


@dataclass(frozen=True)
class LossChange(BlockCriterion):
    """What the loss rises by when a block is left out, one block at a time.

    Reference: Kim et al., Shortened LLaMA: Depth Pruning for Large Language Models with Comparison of Retraining
    Methods, 2024, https://arxiv.org/abs/2402.02834

    Args:
        loss: `"divergence"` from the model's own answers, which needs no labels: the Kullback-Leibler divergence of
            probabilities, the mean squared error of other numbers; or `"compiled"`, the loss of labels that the model
            was compiled with.

    Example:

    >>> LossChange().score(BlockView("add", (), 0, {"divergence_change": 0.5}))
    0.5
    """

    loss: Literal["divergence", "compiled"] = "divergence"

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The change of this loss."""
        return (f"{self.loss}_change",)

    def score(self, view: BlockView) -> float:
        """Return the change."""
        return view.statistics[f"{self.loss}_change"]
