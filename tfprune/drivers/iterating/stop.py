"""When rounds end."""

from dataclasses import dataclass

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
