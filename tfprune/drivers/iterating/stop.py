"""When rounds end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfprune.common.checks import check_count, check_fraction
from tfprune.shrinking.budget import Budget


@dataclass(frozen=True)
class Stop:
    """When rounds end: whichever of the rules that are given holds first.

    Attributes:
        rounds: After so many rounds of pruning.
        sparsity: After the round in which this fraction of the single weights is pruned, or more.
        budget: After the round in which the model, whose channels are pruned, is within these limits. A fraction is
            relative to the dense model.
        max_loss_factor: When the validation metric falls below this factor times that of the dense model, a number in
            (0, 1]. The round before is returned. (Tan and Motani, DropNet, ICML 2020,
            https://proceedings.mlr.press/v119/tan20a.html)

    Example:

    >>> Stop(rounds=20, max_loss_factor=0.98).rounds
    20
    """

    rounds: int | None = None
    sparsity: float | None = None
    budget: Budget | None = None
    max_loss_factor: float | None = None

    def __post_init__(self) -> None:
        if all(value is None for value in vars(self).values()):
            raise ValueError("Stop needs a rule: rounds, sparsity, budget or max_loss_factor. Received: none.")
        if self.rounds is not None:
            check_count("rounds", self.rounds)
        if self.sparsity is not None and not check_fraction("sparsity", self.sparsity):
            raise ValueError("sparsity must be above 0, or no round is needed.")
        if self.budget is not None:
            if not isinstance(self.budget, Budget):
                raise TypeError(
                    f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {self.budget!r}."
                )
            self.budget.check_counted()
        factor = self.max_loss_factor
        if factor is not None and (isinstance(factor, bool) or not isinstance(factor, int | float)):
            raise TypeError(f"max_loss_factor must be a number in (0, 1]. Received: {factor!r}.")
        if factor is not None and not 0 < factor <= 1:
            raise ValueError(f"max_loss_factor must be a number in (0, 1]. Received: {factor!r}.")

    def settings(self) -> dict[str, object]:
        """Return the rules that are given, as plain values."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {**given, **({"budget": self.budget.limits()} if self.budget else {})}

    def num_rounds(self, fraction: float | None) -> int | None:
        """Return how many rounds there will be at most, by the rules that say so; None if none does.

        Args:
            fraction: What goes of what is left, if that is one number.
        """
        found = [] if self.rounds is None else [self.rounds]
        if self.sparsity is not None and fraction is not None:
            found.append(math.ceil(round(math.log(1 - self.sparsity) / math.log(1 - fraction), 9)))
        return min(found, default=None)

    def accepts(self, facts: Mapping[str, Any], dense: Mapping[str, Any]) -> bool:
        """Return whether a round's score is within `max_loss_factor`.

        Args:
            facts: What is known of the round.
            dense: What is known of the dense training.
        """
        factor = self.max_loss_factor
        return factor is None or bool(facts["score"] >= factor * dense["score"])

    def reached(self, number: int, facts: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
        """Return which rule ends the rounds after this one, in words; an empty text if none does.

        Args:
            number: Of the round.
            facts: What is known of it.
            dense: What is known of the dense training.

        Raises:
            ValueError: If the dense score is not above 0, so that no factor of it is a limit.
        """
        if self.max_loss_factor is not None and not dense["score"] > 0:
            raise ValueError(
                f"max_loss_factor compares with the dense model's score, which is {dense['score']:g}. It has to be "
                "above 0: pass a metric of which higher is better, such as accuracy."
            )
        if not self.accepts(facts, dense):
            limit = f"{self.max_loss_factor:g} times {dense['score']:.4g}"
            return f"round-{number} has the score {facts['score']:.4g}, below {limit}"
        if self.rounds is not None and number >= self.rounds:
            return f"{number} rounds are done"
        if self.sparsity is not None and 1 - facts["left"] / facts["total"] >= self.sparsity:
            return f"the sparsity {self.sparsity:g} is reached"
        if self.budget is not None:
            limits = self.budget.absolute(dense)
            if all(facts[name] <= limit for name, limit in limits.items()):
                return f"the model is within {self.budget}"
        return ""
