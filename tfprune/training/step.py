"""What happens inside the compiled training step: hooks around the optimizer's update.

For the length of a `fit`, `apply` of the model's own optimizer is wrapped on the instance. Hooks see the gradients
before the optimizer does and the weights after it, in every step: also between the steps of `steps_per_execution`,
in mixed precision, compiled by XLA, and on every replica of a distribution strategy. Nothing of it is saved with the
model, and no data argument and no subclass of the model is needed.
"""

import collections
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

Gradients = Mapping[str, Any]
Weight = Callable[[keras.Variable], Any]


class StepHook:
    """What a callback adds to the optimizer's update.

    Hooks run in the order in which they were attached, those with `last` after all others.

    Args:
        model: A built and compiled Keras model.
        run: What tells one `fit` from another: the callback's `params`. Hooks that an interrupted `fit` has left
            behind are taken off when a hook of another `fit` is attached.

    Raises:
        ValueError: If the model is not compiled.
    """

    last = False

    def __init__(self, model: keras.Model, run: Any = None) -> None:
        self.run = run
        self._step = TrainingStep.of(model)
        self._step.attach(self)

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
            Variables and their new values.
        """
        return ()

    def detach(self) -> None:
        """Take this hook off the training step."""
        self._step.detach(self)


class CapturedGradients(StepHook):
    """Keep the dense gradient of one training step: the gradient of all weights, also of the masked ones.

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
            self._countdown = keras.Variable(-1, dtype="int32", trainable=False, aggregation="only_first_replica")
        super().__init__(model, run)

    def arm(self, steps: int) -> None:
        """Ask for the gradient of a step to come.

        Args:
            steps: How many steps go before it; 0 for the very next.
        """
        self._countdown.assign(steps)

    def take(self) -> dict[str, np.ndarray] | None:
        """Return the gradients by variable path, or `None` while the step that was asked for has not been made."""
        if int(self._countdown.numpy()) >= 0:
            return None
        return {path: kept.numpy() for path, kept in self._kept.items()}

    def due(self) -> Any:
        """Whether this step is the one that was asked for; a bool tensor."""
        return tf.equal(self._countdown.value, 0)

    def keep(self, strategy: tf.distribute.Strategy, gradients: Gradients) -> None:
        """Store the gradients, in cross-replica context."""
        for path, kept in self._kept.items():
            if path in gradients:
                # Of an Embedding they come as slices.
                dense = strategy.extended.call_for_each_replica(tf.convert_to_tensor, args=(gradients[path],))
                kept.value.assign(tf.cast(strategy.reduce(tf.distribute.ReduceOp.SUM, dense, axis=None), kept.dtype))

    def tick(self) -> None:
        """Count the step, in cross-replica context."""
        self._countdown.value.assign(tf.maximum(self._countdown.value - 1, -1))


class TrainingStep:
    """The optimizer's update of one model, with hooks. Made and found by `TrainingStep.of`.

    Args:
        model: A built and compiled Keras model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._optimizer = updating_optimizer(model)
        self._hooks: list[StepHook] = []
        self._plain_apply = self._optimizer.apply
        self._optimizer.apply = self._apply

    @classmethod
    def of(cls, model: keras.Model) -> "TrainingStep":
        """Return the training step of a model, with the hooks that it has already.

        Args:
            model: A built Keras model.

        Raises:
            ValueError: If the model is not compiled.
        """
        return cls._found(model) or cls(model)

    @classmethod
    def hooks_of(cls, model: keras.Model) -> tuple[StepHook, ...]:
        """Return the hooks that a model's training step has, in their order.

        Args:
            model: A built Keras model.

        Raises:
            ValueError: If the model is not compiled.
        """
        step = cls._found(model)
        return () if step is None else tuple(step._hooks)

    @classmethod
    def _found(cls, model: keras.Model) -> "TrainingStep | None":
        wrapper = getattr(updating_optimizer(model).apply, "__self__", None)
        return wrapper if isinstance(wrapper, cls) else None

    def attach(self, hook: StepHook) -> None:
        """Add a hook, and take off what a `fit` that was interrupted has left."""
        left = [earlier for earlier in self._hooks if earlier.run is not hook.run]
        if left:
            warnings.warn(
                f"{self._model.name!r} still has {', '.join(sorted({type(earlier).__name__ for earlier in left}))} of "
                "a fit that was interrupted. They are released now.",
                stacklevel=2,
            )
            self._hooks = [earlier for earlier in self._hooks if earlier not in left]
        self._hooks = sorted([*self._hooks, hook], key=lambda hook: hook.last)
        self._model.make_train_function(force=True)  # a step that was compiled before would go on without the hook

    def detach(self, hook: StepHook) -> None:
        """Take a hook off; after the last one the optimizer is as it was."""
        self._hooks = [other for other in self._hooks if other is not hook]
        self._model.train_function = None  # its trace holds the hook
        if not self._hooks and vars(self._optimizer).get("apply") == self._apply:
            del self._optimizer.apply

    def _apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        variables = self._model.trainable_variables if trainable_variables is None else list(trainable_variables)
        if any(isinstance(hook, CapturedGradients) for hook in self._hooks):
            # A condition around an update is possible only outside of the replicas.
            tf.distribute.get_replica_context().merge_call(self._capture_or_update, args=(list(grads), variables))
        else:
            self._update(grads, variables)

    def _capture_or_update(
        self, strategy: tf.distribute.Strategy, grads: Sequence[Any], variables: Sequence[keras.Variable]
    ) -> None:
        gradients = _by_path(grads, variables)
        captures = [hook for hook in self._hooks if isinstance(hook, CapturedGradients)]
        replaced: Any = tf.constant(False)
        for capture in captures:
            due = capture.due()
            tf.cond(due, _doing(functools.partial(capture.keep, strategy, gradients)), _doing(lambda: None))
            replaced = tf.logical_or(replaced, due) if capture.replaces_update else replaced
            # Where data runs out, Keras finds out within a step, of which everything runs that needs no data.
            with tf.control_dependencies(_tensors(strategy, gradients)):
                capture.tick()

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
        for optimizer in optimizer_parts(self._optimizer):
            if not optimizer.gradient_accumulation_steps:
                optimizer.iterations.value.assign_add(1)

    def _update(self, grads: Sequence[Any], variables: Sequence[keras.Variable]) -> None:
        gradients = _by_path(grads, variables)
        for hook in self._hooks:
            gradients |= hook.before_update(gradients)
        self._plain_apply([gradients.get(variable.path) for variable in variables], variables)
        values: dict[str, tuple[keras.Variable, Any]] = {}

        def weight(variable: keras.Variable) -> Any:
            return values[variable.path][1] if variable.path in values else ops.convert_to_tensor(variable)

        for hook in self._hooks:
            values |= {variable.path: (variable, value) for variable, value in hook.after_update(weight)}
        _assign([variable for variable, _ in values.values()], [value for _, value in values.values()])


def updating_optimizer(model: keras.Model) -> Any:
    """Return the optimizer that updates a model's weights: the one inside, where a `LossScaleOptimizer` wraps it.

    Args:
        model: A Keras model.

    Raises:
        ValueError: If the model is not compiled.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    >>> type(updating_optimizer(model)).__name__
    'SGD'
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled, so no optimizer trains it. Call model.compile() first."
        )
    return getattr(optimizer, "inner_optimizer", optimizer)


def optimizer_parts(optimizer: Any) -> list[Any]:
    """Return an optimizer and those that it hands weights to, as a `MultiOptimizer` does.

    Args:
        optimizer: What `updating_optimizer` returns.
    """
    return [optimizer, *getattr(optimizer, "optimizers", ())]


def slots_by_path(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Return what a compiled model's optimizer remembers of each weight: momentum, averages, accumulated gradients.

    Args:
        model: A built and compiled Keras model.

    Returns:
        For each path of a trainable variable, the optimizer's variables of the same shape that belong to it.
    """
    optimizer = updating_optimizer(model)
    if not optimizer.built:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)
    # A slot is named after its variable, such as "sgd/dense_kernel_momentum"; the longest name that fits owns it. Where
    # the layers "a/b" and "a_b" give two variables one name, slots come in the order of the variables.
    names: dict[str, list[keras.Variable]] = {}
    for variable in model.trainable_variables:
        names.setdefault(variable.path.replace("/", "_") + "_", []).append(variable)
    found: dict[str, list[keras.Variable]] = {variable.path: [] for variable in model.trainable_variables}
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
    kept = any(part.use_ema for part in optimizer_parts(updating_optimizer(model)))
    return {
        path: [slot for slot in slots if kept and slot.path.endswith("_average")]
        for path, slots in slots_by_path(model).items()
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
