"""What all callbacks that prune single weights share: which weights, when, by how much, and that zeros never leak."""

import random
import warnings
from abc import abstractmethod
from typing import Any, ClassVar, Literal, NoReturn

import keras
import numpy as np
from keras import ops

from tfprune.callbacks.active_schedule import ActiveSchedule
from tfprune.criteria import Magnitude, WeightCriterion, as_weight_criterion
from tfprune.distributions import Distribution
from tfprune.granularity import Granularity, Unstructured, check_granularity
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.parts.kernels import Kernel
from tfprune.parts.lazy_arrays import Arrays, LazyArrays
from tfprune.parts.weight_choice import Choice, scores_of
from tfprune.schedules import Schedule, ScheduleLike, as_schedule
from tfprune.training.clock import Clock
from tfprune.training.foreign_updates import ForeignUpdates
from tfprune.training.masks import HeldMasks, held_by_others, recorded_mask
from tfprune.training.step import CapturedGradients

FEWEST_STEPS = 5
"""Weights that have grown need about so many steps before they can be told from useless ones."""


class SparseTraining(keras.callbacks.Callback):
    """Base of the callbacks that prune single weights and hold them at zero in every training step.

    A subclass says with which masks training starts (`start_masks`) and what an update makes of them (`update_masks`).
    This class finds the weights, counts the steps, asks for gradients where the subclass grows by them, holds the
    masks, and logs `sparsity`, the fraction of weights that are pruned.

    Masks travel with the weights (a pruned weight is -0.0, a living zero +0.0), and the place in the schedule follows
    from the epoch at which `fit` starts. So a `fit` goes on where an earlier one ended after `save` and `load_model`
    (give `initial_epoch`), and after `BackupAndRestore`, wherever it stands in the list of callbacks.

    An update that falls due within `steps_per_execution` steps is made after them. New weights are not grown after the
    last step of a `fit`, where they would not be trained, unless the schedule has an `end` beyond it: then training
    goes on.

    Arrays of all kernels come as a mapping that makes each one when it is asked for, so that an update of a large model
    needs memory for one kernel at a time. Take them one by one, and keep none.

    Args:
        schedule: When masks are updated, and by how much: a schedule, a number, or a function of the step.
        distribution: How sparsity is split over layers.
        granularity: What is pruned together.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        overrides: A sparsity of their own for some layers, which then count neither in the total nor for the others.
        seed: Makes random choices repeatable.

    Example:

    >>> from tfprune.distributions import uniform
    >>> class Fixed(SparseTraining):
    ...     def start_masks(self, recorded, time):
    ...         return self.random_masks(recorded, 0.5)
    ...     def update_masks(self, weights, masks, gradients, time):
    ...         return masks, {}
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> callback = Fixed(0.0, uniform)
    >>> model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[callback]).history["sparsity"]
    [0.5]
    """

    default_end: ClassVar[float | None] = None
    """Where a schedule without an `end` ends, as a fraction of the training; `None` for never."""
    scheduled: ClassVar[str] = "schedule"
    """What the user's argument is called that the schedule comes from, for messages."""
    rises: ClassVar[bool] = False
    """Whether the schedule's value is a sparsity, which may not fall."""
    gradients: ClassVar[Literal["none", "after_update", "instead_of_update"]] = "none"
    """Whether an update needs the dense gradient of a training step, and whether that step moves the weights."""
    rewires: ClassVar[bool] = True
    """Whether an update only makes new connections, which would be pointless after the last step."""
    ranked_by: WeightCriterion = Magnitude()
    """Which weights go first."""

    def __init__(
        self,
        schedule: ScheduleLike,
        distribution: Distribution,
        granularity: Granularity | None = None,
        exclude: Exclude = None,
        overrides: Overrides = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.schedule = as_schedule(self.scheduled, schedule)
        self.distribution = distribution
        given = granularity or Unstructured()
        self.granularity: Granularity = check_granularity(given, Granularity, type(self).__name__)  # type: ignore[type-abstract]
        self.exclude = exclude
        self.overrides = overrides
        # Drawn as Keras draws the seeds of its layers, so that keras.utils.set_random_seed makes it repeatable.
        self.seed = random.randint(0, 2**31 - 1) if seed is None else _check_seed(seed)
        self._kernels: dict[str, Kernel] = {}
        self._held: HeldMasks | None = None
        self._captured: CapturedGradients | None = None
        self._foreign: ForeignUpdates | None = None

    @abstractmethod
    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Return the masks with which training starts.

        Args:
            recorded: The masks that the weights carry from earlier training; all True where there was none.
            time: The place in the schedule, in its unit.

        Returns:
            The masks by kernel name.
        """

    @abstractmethod
    def update_masks(self, weights: Arrays, masks: Arrays, gradients: Arrays, time: int) -> tuple[Arrays, Arrays]:
        """Return the masks after an update, and which weights start anew at zero.

        Args:
            weights: The weights by kernel name.
            masks: The masks that hold now.
            gradients: The dense gradients, if `gradients` asks for them; otherwise empty.
            time: The place in the schedule, in its unit.

        Returns:
            The new masks, and bool arrays that are True where a weight starts anew; both by kernel name.
        """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the weights and check the schedule; errors come here, before time is spent."""
        self._choice = Choice.of(self.model, self.granularity, self.exclude, self.overrides)
        self._kernels = self._choice.kernels
        if not self._kernels:
            raise ValueError(
                f"{type(self).__name__} finds no weights to prune in {self.model.name!r}: it has no trainable layer "
                "with a kernel that is not excluded. Depthwise kernels are pruned only if `overrides` names them."
            )
        self._clock = Clock(self, self.schedule.unit, takes_a_step=self.gradients == "instead_of_update")
        self._active = self._in_time(self.scheduled, self.schedule, self.default_end, self.rises)
        self._warn_of_early_end()
        self._held = self._captured = self._foreign = None
        self._started = False
        self._waiting: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start in the first epoch: later than `on_train_begin`, where `BackupAndRestore` loads weights."""
        self._clock.start_epoch(epoch)
        if not self._started:
            self._start()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ask for the gradient of a step that is to come, if an update will need it."""
        self._clock.start_batch(batch)
        if self._foreign is not None:
            self._foreign.start_steps()
        if self._captured is not None:
            ahead = self._clock.planned(self._due)
            if ahead is not None:
                self._captured.arm(ahead)
                self._waiting = self._clock.time_of(ahead)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Update the masks if it is time."""
        self._clock.end_batch(batch)
        error = None if self._foreign is None else self._foreign.end_steps()
        if error is not None:
            self._release()
            raise error
        if self._captured is None:
            time = self._clock.passed(self._due)
            if time is not None:
                self._update(time, {})
        elif self._waiting is not None:
            gradients = self._captured.take()
            # In mixed precision a step whose gradients overflow is not made; then the next one serves.
            if gradients is not None:
                time, self._waiting = self._waiting, None
                if self._due(time):
                    self._update(time, LazyArrays(self._kernels, lambda name: gradients[self._kernels[name].path]))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Update before validation, if the number of steps was not known."""
        self._end_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the sparsity."""
        self._end_epoch()
        if logs is not None and self._held is not None:
            logs["sparsity"] = self.sparsity

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the optimizer go; the zeros stay."""
        if self._held is not None:
            self._adopt_restored_weights()
        self._release()

    @property
    def masks(self) -> Arrays:
        """The masks that hold now, by kernel name."""
        return {} if self._held is None else {n: self._held.masks[k.path] for n, k in self._kernels.items()}

    @property
    def sparsity(self) -> float:
        """The fraction of weights that are pruned and zero, over all layers that this callback prunes."""
        pruned = sum(int((~mask & (self._kernels[n].variable.numpy() == 0)).sum()) for n, mask in self.masks.items())
        return pruned / sum(mask.size for mask in self.masks.values())

    def prune(
        self, scores: Arrays, sparsity: float, *, progress: float = 1.0, distribution: Distribution | None = None
    ) -> Arrays:
        """Return masks that prune the lowest scores, split over layers by the distribution.

        Args:
            scores: By kernel name; higher means keep.
            sparsity: The fraction of all weights to prune, in [0, 1).
            progress: How much of the sparsities in `overrides` is due.
            distribution: Another distribution than the callback's own.

        Returns:
            The masks by kernel name.
        """
        return self._choice.masks(scores, sparsity, progress, distribution or self.distribution, self.ranked_by.scope)

    def prune_smallest(self, weights: Arrays, masks: Arrays, sparsity: float, final: float | None) -> Arrays:
        """Return masks without the smallest weights, or those lowest by `ranked_by`; what is pruned stays pruned.

        Args:
            weights: By kernel name.
            masks: The masks that hold now, by kernel name.
            sparsity: The fraction of weights to prune now.
            final: What it will be in the end: `overrides` follow in proportion. None if nobody knows.

        Returns:
            The masks by kernel name.
        """
        scores = scores_of(self.ranked_by, weights, masks)
        chosen = self.prune(scores, sparsity, progress=self._progress(sparsity, final))
        for name, mask in chosen.items():
            np.logical_and(mask, masks[name], out=mask)
        return chosen

    def random_masks(self, recorded: Arrays, sparsity: float) -> Arrays:
        """Return random masks; or the recorded ones, if as many weights live in them.

        They may be split otherwise over the layers, in which each number is rounded.

        Args:
            recorded: The masks that the weights carry.
            sparsity: The fraction of weights to prune.

        Returns:
            The masks by kernel name.
        """
        masks = self.prune(self.random_scores(0), sparsity)
        if all(mask.all() for mask in recorded.values()):
            return masks
        difference = sum(int(recorded[name].sum()) - int(mask.sum()) for name, mask in masks.items())
        if abs(difference) <= len(masks):
            return recorded
        warnings.warn(
            f"{self.model.name!r} was pruned before, to other numbers of weights than {type(self).__name__} holds. "
            "It starts anew from a random mask.",
            stacklevel=2,
        )
        return masks

    def random_scores(self, time: int) -> Arrays:
        """Return uniform random numbers for every weight, which depend on the seed, the kernel and the time only."""
        index = {name: number for number, name in enumerate(self._kernels)}

        def score(name: str) -> np.ndarray:
            random = np.random.default_rng([self.seed, time, index[name]])
            return random.random(self._kernels[name].variable.shape, dtype=np.float32)

        return LazyArrays(index, score)

    def value(self, time: int) -> float:
        """Return the value of the schedule at a time, in its unit; a ValueError if that is out of range."""
        return self._active.value(time)

    def _in_time(self, argument: str, schedule: Schedule, default_end: float | None, rises: bool) -> ActiveSchedule:
        """A schedule in the time of this `fit`."""
        return ActiveSchedule(argument, schedule, self._clock, default_end, rises=rises)

    def _progress(self, sparsity: float, final: float | None) -> float:
        """How much of the sparsities in `overrides` is due."""
        if final is None and self._choice.own:
            raise ValueError(
                f"`overrides` follow in proportion to the final {self.scheduled}, but nobody knows when training ends. "
                "Give the schedule an `end`, or pass steps_per_epoch to fit."
            )
        return sparsity / final if final else 1.0

    def _warn_of_haste(self, schedule: Schedule) -> None:
        """Warn where new weights have too few steps to prove themselves before the next update."""
        if schedule.unit == "steps" and schedule.frequency < FEWEST_STEPS:
            steps = "every step" if schedule.frequency == 1 else f"every {schedule.frequency} steps"
            taken = " Each update also takes the place of a step." if self.gradients == "instead_of_update" else ""
            warnings.warn(
                f"{type(self).__name__} replaces weights {steps}, so that new ones are dropped before they have "
                f"learnt anything.{taken} Give the schedule a frequency of "
                f"at least {FEWEST_STEPS} steps; 100 is usual.",
                stacklevel=3,
            )

    def _warn_of_early_end(self) -> None:
        end, total = self._active.end, self._clock.total
        if total is not None and not self.rewires and end is not None and end > total:
            warnings.warn(
                f"{type(self).__name__} reaches its sparsity at {end} {self._active.unit}, but this fit ends at "
                f"{total}, at a sparsity of {self.schedule.value(total):.3g}.",
                stacklevel=2,
            )

    def _start(self) -> None:
        if self._clock.steps is None and self._active.unit == "epochs" and self.gradients != "none":
            raise ValueError(
                f"{type(self).__name__} grows weights by the gradient of an epoch's last step, but the number of steps "
                'per epoch is unknown. Pass steps_per_epoch to fit, or count in steps (unit="steps").'
            )
        self._started = True
        others = held_by_others(self.model, self.params)
        recorded = {
            name: recorded_mask(kernel.variable) | ~others.get(kernel.path, np.True_)
            for name, kernel in self._kernels.items()
        }
        self._check_finite()
        masks = self.start_masks(recorded, self._clock.now)
        self._held = HeldMasks(self.model, self._by_path(masks), self.params)
        variables = [kernel.variable for kernel in self._kernels.values()]
        self._foreign = ForeignUpdates(type(self).__name__, self._held, variables)
        if self.gradients != "none":
            self._captured = CapturedGradients(
                self.model,
                variables,
                replaces_update=self.gradients == "instead_of_update",
                run=self.params,
            )

    def _due(self, time: int) -> bool:
        return self.due(time) and not (self.rewires and self._active.ends)

    def due(self, time: int) -> bool:
        """Whether masks are updated at a time, in the unit of the schedule."""
        return self._active.due(time)

    def _end_epoch(self) -> None:
        if not (self._started and self._clock.end_epoch() and self._active.unit == "epochs"):
            return
        if self._due(self._clock.now) and self._captured is None:
            self._update(self._clock.now, {})
        elif self._due(self._clock.now):
            warnings.warn(
                f"The data ended before the {self._clock.steps} steps of the epoch, so {type(self).__name__} has no "
                "gradient of its last step to grow by, and leaves this update out. Lower steps_per_epoch.",
                stacklevel=2,
            )

    def _update(self, time: int, gradients: Arrays) -> None:
        assert self._held is not None
        for name, gradient in gradients.items():
            if not np.isfinite(gradient).all():
                self._stop(f"The gradient of {name!r} is not finite")
        self._check_finite()
        masks, fresh = self.update_masks(self._weights(), self.masks, gradients, time)
        self._held.update(self._by_path(masks), self._by_path(fresh))

    def _weights(self) -> LazyArrays:
        return LazyArrays(self._kernels, lambda name: self._kernels[name].variable.numpy())

    def _check_finite(self) -> None:
        for name, kernel in self._kernels.items():
            if not bool(ops.all(ops.isfinite(kernel.variable))):
                self._stop(f"{name!r} has weights that are not finite")

    def _stop(self, what: str) -> NoReturn:
        self._release()
        raise ValueError(
            f"{what}, so {type(self).__name__} cannot rank them, and training stops. The masks are as they were. "
            "Lower the learning rate, or clip gradients (clipnorm=1.0)."
        )

    def _release(self) -> None:
        self._clock.stop()
        if self._captured is not None:
            self._captured.detach()
        if self._held is not None:
            self._held.release()
        self._held = self._captured = self._foreign = None

    def _adopt_restored_weights(self) -> None:
        """Keep the masks that weights carry which another callback has brought back from an earlier epoch."""
        assert self._held is not None
        held = self._held.masks
        variables = {kernel.path: kernel.variable for kernel in self._kernels.values()}
        revived = sum(int(((v.numpy() != 0) & ~held[path]).sum()) for path, v in variables.items())
        earlier = {kernel.path: recorded_mask(kernel.variable) for kernel in self._kernels.values()}
        if revived and all(mask.sum() == held[path].sum() for path, mask in earlier.items()):
            self._held.masks |= earlier
        elif revived:
            self._held.update(dict(held))  # a weight that lives now, but did not then, is a living zero
            warnings.warn(
                f"Another callback has brought back weights from before {type(self).__name__} had pruned as far as it "
                f"did: {revived} weights that were alive then are zero now. Let early stopping begin after the "
                "schedule ends (EarlyStopping(start_from_epoch=...)).",
                stacklevel=2,
            )

    def _by_path(self, arrays: Arrays) -> dict[str, np.ndarray]:
        return {self._kernels[name].path: array for name, array in arrays.items()}


def without_data(criterion: WeightCriterion, who: str) -> WeightCriterion:
    """Return a criterion that a callback can use, or raise: there are weights to look at, and no data.

    Args:
        criterion: What the user gave.
        who: The callback.

    Raises:
        TypeError: If it is no criterion of single weights.
        ValueError: If it needs statistics.
    """
    criterion, name = as_weight_criterion(criterion, who), type(criterion).__name__
    if criterion.needs:
        raise ValueError(
            f"{name} needs the statistics {sorted(criterion.needs)}, and {who} sees the weights alone. Prune before "
            f"fit: tfprune.prune_weights(model, sparsity, criterion={name}(), data=...); MagnitudePruning(0.0) then "
            "holds what it has pruned."
        )
    return criterion


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number that is not negative, or None. Received: {seed!r}.")
    return seed
