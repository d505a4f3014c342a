"""What all callbacks share that push whole structures to zero: strength, logs, and layers that must not vanish."""

import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfprune.callbacks.active_schedule import ActiveSchedule
from tfprune.callbacks.narrowing import Narrowable
from tfprune.callbacks.penalties.strength import Strength
from tfprune.common.checks import check_count, check_not_negative
from tfprune.graph import ChannelGroup, channel_groups
from tfprune.graph.exclude import Exclude
from tfprune.parts.channels import channel_masks
from tfprune.parts.structures import Structure
from tfprune.schedules import Schedule, ScheduleLike, as_schedule
from tfprune.training.clock import Clock
from tfprune.training.foreign_updates import ForeignUpdates
from tfprune.training.masks import Masks, apply_masks, merge_masks, variables_by_path
from tfprune.training.optimizers import updating_optimizers
from tfprune.training.step import Gradients, StepHook, Weight, averages_by_path


class SparsityRegularization(keras.callbacks.Callback, Narrowable):
    """Base of the callbacks that push whole structures to zero, in every training step.

    A subclass finds the structures (`find_structures`), and pulls at them through the gradients that the optimizer
    sees (`pull_gradients`), or through the weights after its update (`pull_weights`), or both. This class keeps the
    strength, logs `regularization_loss` and `channels_below_threshold` for every epoch, warns where a layer is left
    with `min_channels`, and when training ends makes dead parts zero throughout: themselves, and of dead channels all
    that makes and carries them (kernels, biases, beta), so that `tfprune.shrink` removes them.

    Args:
        strength: How hard to pull: a number of at least 0, a function from the step to it, or a schedule.
        threshold: Parts whose norm is at most this count as dead.
        min_channels: How many parts of every structure always stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Example:

    >>> from tfprune.parts.structures import coupled
    >>> class Decay(SparsityRegularization):
    ...     def find_structures(self, groups):
    ...         return coupled(groups)
    ...     def pull_weights(self, weight, rate, strength):
    ...         slices = [each for structure in self.structures for each in structure.slices]
    ...         return [(each.variable, weight(each.variable) * (1 - rate * strength)) for each in slices]
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[Decay(0.1, threshold=1e-3)])
    >>> history.history["channels_below_threshold"]
    [0]
    """

    def __init__(
        self, strength: ScheduleLike, threshold: float, min_channels: int = 1, exclude: Exclude = None
    ) -> None:
        super().__init__()
        self.strength = check_strength(strength)
        self.threshold = check_not_negative("threshold", threshold)
        self.min_channels = check_count("min_channels", min_channels)
        self.exclude = exclude
        self.structures: tuple[Structure, ...] = ()
        self._hook: StepHook | None = None
        self._foreign: ForeignUpdates | None = None
        self._dense_sizes: tuple[int, ...] = ()

    @abstractmethod
    def find_structures(self, groups: Sequence[ChannelGroup]) -> Sequence[Structure]:
        """Return what is to be pushed to zero.

        Args:
            groups: The free channel groups of the model.
        """

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Return other gradients for the optimizer, inside the compiled step.

        Args:
            gradients: By variable path, of this replica.
            strength: The strength, as a scalar tensor; already divided by the number of replicas, whose gradients are
                summed, and scaled as the gradients are.

        Returns:
            Those that change, by variable path.
        """
        return {}

    def pull_weights(self, weight: Weight, rate: Any, strength: Any) -> Sequence[tuple[keras.Variable, Any]]:
        """Return other weights after the optimizer's update, inside the compiled step.

        Args:
            weight: From a variable to its value.
            rate: The learning rate of the update, as a scalar tensor; 0 in steps that only accumulate gradients.
            strength: The strength, as a scalar tensor.

        Returns:
            Variables and their new values. What becomes 0 does so in the moving average of `use_ema` as well.
        """
        return ()

    @property
    def optimizer(self) -> Any:
        """The optimizer whose update is being made, inside the compiled step."""
        assert self._hook is not None
        return self._hook.optimizer

    def moves_with(self, structure: Structure) -> bool:
        """Whether what a penalty remembers of a structure moves with the update that is being made.

        Several optimizers may train a model, also one structure, which then moves with the first variable.
        """
        assert self._hook is not None
        return structure.slices[0].variable.path in self._hook.updated

    def penalty(self) -> float:
        """Return the penalty of the weights as they are now, without the strength."""
        return sum(float(ops.sum(ops.sqrt(s.squared_norms(ops.convert_to_tensor)))) for s in self.structures)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the structures; errors come here, before time is spent."""
        for optimizer in updating_optimizers(self.model):
            if not hasattr(optimizer, "learning_rate"):  # MultiOptimizer
                raise ValueError(
                    f"{type(self).__name__} needs the learning rate of each step, and {type(optimizer).__name__} has "
                    "none of its own. Compile the model with one optimizer for all weights."
                )
        variables_by_path(self.model)
        groups = channel_groups(self.model, self.exclude)
        self.structures = tuple(structure for structure in self.find_structures(groups.free) if structure.slices)
        if not self.structures:
            raise ValueError(f"{type(self).__name__} finds nothing to prune in {self.model.name!r}.\n{groups}")
        sizes = tuple(structure.size for structure in self.structures)
        self._dense_sizes = self.take_over(self._dense_sizes, sizes)
        self._warned: set[Structure] = set()
        self._started = False
        self._clock, self._given = self._timed()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start in the first epoch, where `BackupAndRestore` has loaded weights; set the strength of the epoch."""
        self._clock.start_epoch(epoch)
        if not self._started:
            self._start(epoch)
        if self._clock.unit == "epochs":
            self._strength.prepare()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the strengths of the steps that run as one."""
        self._clock.start_batch(batch)
        if self._foreign is not None:
            self._foreign.start_steps()
        if self._clock.unit == "steps":
            self._strength.prepare()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps."""
        self._clock.end_batch(batch)
        self._strength.note()
        error = None if self._foreign is None else self._foreign.end_steps()
        if error is not None:
            self._let_go()
            raise error

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the penalty and the dead channels, and warn where a layer is at its minimum."""
        self._clock.end_epoch()
        dead = self.dead()
        for structure, parts in dead.items():
            self._warn_at_minimum(structure, parts)
        if logs is not None:
            logs["regularization_loss"] = self._strength_now() * self.penalty()
            logs["channels_below_threshold"] = self.num_left + sum(int(parts.sum()) for parts in dead.values())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the optimizer go, and make dead parts zero throughout."""
        if self._let_go() and self.strength != 0:
            apply_masks(self.model, self.dead_masks())

    @property
    def num_left(self) -> int:
        """How many parts have left the model since training began, where it goes on in smaller models."""
        return sum(self._dense_sizes) - sum(structure.size for structure in self.structures)

    def why_not_narrower(self) -> str:
        """Return why training cannot go on in smaller models."""
        return "its channels become zero when training ends, so that none could leave before"

    def pause(self) -> None:
        """Let the optimizer go, without the end of training."""
        self._let_go()

    def dead(self) -> dict[Structure, np.ndarray]:
        """Return, for each structure, which parts have a norm of at most `threshold`; `min_channels` never do."""
        found = {}
        for structure in self.structures:
            squared = structure.squared_norms(ops.convert_to_tensor)
            stay = ops.convert_to_numpy(structure.largest(squared, self.min_channels, "float32")) > 0
            found[structure] = (ops.convert_to_numpy(squared) <= self.threshold**2) & ~stay
        return found

    def dead_masks(self) -> Masks:
        """Return masks of the parts that are dead, and of all that makes and carries the channels among them."""
        return self.masks_of(self.dead())

    def masks_of(self, gone: Mapping[Structure, np.ndarray]) -> Masks:
        """Return masks of parts, and of all that makes and carries the channels among them.

        Args:
            gone: For each structure one bool per part, True for those that go.
        """
        masks: Masks = {}
        for structure, parts in gone.items():
            merge_masks(masks, structure.masks(parts))
            if structure.group is not None:
                keep = ~structure.group.keep_one_each(parts)
                merge_masks(masks, channel_masks([(structure.group, keep)], ("producer", "affine")))
        return masks

    def _warn_at_minimum(self, structure: Structure, dead: np.ndarray) -> None:
        for parts in structure.holders:
            left = len(parts) - int(dead[parts].sum())
            if left <= self.min_channels < len(parts) and structure not in self._warned:
                self._warned.add(structure)
                warnings.warn(
                    f"{type(self).__name__} has left {left} of {len(parts)} parts of {structure.name!r}, as few as "
                    "min_channels allows. If that is too few, lower the strength, or exclude the layer.",
                    stacklevel=3,
                )

    def _let_go(self) -> bool:
        """Let the optimizers go; return whether there was anything to let go."""
        self._clock.stop()
        hook, self._hook, self._foreign = self._hook, None, None
        if hook is not None:
            hook.detach()
        return hook is not None

    def _timed(self) -> tuple[Clock, float | ActiveSchedule]:
        """The clock, and the strength in its time."""
        if not isinstance(self.strength, Schedule):
            return Clock(self), self.strength
        clock = Clock(self, self.strength.unit)
        return clock, ActiveSchedule("strength", self.strength, clock, default_end=1.0, limit=float("inf"))

    def _start(self, epoch: int) -> None:
        self._started = True
        self._strength = Strength(self.model, self._clock, self._given)
        self._hook = _Pull(self)
        variables = {id(each.variable): each.variable for structure in self.structures for each in structure.slices}
        self._foreign = ForeignUpdates(type(self).__name__, self._hook, variables.values())

    def _strength_now(self) -> float:
        return float(self._strength.numpy())


class _Pull(StepHook):
    """The training step's side of a `SparsityRegularization`."""

    def __init__(self, callback: SparsityRegularization) -> None:
        self._callback = callback
        self._replicas = callback.model.distribute_strategy.num_replicas_in_sync
        self._kept = threading.local()  # replicas run in threads
        super().__init__(callback.model, callback.params)

    def before_update(self, gradients: Gradients) -> Gradients:
        # When the optimizer has counted the step, a schedule gives the rate of the next. Without tf.identity, a rate
        # that is a variable would be read only where it is used.
        self._kept.rate = tf.identity(ops.cast(self.optimizer.learning_rate, "float32"))
        self._kept.gradients = [_tensor(each) for each in gradients.values()]
        strength = self._callback._strength.tensor() / self._replicas
        return self._callback.pull_gradients(gradients, strength * (self.optimizer.loss_scale_factor or 1.0))

    def after_update(self, weight: Weight) -> Sequence[tuple[keras.Variable, Any]]:
        rate = self._kept.rate
        every = self.optimizer.gradient_accumulation_steps
        if every:
            # Every call of the optimizer counts here; its property `iterations` counts updates.
            calls = ops.convert_to_tensor(self.optimizer.variables[0])
            rate = rate * ops.cast(tf.equal(calls % every, 0), rate.dtype)
        strength = self._callback._strength.tensor()
        # Where data of unknown length runs out, Keras finds out within a step, of which everything runs that needs no
        # data. What a penalty remembers must not move then.
        with tf.control_dependencies(self._kept.gradients):
            pulled = list(self._callback.pull_weights(weight, rate, strength))
        kept = averages_by_path(self._callback.model)
        averages = [(average, value) for v, value in pulled for average in kept.get(v.path, ())]
        zeroed = [(average, ops.where(ops.equal(v, 0), ops.zeros_like(v), weight(average))) for average, v in averages]
        return pulled + zeroed


def _tensor(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient  # of an Embedding


def check_strength(strength: ScheduleLike) -> float | Schedule:
    """Return the strength of a penalty: a number of at least 0, or a schedule, which may be a function of the step.

    Args:
        strength: What was given.

    Raises:
        ValueError: If it is neither.
    """
    if callable(strength) or isinstance(strength, Schedule):
        return as_schedule("strength", strength)
    return check_not_negative("strength", strength)


def add_to(gradients: Gradients, pulls: Iterable[tuple[keras.Variable, Any]]) -> Gradients:
    """Return gradients with something added; variables that have no gradient are left out.

    Args:
        gradients: By variable path.
        pulls: Variables and what to add.

    Returns:
        Those that change, by variable path.
    """
    # Of an Embedding they come as slices.
    return {
        variable.path: tf.convert_to_tensor(gradients[variable.path]) + ops.cast(pull, gradients[variable.path].dtype)
        for variable, pull in pulls
        if variable.path in gradients
    }
