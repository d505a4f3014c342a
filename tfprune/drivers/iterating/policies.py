"""What comes back after a pruning: weights, the optimizer's memory, and the place in the training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tfprune.common.checks import check_count

Source = Literal["trained", "saved", "drawn"]


@dataclass(frozen=True)
class Policy:
    """Base of the policies: what a round begins with, after a pruning, for the weights that are left.

    What is saved is saved before the first step of the dense training, or before the step or epoch that the policy
    names.
    """

    weights: ClassVar[Source] = "trained"
    """Where weights and the statistics of BatchNormalization come from."""
    slots: ClassVar[Source] = "trained"
    """Where what the optimizer remembers of each weight comes from."""
    goes_on: ClassVar[bool] = False
    """Whether training goes on behind its end, instead of being repeated from what is saved."""
    at_end: ClassVar[bool] = False
    """Whether the saved weights come back only once, when all rounds are done."""

    @property
    def point(self) -> int:
        """Before which step or epoch the state is saved."""
        return 0

    @property
    def counts_steps(self) -> bool:
        """Whether the point is a step."""
        return False

    def optimizer_source(self) -> Source:
        """Return where the slots come from."""
        return self.slots

    def settings(self) -> dict[str, object]:
        """Return what tells it from others, as plain values."""
        return {"rewind": type(self).__name__, **vars(self)}


@dataclass(frozen=True)
class FineTune(Policy):
    """Nothing comes back: the weights that are left are trained on.

    The optimizer keeps what it remembers, and its schedule of the learning rate goes on where it was.

    Reference: Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015,
    https://arxiv.org/abs/1506.02626

    Attributes:
        epochs: Epochs of each fine-tuning; None for as many as the dense training has.
        learning_rate: A constant rate for it; None for the rate with which the training ends.

    Example:

    >>> FineTune(epochs=5, learning_rate=1e-3).epochs
    5
    """

    epochs: int | None = None
    learning_rate: float | None = None
    goes_on: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        rate = self.learning_rate
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < float("inf")):
            raise ValueError(f"learning_rate must be a number above 0, or None. Received: {rate!r}.")


@dataclass(frozen=True)
class InitialWeights(Policy):
    """The weights that training began with come back in every round: the lottery ticket, strategy 1.

    Reference: Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635

    Example:

    >>> InitialWeights().settings()
    {'rewind': 'InitialWeights'}
    """

    weights: ClassVar[Source] = "saved"
    slots: ClassVar[Source] = "saved"


@dataclass(frozen=True)
class InitialWeightsAtEnd(Policy):
    """Rounds train on what is left, and the initial weights come back once, behind the last: strategy 2.

    Reference: Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635,
    appendix B

    Attributes:
        epochs: Epochs of each round between; None for as many as the dense training has.

    Example:

    >>> InitialWeightsAtEnd(epochs=2).epochs
    2
    """

    epochs: int | None = None
    goes_on: ClassVar[bool] = True
    at_end: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_count("epochs", self.epochs)


@dataclass(frozen=True)
class _ToPoint(Policy):
    """What is repeated from a step or an epoch on."""

    epoch: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        if (self.epoch is None) == (self.step is None):
            raise ValueError(f"Give either epoch or step. Received: epoch={self.epoch!r}, step={self.step!r}.")
        if isinstance(self.point, bool) or not isinstance(self.point, int) or self.point < 0:
            raise ValueError(f"epoch or step must be a whole number of at least 0. Received: {self.point!r}.")

    @property
    def point(self) -> int:
        """Before which step or epoch the state is saved."""
        found = self.step if self.epoch is None else self.epoch
        assert found is not None
        return found

    @property
    def counts_steps(self) -> bool:
        """Whether the point is a step."""
        return self.step is not None


@dataclass(frozen=True)
class Rewind(_ToPoint):
    """Weights, optimizer and the place in the training come back from an early step or epoch: late rewinding.

    Reference: Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020,
    https://arxiv.org/abs/1912.05671

    Attributes:
        epoch: Before which epoch the state is saved, counted from 0: so many epochs have been trained by then.
        step: Before which step, counted from 0. Give either this or `epoch`.
        optimizer: What the optimizer remembers of each weight: `"saved"` brings it back, `"new"` begins without.

    Example:

    >>> Rewind(step=500).point
    500
    """

    optimizer: Literal["saved", "new"] = "saved"
    weights: ClassVar[Source] = "saved"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in ("saved", "new"):
            raise ValueError(f'optimizer must be "saved" or "new". Received: {self.optimizer!r}.')

    def optimizer_source(self) -> Source:
        """Return where the slots come from."""
        return "saved" if self.optimizer == "saved" else "drawn"


@dataclass(frozen=True)
class RewindLearningRate(_ToPoint):
    """The learning rate's schedule alone comes back; weights and what the optimizer remembers stay as trained.

    The usual choice repeats the whole training: `RewindLearningRate(epoch=0)`.

    Reference: Renda et al., Comparing Rewinding and Fine-tuning in Neural Network Pruning, ICLR 2020,
    https://arxiv.org/abs/2003.02389

    Attributes:
        epoch: From which epoch on the training is repeated.
        step: From which step on. Give either this or `epoch`.

    Example:

    >>> RewindLearningRate(epoch=0).point
    0
    """


@dataclass(frozen=True)
class Reinitialize(Policy):
    """Weights are drawn anew in every round: the control that shows what the initial weights are worth.

    Reference: Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635

    Example:

    >>> Reinitialize().settings()
    {'rewind': 'Reinitialize'}
    """

    weights: ClassVar[Source] = "drawn"
    slots: ClassVar[Source] = "drawn"
