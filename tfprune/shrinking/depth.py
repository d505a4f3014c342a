"""Remove whole residual blocks: score them, choose, leave them out."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.common.checks import check_count
from tfprune.criteria import BlockCriterion, BlockInfluence, BlockView
from tfprune.data import Batch, Reader, inputs_of
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.parts.channels import order_of_going
from tfprune.shrinking.block_report import ResidualBlock, ResidualBlocks
from tfprune.shrinking.blocks import STATISTICS, Block, Blocks
from tfprune.shrinking.budget import Budget, load, measure, search
from tfprune.shrinking.recalibration import batch_normalizations, recalibrate

_MAX_SAMPLES = 1024
"""So many samples say enough about blocks."""


def residual_blocks(
    model: keras.Model, *, criterion: BlockCriterion | None = None, data: Any = None, exclude: Exclude = None
) -> ResidualBlocks:
    """Find the residual blocks of a model, say which of them can be left out, and score them.

    A block is a branch that is added to its shortcut: of a transformer, attention and MLP are a block each. It can go
    if its shortcut has no kernel, so that what comes in takes the place of what comes out.

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        criterion: What makes a block important; with data, `tfprune.criteria.BlockInfluence()` if left out.
        data: Some hundreds of samples, in any form that `fit` takes; of more than 1,024, so many are used. Without it
            there are no scores, unless the criterion needs none.
        exclude: Layers to leave alone, and their blocks: a list of layer objects, or a function from a layer to bool.

    Returns:
        The blocks; print them for a table.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or an argument has another type.
        ValueError: If it cannot be read layer by layer, the criterion needs data, or the data does not fit.

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = keras.layers.Add(name="block")([inputs, keras.layers.Dense(4, name="branch")(inputs)])
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
    >>> [(block.name, block.layers, block.stays) for block in residual_blocks(model).blocks]
    [('block', ('branch',), '')]
    """
    found = Blocks(model, resolve_exclude(model, exclude))
    if criterion is None and data is None:
        rows = [_row(block, None) for block in found.each]
        return ResidualBlocks(model.name, tuple(rows))
    chosen = _checked(criterion, data)
    scores = iter(_scores(model, found, chosen, _batches(model, chosen, data)))
    rows = [_row(block, None if block.stays else next(scores)) for block in found.each]
    return ResidualBlocks(model.name, tuple(rows), type(chosen).__name__)


def remove_layers(
    model: keras.Model,
    count: int | None = None,
    *,
    budget: Budget | None = None,
    criterion: BlockCriterion | None = None,
    data: Any = None,
    exclude: Exclude = None,
) -> keras.Model:
    """Remove the least important residual blocks of a model, and return a shallower, plain Keras model.

    A block is a branch that is added to its shortcut; without it, and without the addition, its input takes the place
    of its output. Of a transformer, attention and MLP are a block each, with the normalization at their beginning.
    `tfprune.residual_blocks(model)` shows them. All scores are those of the whole model, from which the lowest go at
    once. `ScalingFactor` layers become part of weights, as in `tfprune.shrink`. The model itself is not changed.

    With data, the BatchNormalization statistics of the result are measured anew on it, as by `tfprune.recalibrate`.
    Fine-tune it afterwards.

    Reference: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024,
    https://arxiv.org/abs/2403.03853

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        count: How many blocks go. Give either this or `budget`.
        budget: The budget to meet: blocks go from the least important on, until it holds.
        criterion: What makes a block important: `tfprune.criteria.BlockInfluence()` if left out, which needs data but
            no labels, `LossChange()`, or one of your own.
        data: Some hundreds of samples, in any form that `fit` takes; of more than 1,024, so many are used.
        exclude: Layers to leave alone, and their blocks: a list of layer objects, or a function from a layer to bool.

    Returns:
        A new model.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or an argument has another type.
        ValueError: If fewer blocks can go, the budget is out of reach, the criterion needs data, or the data does not
            fit; the message names the blocks that cannot go.

    Example:

    >>> x = inputs = keras.Input((4,))
    >>> for name in ("first", "second"):
    ...     x = keras.layers.Add()([x, keras.layers.Dense(4, name=name)(x)])
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="classes")(x))
    >>> kernel = model.get_layer("first").kernel.assign(np.zeros((4, 4)))
    >>> [layer.name for layer in remove_layers(model, 1, data=np.eye(4)).layers if layer.weights]
    ['second', 'classes']
    """
    if (count is None) == (budget is None):
        raise ValueError(f"Give either count or budget. Received: count={count!r}, budget={budget!r}.")
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {budget!r}.")
    if budget is not None:
        budget.check_counted()
    else:
        check_count("count", count)  # type: ignore[arg-type]  # one of the two is given
    chosen = _checked(criterion, data)
    blocks = Blocks(model, resolve_exclude(model, exclude))
    if not blocks.free or (count is not None and count > len(blocks.free)):
        raise ValueError(_too_few(model, blocks, count))
    batches = _batches(model, chosen, data)
    order = [blocks.free[index] for index in order_of_going(_scores(model, blocks, chosen, batches))]
    small = blocks.without(order[:count]) if budget is None else _within(model, blocks, order, budget)
    if batches and batch_normalizations(small):
        recalibrate(small, [(batch.x,) for batch in batches])
    return small


def _within(model: keras.Model, blocks: Blocks, order: Sequence[Block], budget: Budget) -> keras.Model:
    """The model without the first blocks of an order, as few as meet a budget."""
    dense = measure(model)
    limits = budget.absolute(dense)
    made = {len(order): model}

    def kept(number: int) -> float:
        made[number] = made.get(number) or blocks.without(order[: len(order) - number])
        return load(measure(made[number]), limits)

    most = search(kept, len(order))
    if most is None:
        least = measure(made[0])
        reached = {name: f"{least[name]:,} of {dense[name]:,}" for name in limits}
        raise ValueError(
            f"{budget} cannot be met. Without all blocks that can go there are {reached}. {_who_stays(blocks)}"
        )
    return made[most] if most < len(order) else blocks.without([])


def _checked(criterion: BlockCriterion | None, data: Any) -> BlockCriterion:
    criterion = BlockInfluence() if criterion is None else criterion
    if not isinstance(criterion, BlockCriterion):
        raise TypeError(
            "criterion must score residual blocks: tfprune.criteria.BlockInfluence(), LossChange(), or a subclass of "
            f"BlockCriterion. Received: {criterion!r}."
        )
    unknown = sorted({*criterion.needs} - {*STATISTICS})
    if unknown:
        raise ValueError(f"{type(criterion).__name__} needs {unknown}. Known of blocks: {list(STATISTICS)}.")
    if criterion.needs and data is None:
        raise ValueError(
            f"{type(criterion).__name__} needs data: some hundreds of inputs like those of training, with labels only "
            "for LossChange('compiled'). Pass data=x, or a criterion of your own that needs none."
        )
    return criterion


def _batches(model: keras.Model, criterion: BlockCriterion, data: Any) -> list[Batch]:
    if data is None:
        return []
    labels = "compiled_change" in criterion.needs
    return list(Reader(data, inputs_of(model), needs_labels=labels, max_samples=_MAX_SAMPLES))


def _scores(model: keras.Model, blocks: Blocks, criterion: BlockCriterion, batches: Sequence[Batch]) -> np.ndarray:
    statistics = blocks.statistics(criterion.needs, batches) if criterion.needs else [{} for _ in blocks.free]
    views = [
        BlockView(block.name, tuple(layer.name for layer in block.layers), block.num_parameters, each)
        for block, each in zip(blocks.free, statistics, strict=True)
    ]
    scores = np.array([float(criterion.score(view)) for view in views])
    wrong = [view.name for view, score in zip(views, scores, strict=True) if not np.isfinite(score)]
    if wrong:
        raise ValueError(
            f"{type(criterion).__name__} of {model.name!r} is NaN or infinite for the blocks {wrong}. Check weights "
            "and data."
        )
    return scores


def _row(block: Block, score: float | None) -> ResidualBlock:
    names = tuple(layer.name for layer in block.layers)
    return ResidualBlock(block.name, names, block.num_parameters, block.stays, None if score is None else float(score))


def _too_few(model: keras.Model, blocks: Blocks, count: int | None) -> str:
    wanted = "No residual block" if not blocks.free else f"Of {count} residual blocks only {len(blocks.free)}"
    return f"{wanted} of {model.name!r} can be removed. {_who_stays(blocks)}"


def _who_stays(blocks: Blocks) -> str:
    staying = "; ".join(f"{block.name!r} stays, as {block.stays}" for block in blocks.each if block.stays)
    return staying + "." if staying else "It has no others: a block is a branch that is added to its shortcut."
