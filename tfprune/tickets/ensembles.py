"""Several subnetworks in one model: the mean of what they answer."""

from collections.abc import Sequence

import keras

from tfprune.data.inputs import input_structure
from tfprune.graph.walk import output_structure


def ensemble(models: Sequence[keras.Model], *, from_logits: bool = False) -> keras.Model:
    """Return one model that answers with the mean of the answers of several.

    Sparse subnetworks of one training run differ enough to be better together than each alone, at the cost of one run.
    The result is a plain functional model with copies of them: it saves and loads without tfprune, and `tfprune.export`
    makes a file of it. It costs as much as all of them together.

    Reference: Liu et al., Deep Ensembling with No Overhead for either Training or Testing: The All-Round Blessings of
    Dynamic Sparsity (FreeTickets), ICLR 2022, https://arxiv.org/abs/2106.14568

    Args:
        models: Two or more built Sequential or functional models that take and give the same. They are not changed.
        from_logits: Whether their outputs are logits, from which a softmax makes probabilities first.

    Returns:
        A new model, not compiled.

    Raises:
        ValueError: If there are fewer than two, or their inputs or outputs differ.

    Example:

    >>> def build():
    ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    >>> both = ensemble([build(), build()])
    >>> both.output_shape, len(both.weights)
    ((None, 3), 4)
    """
    _check(models)
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name), input_structure(models[0])
    )
    answers = [_copy(model, f"ticket_{number}")(inputs) for number, model in enumerate(models, 1)]
    if from_logits:
        answers = [keras.tree.map_structure(lambda logits: keras.layers.Softmax()(logits), each) for each in answers]
    outputs = keras.tree.map_structure(lambda *parts: keras.layers.Average()(list(parts)), *answers)
    return keras.Model(inputs, outputs, name="ensemble")


def _copy(model: keras.Model, name: str) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.name = name
    copy.set_weights(model.get_weights())
    return copy


def _check(models: Sequence[keras.Model]) -> None:
    if len(models) < 2:
        raise ValueError(f"An ensemble needs at least two models. Received: {len(models)}.")

    def signature(model: keras.Model) -> object:
        return [
            keras.tree.map_structure(lambda tensor: (tuple(tensor.shape), tensor.dtype), each)
            for each in (input_structure(model), output_structure(model))
        ]

    for number, model in enumerate(models[1:], 2):
        if signature(model) != signature(models[0]):
            raise ValueError(
                f"Models of an ensemble must take and give the same. The first has inputs and outputs "
                f"{signature(models[0])}, number {number} has {signature(model)}."
            )
