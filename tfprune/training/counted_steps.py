"""How many steps `fit` really makes where several run as one: counted inside the compiled step."""

from typing import Any

import keras
import tensorflow as tf


class CountedSteps:
    """Counts the calls of a model's `train_step` inside its compiled training function.

    With `steps_per_execution`, Keras tells callbacks where a block of steps would end, not where it did: the last
    block of an epoch makes fewer steps where the data ends, and more than `steps_per_epoch` where it goes on.

    For the length of a `fit`, `train_step` is wrapped on the instance. All callbacks of a `fit` share one count.

    Args:
        model: A built and compiled Keras model.
        run: What tells one `fit` from another: the callback's `params`.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", steps_per_execution=4)
    >>> counted = CountedSteps.join(model, run=None)
    >>> history = model.fit(np.ones((3, 2)), np.ones((3, 1)), batch_size=1, verbose=0)
    >>> counted.count()
    3
    >>> counted.leave()
    """

    def __init__(self, model: keras.Model, run: Any) -> None:
        self.run = run
        self._model = model
        self._users = 0
        self._train_step = model.train_step
        self._was_own = "train_step" in vars(model)
        with model.distribute_strategy.scope():
            self._made = keras.Variable(0, dtype="int32", trainable=False, aggregation="only_first_replica")
        model.train_step = self._counted_step
        model.make_train_function(force=True)  # one that was compiled before would go on without the count

    @classmethod
    def join(cls, model: keras.Model, run: Any) -> "CountedSteps":
        """Return the count of this `fit`, which all of its callbacks share; `leave` it in the end.

        Args:
            model: A built and compiled Keras model.
            run: See the class.
        """
        found = getattr(vars(model).get("train_step"), "__self__", None)
        if isinstance(found, cls) and found.run is not run:  # a fit that was interrupted has left it behind
            found._remove()
            found = None
        counted = found if isinstance(found, cls) else cls(model, run)
        counted._users += 1
        return counted

    def leave(self) -> None:
        """Need it no longer; after the last one the model is as it was."""
        self._users -= 1
        if self._users == 0:
            self._remove()

    def restart(self) -> None:
        """Count from 0, as the next block begins."""
        self._made.assign(0)

    def count(self) -> int:
        """Return how many steps were made since `restart`."""
        return int(self._made.numpy())

    def position(self) -> Any:
        """Return how many steps of the block come before this one, inside the compiled step: an int32 scalar."""
        return tf.identity(self._made.value)

    def _counted_step(self, data: Any) -> Any:
        outputs = self._train_step(data)
        # After the step, whose hooks ask for their position, and only where there was data for it.
        tensors = [tf.identity(each) for each in tf.nest.flatten(data) if tf.is_tensor(each)]
        with tf.control_dependencies(tensors):
            tf.distribute.get_replica_context().merge_call(self._add_one)
        return outputs

    def _add_one(self, strategy: tf.distribute.Strategy) -> None:
        strategy.extended.update(self._made.value, lambda made: made.assign_add(1), group=False)

    def _remove(self) -> None:
        if vars(self._model).get("train_step") == self._counted_step:
            if self._was_own:
                self._model.train_step = self._train_step
            else:
                del self._model.train_step
        self._model.train_function = None  # its trace holds the count
