"""Weights that are trained past the hooks: by an optimizer that the model does not hold, or by hand."""

from collections.abc import Iterable

import keras
from keras import ops

from tfprune.training.step import StepHook


class ForeignUpdates:
    """Watches the first steps of a `fit` for weights that change without an update that has hooks.

    A `train_step` may use an optimizer that is neither `model.optimizer` nor an attribute of the model, or none at all.
    What a callback does within the update then never happens, and training should end before it has cost any time.

    Args:
        owner: Whose hook it is, for messages.
        hook: The hook.
        variables: The weights that it means to be trained with it.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> hook = StepHook(model)
    >>> foreign = ForeignUpdates("RigL", hook, model.trainable_variables)
    >>> foreign.start_steps()
    >>> _ = model.layers[0].bias.assign([1.0])
    >>> print(str(foreign.end_steps())[:51])
    1 weight that RigL prunes is trained past model.opt
    >>> hook.detach()
    """

    def __init__(self, owner: str, hook: StepHook, variables: Iterable[keras.Variable]) -> None:
        self._owner = owner
        self._hook = hook
        self._variables = [variable for variable in variables if variable.trainable]
        self._before: list[tuple[float, float]] | None = None

    def start_steps(self) -> None:
        """The first steps begin now, or others, at which nobody looks."""
        if self._before is None:
            self._before = [_fingerprint(variable) for variable in self._variables]

    def end_steps(self) -> ValueError | None:
        """The steps are made; return what to raise where weights have changed behind the hooks' back."""
        if not self._before:
            return None
        changed = [
            variable.path
            for variable, before in zip(self._variables, self._before, strict=True)
            if variable.path not in self._hook.trained and _fingerprint(variable) != before
        ]
        self._before = []
        if not changed:
            return None
        many = "weights that {} prunes are" if len(changed) > 1 else "weight that {} prunes is"
        return ValueError(
            f"{len(changed)} {many.format(self._owner)} trained past model.optimizer and all other optimizers that "
            f"the model holds, such as {changed[0]!r}, so that nothing would be held. Compile the model with the "
            "optimizer that its train_step or your loop uses, or keep that optimizer as an attribute of the model "
            "(self.my_optimizer = ..., also in a list or dict), and update weights by its apply or apply_gradients."
        )


def _fingerprint(variable: keras.Variable) -> tuple[float, float]:
    return float(ops.sum(variable)), float(ops.sum(ops.square(variable)))
