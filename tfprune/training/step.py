"""What happens inside the compiled training step: hooks around the optimizer's update.

For the length of a `fit`, `apply` of the optimizers that train the model is wrapped on the instances: of the model's
own, and of those that a `train_step` of its own may use. Hooks see the gradients before the optimizer does and the
weights after it, in every step: also between the steps of `steps_per_execution`, in mixed precision, compiled by XLA,
and on every replica of a distribution strategy. Nothing of it is saved with the model, and no data argument and no
subclass of the model is needed.
"""

import collections
import functools
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfprune.training.optimizers import optimizer_parts, updating_optimizers

Gradients = Mapping[str, Any]
Weight = Callable[[keras.Variable], Any]


class StepHook:
    """What a callback adds to the optimizer's update.

    Hooks run in the order in which they were attached, those with `last` after all others. Where several optimizers
    train a model, they run in the update of each, which sees the gradients of what it trains and moves nothing else.

    Args:
        model: A built Keras model with an optimizer.
        run: What tells one `fit` from another: the callback's `params`. Hooks that an interrupted `fit` has left
            behind are taken off when a hook of another `fit` is attached, those without `outlasts` when any begins.

    Raises:
        ValueError: If no optimizer of the model is known.
    """

    last = False
    outlasts = False
    """Whether the hook stays where its `fit` is interrupted and another begins without callbacks."""

    def __init__(self, model: keras.Model, run: Any = None) -> None:
        self.run = run
        self._step = TrainingStep.of(model)
        self._step.attach(self)

    @property
    def optimizer(self) -> Any:
        """The optimizer whose update is being made, inside the compiled step."""
        return self._step.optimizer

    @property
    def updated(self) -> set[str]:
        """The paths of the variables of this update, inside the compiled step."""
        return self._step.updated

    @property
    def trained(self) -> set[str]:
        """The paths of all variables that have gone through an update with hooks."""
        return self._step.trained

    def before_update(self, gradients: Gradients) -> Gradients:
        """Return the gradients that the optimizer is to see instead.

        Args:
            gradients: By variable path, the gradients of this replica; variables without a gradient are not in it.

        Returns:
            Those that change, by variable path.
        """
        return {}

    def after_update(self, weight: Weight) -> Sequence[tuple[keras.Variable, Any]]:
        """Return what weights become after the optimizer's update.

        Args:
            weight: From a variable to its value as the hooks before this one have left it.

        Returns:
            Variables and their new values. Weights of the model that this update does not train stay as they are.
        """
        return ()

    def detach(self) -> None:
        """Take this hook off the training step."""
        self._step.detach(self)


class CapturedGradients(StepHook):
    """Keep the dense gradient of one training step: the gradient of all weights, also of the masked ones.

    Where several optimizers train the variables, the step is that of each.

    Args:
        model: A built and compiled Keras model.
        variables: The variables whose gradients are kept, summed over replicas.
        replaces_update: Whether the weights stay as they are in the step whose gradient is kept.
        run: See `StepHook`.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile("sgd", "mse")
    >>> captured = CapturedGradients(model, [model.layers[0].kernel], replaces_update=True)
    >>> captured.arm(steps=0)
    >>> history = model.fit(np.ones((1, 2)), model.predict(np.ones((1, 2)), verbose=0) + 1, verbose=0)
    >>> [gradient.round(4).tolist() for gradient in captured.take().values()]
    [[[-2.0], [-2.0]]]
    >>> captured.detach()
    """

    def __init__(
        self, model: keras.Model, variables: Sequence[keras.Variable], replaces_update: bool, run: Any = None
    ) -> None:
        self.replaces_update = replaces_update
        with model.distribute_strategy.scope():
            self._kept = {v.path: keras.Variable(np.zeros(v.shape), dtype=v.dtype, trainable=False) for v in variables}
            super().__init__(model, run)
            self._countdowns = {
                id(optimizer): keras.Variable(-1, dtype="int32", trainable=False, aggregation="only_first_replica")
                for optimizer in self._step.optimizers
            }
        self._used: set[int] = set()  # the optimizers that have trained any of the variables

    def arm(self, steps: int) -> None:
        """Ask for the gradient of a step to come.

        Args:
            steps: How many steps go before it; 0 for the very next.
        """
        for countdown in self._countdowns.values():
            countdown.assign(steps)

    def take(self) -> dict[str, np.ndarray] | None:
        """Return the gradients by variable path, or `None` while the step that was asked for has not been made."""
        if any(int(self._countdowns[each].numpy()) >= 0 for each in self._used or self._countdowns):
            return None
        return {path: kept.numpy() for path, kept in self._kept.items()}

    def concerns(self, optimizer: Any, variables: Iterable[keras.Variable]) -> bool:
        """Whether an update of these variables has gradients that are kept."""
        found = any(variable.path in self._kept for variable in variables)
        if found:
            self._used.add(id(optimizer))
        return found

    def due(self, optimizer: Any) -> Any:
        """Whether this step of the optimizer is the one that was asked for; a bool tensor."""
        return tf.equal(self._countdowns[id(optimizer)].value, 0)

    def keep(self, strategy: tf.distribute.Strategy, gradients: Gradients) -> None:
        """Store the gradients, in cross-replica context."""
        for path, kept in self._kept.items():
            if path in gradients:
                # Of an Embedding they come as slices.
                dense = strategy.extended.call_for_each_replica(tf.convert_to_tensor, args=(gradients[path],))
                kept.value.assign(tf.cast(strategy.reduce(tf.distribute.ReduceOp.SUM, dense, axis=None), kept.dtype))

    def tick(self, optimizer: Any) -> None:
        """Count the step of the optimizer, in cross-replica context."""
        countdown = self._countdowns[id(optimizer)].value
        countdown.assign(tf.maximum(countdown - 1, -1))


class TrainingStep:
    """The updates of one model's weights, with hooks. Made and found by `TrainingStep.of`.

    Args:
        model: A built Keras model with an optimizer.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.hooks: list[StepHook] = []
        self.trained: set[str] = set()
        """The paths of all variables that have gone through an update with hooks."""
        self._left: list[StepHook] = []  # by a `fit` that was interrupted
        self._updates: list[_Update] = []
        self._now = threading.local()  # replicas run in threads
        self._plain_fit = model.fit
        self._was_own = "fit" in vars(model)

    @classmethod
    def of(cls, model: keras.Model) -> "TrainingStep":
        """Return the training step of a model, with the hooks that it has already.

        Args:
            model: A built Keras model.

        Raises:
            ValueError: If no optimizer of the model is known.
        """
        return cls._found(model) or cls(model)

    @classmethod
    def hooks_of(cls, model: keras.Model) -> tuple[StepHook, ...]:
        """Return the hooks that a model's training step has, in their order.

        Args:
            model: A built Keras model.

        Raises:
            ValueError: If no optimizer of the model is known.
        """
        step = cls._found(model)
        return () if step is None else tuple(step.hooks)

    @classmethod
    def _found(cls, model: keras.Model) -> "TrainingStep | None":
        wrappers = [getattr(optimizer.apply, "__self__", None) for optimizer in updating_optimizers(model)]
        steps = [wrapper.step for wrapper in wrappers if isinstance(wrapper, _Update)]
        return next((step for step in steps if step.model is model), None)

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers whose updates have hooks."""
        return [update.optimizer for update in self._updates]

    @property
    def optimizer(self) -> Any:
        """The optimizer whose update is being made, inside the compiled step."""
        return self._now.optimizer

    @property
    def updated(self) -> set[str]:
        """The paths of the variables of this update, inside the compiled step."""
        return self._now.updated

    def attach(self, hook: StepHook) -> None:
        """Add a hook, and take off what a `fit` that was interrupted has left."""
        left = [earlier for earlier in [*self.hooks, *self._left] if earlier.run is not hook.run]
        if left:
            warnings.warn(
                f"{self.model.name!r} still has {', '.join(sorted({type(earlier).__name__ for earlier in left}))} of "
                "a fit that was interrupted. They are released now.",
                stacklevel=2,
            )
            self.hooks, self._left = [earlier for earlier in self.hooks if earlier not in left], []
        self.hooks = sorted([*self.hooks, hook], key=lambda hook: hook.last)
        for optimizer in updating_optimizers(self.model):
            if optimizer not in self.optimizers:
                self._updates.append(_Update(self, optimizer))
        self.model.fit = self._fit
        self.model.make_train_function(force=True)  # a step that was compiled before would go on without the hook

    def detach(self, hook: StepHook) -> None:
        """Take a hook off; after the last one the model and its optimizers are as they were."""
        self.hooks = [other for other in self.hooks if other is not hook]
        self.model.train_function = None  # its trace holds the hook
        self._end_if_unused()

    def update(self, optimizer: Any, plain_apply: Callable[..., None], grads: Any, variables: Any) -> None:
        """Make one update, with the hooks around it, in replica context."""
        self._now.optimizer, self._now.updated = optimizer, {variable.path for variable in variables}
        self.trained |= self._now.updated
        gradients = _by_path(grads, variables)
        for hook in self.hooks:
            gradients |= hook.before_update(gradients)
        plain_apply([gradients.get(variable.path) for variable in variables], variables)
        values: dict[str, tuple[keras.Variable, Any]] = {}
        others = {id(weight) for weight in self.model.weights} - {id(variable) for variable in variables}

        def weight(variable: keras.Variable) -> Any:
            return values[variable.path][1] if variable.path in values else ops.convert_to_tensor(variable)

        for hook in self.hooks:
            moved = [(variable, value) for variable, value in hook.after_update(weight) if id(variable) not in others]
            values |= {variable.path: (variable, value) for variable, value in moved}
        _assign([variable for variable, _ in values.values()], [value for _, value in values.values()])

    def _fit(self, *args: Any, **kwargs: Any) -> Any:
        """Another `fit` begins, so the one that these hooks belong to was interrupted: it ends here."""
        ended = [hook for hook in self.hooks if hook.run is not None and not hook.outlasts]
        if ended:
            self.hooks = [hook for hook in self.hooks if hook not in ended]
            self._left += ended
            self.model.train_function = None
        try:
            return self._plain_fit(*args, **kwargs)
        finally:
            self._left = []
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self.hooks or self._left:
            return
        for update in self._updates:
            update.remove()
        self._updates = []
        if vars(self.model).get("fit") == self._fit:
            if self._was_own:
                self.model.fit = self._plain_fit
            else:
                del self.model.fit


class _Update:
    """The update of one optimizer: `apply`, wrapped on the instance."""

    def __init__(self, step: TrainingStep, optimizer: Any) -> None:
        self.step = step
        self.optimizer = optimizer
        self._plain_apply = optimizer.apply
        optimizer.apply = self._apply

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        if vars(self.optimizer).get("apply") == self._apply:
            del self.optimizer.apply

    def _apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        # Where no variables are given, they are those that the optimizer was built with, which no public name has.
        variables = list(self.optimizer._trainable_variables if trainable_variables is None else trainable_variables)
        captures = [hook for hook in self.step.hooks if isinstance(hook, CapturedGradients)]
        captures = [hook for hook in captures if hook.concerns(self.optimizer, variables)]
        if captures:
            # A condition around an update is possible only outside of the replicas.
            args = (captures, list(grads), variables)
            tf.distribute.get_replica_context().merge_call(self._capture_or_update, args=args)
        else:
            self._update(grads, variables)

    def _capture_or_update(
        self,
        strategy: tf.distribute.Strategy,
        captures: Sequence[CapturedGradients],
        grads: Sequence[Any],
        variables: Sequence[keras.Variable],
    ) -> None:
        gradients = _by_path(grads, variables)
        replaced: Any = tf.constant(False)
        for capture in captures:
            due = capture.due(self.optimizer)
            tf.cond(due, _doing(functools.partial(capture.keep, strategy, gradients)), _doing(lambda: None))
            replaced = tf.logical_or(replaced, due) if capture.replaces_update else replaced
            # Where data runs out, Keras finds out within a step, of which everything runs that needs no data.
            with tf.control_dependencies(_tensors(strategy, gradients)):
                capture.tick(self.optimizer)

        def update() -> None:
            strategy.extended.call_for_each_replica(self._update_in_branch, args=(grads, variables))

        if any(capture.replaces_update for capture in captures):
            tf.cond(replaced, _doing(self._count), _doing(update))
        else:
            update()

    def _update_in_branch(self, grads: Sequence[Any], variables: Sequence[keras.Variable]) -> None:
        # Keras sums gradients over replicas in a way that wants all of them made within the branch.
        self._update([gradient if gradient is None else tf.identity(gradient) for gradient in grads], variables)

    def _count(self) -> None:
        # An optimizer that accumulates gradients counts its windows by the iterations, and this step adds none.
        for optimizer in optimizer_parts(self.optimizer):
            if not optimizer.gradient_accumulation_steps:
                optimizer.iterations.value.assign_add(1)

    def _update(self, grads: Sequence[Any], variables: Sequence[keras.Variable]) -> None:
        self.step.update(self.optimizer, self._plain_apply, grads, variables)


def slots_by_path(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Return what a model's optimizers remember of each weight: momentum, averages, accumulated gradients.

    One that a `train_step` builds when it first uses it remembers nothing before.

    Args:
        model: A built and compiled Keras model.

    Returns:
        For each path of a trainable variable, the optimizers' variables of the same shape that belong to it.
    """
    main = getattr(model, "optimizer", None)
    if main is not None and not getattr(main, "inner_optimizer", main).built:
        with model.distribute_strategy.scope():
            getattr(main, "inner_optimizer", main).build(model.trainable_variables)
    # A slot is named after its variable, such as "sgd/dense_kernel_momentum"; the longest name that fits owns it. Where
    # the layers "a/b" and "a_b" give two variables one name, slots come in the order of the variables.
    names: dict[str, list[keras.Variable]] = {}
    for variable in model.trainable_variables:
        names.setdefault(variable.path.replace("/", "_") + "_", []).append(variable)
    found: dict[str, list[keras.Variable]] = {variable.path: [] for variable in model.trainable_variables}
    for optimizer in updating_optimizers(model):
        seen: collections.Counter[str] = collections.Counter()
        for slot in optimizer.variables:
            fitting = [name for name in names if slot.path.split("/")[-1].startswith(name)]
            if fitting:
                owners = names[max(fitting, key=len)]
                owner = owners[seen[slot.path] % len(owners)]
                seen[slot.path] += 1
                if tuple(slot.shape) == tuple(owner.shape):
                    found[owner.path].append(slot)
    return found


def averages_by_path(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Return the moving averages of the weights that an optimizer with `use_ema` writes over them now and then.

    Args:
        model: A built and compiled Keras model.

    Returns:
        For each path of a trainable variable, its averages: one, or none without `use_ema`.
    """
    parts = [part for optimizer in updating_optimizers(model) for part in optimizer_parts(optimizer)]
    if not any(part.use_ema for part in parts):
        return {}
    return {
        path: [slot for slot in slots if slot.path.endswith("_average")] for path, slots in slots_by_path(model).items()
    }


def _by_path(grads: Sequence[Any], variables: Sequence[keras.Variable]) -> dict[str, Any]:
    pairs = zip(variables, grads, strict=True)
    return {variable.path: gradient for variable, gradient in pairs if gradient is not None}


def _tensors(strategy: tf.distribute.Strategy, gradients: Gradients) -> list[tf.Tensor]:
    """The gradients of all replicas as plain tensors, also those that come as slices."""
    local = [each for gradient in gradients.values() for each in strategy.experimental_local_results(gradient)]
    return [each.values if isinstance(each, tf.IndexedSlices) else each for each in local]


def _doing(action: Callable[[], None]) -> Callable[[], Any]:
    """A branch for `tf.cond`, whose branches must return the same."""

    def branch() -> Any:
        action()
        return tf.constant(0)

    return branch


def _assign(variables: Sequence[keras.Variable], values: Sequence[Any]) -> None:
    def assign(strategy: tf.distribute.Strategy, values: Sequence[Any]) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable.value, lambda v, x: v.assign(x), args=(value,), group=False)

    tf.distribute.get_replica_context().merge_call(assign, args=(list(values),))
