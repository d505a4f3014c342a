"""Group lasso: learning structured sparsity."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfprune.callbacks.narrowing import Kept
from tfprune.callbacks.penalties.base import SparsityRegularization, add_to
from tfprune.common.checks import check_choice
from tfprune.graph import ChannelGroup, Member, analyse
from tfprune.graph.exclude import Chosen, Exclude, resolve_exclude
from tfprune.graph.kinds import kernel_axes
from tfprune.graph.wiring import Wiring
from tfprune.parts.branches import vanishing_branches
from tfprune.parts.channels import channel_masks, zero_channels
from tfprune.parts.structures import Structure, coupled, multiples, of_group, of_member, scaled, wholes
from tfprune.schedules import ScheduleLike
from tfprune.training.masks import Masks, merge_masks
from tfprune.training.proximal import group_factors
from tfprune.training.step import Gradients, Weight

Parts = Literal["coupled", "filter", "channel", "shape", "depth"]
Update = Literal["proximal", "subgradient"]

TRUNCATION = 1e-4
"""The subgradient update sets smaller weights to zero, as the authors' code does."""


class GroupLasso(SparsityRegularization):
    """Push groups of weights to zero by the sum of their L2 norms, in every training step.

    The loss becomes L + strength * sum over groups g of sqrt(size of g) * ||w_g||. Unlike a penalty on single weights
    it makes whole groups zero, and `tfprune.shrink` removes the channels among them after training.

    The proximal update takes learning rate * strength * sqrt(size) off the norm of each group after the optimizer's
    step (divided by 1 - momentum for SGD, as the gradient's part is), and groups that have less become exactly zero.
    The subgradient is the authors': it is part of what the optimizer sees, never arrives at zero by itself, and weights
    below 1e-4 are set to zero after each step. Use it with SGD; an optimizer that rescales gradients, such as Adam,
    rescales this pull as well, while the proximal update works with all of them.

    The last `min_channels` of each group of channels do not become zero, and a warning names the layer.

    Reference: Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016,
    https://arxiv.org/abs/1608.03665

    Args:
        strength: How hard to pull: a number of at least 0, a function from the step to it, or a schedule.
            With weights by size, 1e-4 to 1e-2.
        parts: What goes as a whole: `"coupled"` for a channel with all that makes, carries and reads it, in all layers
            that share it; for every kernel on its own, `"filter"`, `"channel"` (of its inputs) or `"shape"` (one
            position of all filters); or `"depth"` for all weights of a residual branch, so that whole blocks go.
        update: `"proximal"` or `"subgradient"`.
        size_weighting: Whether large groups are pulled harder, by the square root of their size. The authors do not.
        threshold: Groups whose norm is at most this count as dead in the logs, and become zero when training ends.
        min_channels: How many parts always stay, of each group of channels or of each kernel; of all branches together.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool. A branch with such
            a layer stays.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune.

    Example:

    >>> from tfprune import shrink
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> y = np.abs(x[:, 0])  # two units are enough
    >>> history = model.fit(x, y, batch_size=8, epochs=40, verbose=0, callbacks=[GroupLasso(0.02)])
    >>> history.history["channels_below_threshold"][-1], shrink(model).layers[0].units
    (6, 2)
    """

    def __init__(
        self,
        strength: ScheduleLike,
        *,
        parts: Parts = "coupled",
        update: Update = "proximal",
        size_weighting: bool = True,
        threshold: float = 0.0,
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        super().__init__(strength, threshold, min_channels, exclude)
        check_choice("parts", parts, ("coupled", "filter", "channel", "shape", "depth"))
        check_choice("update", update, ("proximal", "subgradient"))
        self.parts = parts
        self.update = update
        self.size_weighting = size_weighting
        self._groups: Sequence[ChannelGroup] = ()
        self._part_sizes: list[np.ndarray] = []

    def why_not_narrower(self) -> str:
        """Return why training cannot go on in smaller models: only where whole channels are the parts."""
        if self.parts == "coupled":
            return ""
        return f'its parts are those of single kernels or branches; use parts="coupled" instead of {self.parts!r}'

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the structures; channels keep the sizes, and so the pull, that they had in the dense model."""
        super().on_train_begin(logs)
        self._part_sizes = self.take_over(self._part_sizes, [structure.part_sizes for structure in self.structures])

    def narrow(self, kept: Kept) -> None:
        """Keep the sizes of the channels that stay."""
        super().narrow(kept)
        self._part_sizes = [
            sizes[structure.that_stay(kept)]
            for structure, sizes in zip(self.structures, self._part_sizes, strict=True)
        ]

    def find_structures(self, groups: Sequence[ChannelGroup]) -> Sequence[Structure]:
        """Return the channels of groups, parts of the kernels that make or read them, or residual branches."""
        self._groups = groups
        if self.parts == "coupled":
            return coupled(groups)
        excluded = resolve_exclude(self.model, self.exclude)
        if self.parts == "depth":
            return [self._branches(excluded)]
        members = [
            member
            for group in groups
            for member in group.with_role("producer" if self.parts == "filter" else "consumer")
            if member.variable.trainable and not excluded.holds(member.variable)
        ]
        return [_columns(member) if self.parts == "shape" else of_member(member) for member in members]

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Add the gradient of the penalty: strength * sqrt(size) * w / ||w_g||."""
        if self.update == "proximal":
            return {}
        numbers = []
        for structure in self.structures:
            norms = ops.sqrt(structure.squared_norms(ops.convert_to_tensor))
            numbers.append((structure, ops.divide_no_nan(strength * self._weighting(structure), norms)))
        return add_to(gradients, multiples(numbers, ops.convert_to_tensor))

    def pull_weights(self, weight: Weight, rate: Any, strength: Any) -> Sequence[tuple[keras.Variable, Any]]:
        """Take a step's length off the norm of each group, or truncate small weights."""
        shrink = self._shrunken if self.update == "proximal" else self._truncated
        pulled = shrink(weight, rate * strength)
        return [*pulled, *self._carriers(weight, pulled)] if self.parts == "filter" else pulled

    def penalty(self) -> float:
        """Return the weighted sum of the norms."""
        norms = [ops.sqrt(structure.squared_norms(ops.convert_to_tensor)) for structure in self.structures]
        return sum(
            float(ops.sum(self._weighting(structure) * norm))
            for structure, norm in zip(self.structures, norms, strict=True)
        )

    def dead_masks(self) -> Masks:
        """Return masks of dead parts, and of what makes and carries channels that nothing makes or reads any more."""
        masks = super().dead_masks()
        if self.parts in ("coupled", "depth"):
            return masks
        analysis = analyse(self.model, self.exclude)
        summed = [analysis.labels[channels.ravel()] for call in analysis.trace.calls for channels in call.reads]
        for group in self._groups:
            dead = zero_channels(group.producers, group.size)
            consumers = group.with_role("consumer")
            if consumers:
                unread = zero_channels(consumers, group.size)
                dead |= unread & ~np.isin(group.labels, np.concatenate([np.zeros(0, int), *summed]))
            merge_masks(masks, channel_masks([(group, ~group.keep_one_each(dead))], ("producer", "affine")))
        return masks

    def _branches(self, excluded: Chosen) -> Structure:
        found = list(vanishing_branches(Wiring.of(self.model), excluded.touches))
        if len(found) <= self.min_channels:
            raise ValueError(
                f'GroupLasso(parts="depth") finds nothing to prune in {self.model.name!r}: it has {len(found)} '
                f"residual branches that can vanish, and min_channels={self.min_channels} stay. Such a branch is "
                "added to a shortcut, and adds zeros once its trained weights are zero. Build the model with more of "
                'them, or prune channels: parts="coupled".'
            )
        return wholes("residual branches", found)

    def _weighting(self, structure: Structure) -> np.ndarray:
        if not self.size_weighting:
            return np.ones(structure.size, "float32")
        return np.sqrt(self._part_sizes[self.structures.index(structure)]).astype("float32")

    def _shrunken(self, weight: Weight, step: Any) -> list[tuple[keras.Variable, Any]]:
        optimizer = self.optimizer
        if isinstance(optimizer, keras.optimizers.SGD):
            # Momentum makes a constant gradient move weights by 1 / (1 - momentum) as much, which the pull must match.
            step = step / (1 - optimizer.momentum)
        factors = []
        for structure in self.structures:
            squared = structure.squared_norms(weight)
            shrunken = group_factors(squared, step * self._weighting(structure))
            factors.append((structure, structure.protect(squared, shrunken, self.min_channels)))
        return scaled(factors, weight)

    def _truncated(self, weight: Weight, step: Any) -> list[tuple[keras.Variable, Any]]:
        stay = [
            (structure, structure.largest(structure.squared_norms(weight), self.min_channels, "float32"))
            for structure in self.structures
        ]
        protected = multiples(stay, lambda variable: ops.ones(variable.shape))
        return [(variable, _truncate(weight(variable), kept, step)) for variable, kept in protected]

    def _carriers(
        self, weight: Weight, pulled: Sequence[tuple[keras.Variable, Any]]
    ) -> list[tuple[keras.Variable, Any]]:
        """Biases, gammas and betas without the channels that no kernel makes any more."""
        values = {variable.path: value for variable, value in pulled}

        def now(variable: keras.Variable) -> Any:
            return values[variable.path] if variable.path in values else weight(variable)

        made = [of_group(group, "producer", trainable_only=False).squared_norms(now) for group in self._groups]
        carriers = [of_group(group, "affine") for group in self._groups]
        alive = [ops.cast(squared > 0, "float32") for squared in made]
        return scaled(zip(carriers, alive, strict=True), now)


def _truncate(value: Any, protected: Any, step: Any) -> Any:
    small = (ops.abs(value) < TRUNCATION) & ops.equal(protected, 0) & (step > 0)
    return ops.where(small, ops.zeros_like(value), value)


def _columns(member: Member) -> Structure:
    """The positions of a kernel that reads channels, over all filters; of what is no convolution, its inputs."""
    axes = kernel_axes(member.layer, member.variable)
    return of_member(member, () if axes is None else axes.positions(len(member.variable.shape)))
