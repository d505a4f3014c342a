"""MorphNet: resource-constrained structure learning."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from tfprune.callbacks.penalties.base import add_to
from tfprune.callbacks.penalties.gammas import GammaRegularization
from tfprune.graph.channel_costs import Term, layer_macs, layer_terms, marginal_costs, parameter_terms, total_cost
from tfprune.graph.exclude import Exclude
from tfprune.graph.record import Binding
from tfprune.parts.gammas import shares
from tfprune.parts.structures import Structure, multiples
from tfprune.schedules import ScheduleLike
from tfprune.training.step import Gradients

Cost = Literal["macs", "parameters"] | Mapping[keras.layers.Layer, float] | Callable[[keras.layers.Layer], float]
"""What layers cost: multiply-accumulates, weights, or a table, such as of measured latencies."""


class MorphNet(GammaRegularization):
    """Pull the gammas of BatchNormalization to zero, each by what its channel costs, so that costly layers lose most.

    A layer with so many living inputs and outputs costs C * inputs * outputs. The penalty on a gamma is what its
    channel costs at present: C * (inputs alive) in every layer that makes it, C * (outputs alive) in every layer that
    reads it. It is divided by the cost of the whole model with all channels, so that `strength` has no unit: at 1 the
    penalty starts in the order of the loss. What is alive is counted anew at the beginning of each epoch.

    A channel is dead while its |gamma| is at most `threshold`; where layers are tied by a residual addition, while all
    of its gammas are, and the largest is pulled. When training ends, all that makes and carries dead channels becomes
    zero: `tfprune.shrink` removes them, and `tfprune.widen` spends what was won on the layers that need it.

    The epoch logs receive `regularization_loss`, `channels_below_threshold` and `relative_cost`, the cost of what is
    alive as a fraction of that of the whole model.

    Reference: Gordon et al., MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks,
    CVPR 2018, https://arxiv.org/abs/1711.06798

    Args:
        strength: How hard to pull: a number of at least 0, a function from the step to it, or a schedule.
        cost: `"macs"`, `"parameters"`, a dict from layers to what each costs as the model is (such as measured
            milliseconds; layers that it lacks are free), or a function from a layer to that.
        threshold: Channels with a gamma of at most this are dead.
        min_channels: How many channels of every layer or group always stay.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if no channel is switched by a gamma, or a cost
            is negative, not finite, or zero for the whole model.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv"), keras.layers.BatchNormalization(),
    ...     keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> gamma = model.layers[1].gamma.assign([1, 0.001, 1, 1, 1, 0, 1, 1])
    >>> x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 3)), np.ones((8, 2))
    >>> history = model.fit(x, y, verbose=0, callbacks=[MorphNet(1e-9)])
    >>> history.history["relative_cost"], tfprune.shrink(model).get_layer("conv").filters
    ([0.75], 6)
    """

    def __init__(
        self,
        strength: ScheduleLike,
        *,
        cost: Cost = "macs",
        threshold: float = 0.01,
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        super().__init__(strength, threshold, min_channels, exclude)
        if cost not in ("macs", "parameters") and not callable(cost) and not isinstance(cost, Mapping):
            raise ValueError(
                "cost must be 'macs', 'parameters', a dict from layers to their cost, or a function from a layer to "
                f"its cost. Received: {cost!r}."
            )
        self.cost = cost

    def combine(self, magnitudes: np.ma.MaskedArray) -> np.ndarray:
        """Return the largest |gamma| of the layers that a channel passes through."""
        return magnitudes.max(axis=0).data

    def penalty(self) -> float:
        """Return the sum of |gamma| times what the channel costs, relative to the cost of the model."""
        return sum(float(price @ score) for price, score in zip(self._prices(), self.scores(), strict=True))

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Add the subgradient of the penalty: to the largest gamma of each channel."""
        pulls = []
        for structure, price in zip(self.structures, self._price, strict=True):
            of_each = shares(structure, ops.convert_to_tensor)
            for one, share in zip(structure.slices, of_each, strict=True):
                alone = Structure(structure.name, structure.size, (one,))
                pulls.append((alone, share * strength * ops.convert_to_tensor(price)))
        return add_to(gradients, multiples(pulls, lambda variable: ops.sign(ops.convert_to_tensor(variable))))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the gammas, and what the channels cost."""
        super().on_train_begin(logs)
        self._terms = self._cost_terms()
        self._total = total_cost(self._terms, np.ones(sum(each.structure.size for each in self.switched)))
        if not self._total > 0:
            raise ValueError(f"cost is 0 for the whole model {self.model.name!r}, so no channel is worth removing.")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count what is alive."""
        super().on_epoch_begin(epoch, logs)
        for price, now in zip(self._price, self._prices(), strict=True):
            price.assign(now)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log what the living channels cost."""
        super().on_epoch_end(epoch, logs)
        self._log(logs, relative_cost=total_cost(self._terms, self._alive()) / self._total)

    def _start(self, epoch: int) -> None:
        with self.model.distribute_strategy.scope():
            self._price = [
                keras.Variable(np.zeros(each.size, "float32"), trainable=False, aggregation="only_first_replica")
                for each in self.structures
            ]
        super()._start(epoch)

    def _alive(self) -> np.ndarray:
        return ~np.concatenate(list(self.dead().values())) * 1.0

    def _prices(self) -> list[np.ndarray]:
        """What each channel costs with what is alive now, relative to the cost of the model with all channels."""
        prices = marginal_costs(self._terms, self._alive()) / self._total
        return np.split(prices, np.cumsum([each.structure.size for each in self.switched])[:-1])

    def _cost_terms(self) -> list[Term]:
        place = self._place()
        if self.cost == "parameters":
            return parameter_terms(self.model, self.analysis, place)
        if self.cost == "macs":
            return layer_terms(self.analysis, layer_macs(self.analysis), place)
        layers = {call.layer: 0.0 for call in self.analysis.trace.calls if isinstance(call.layer, keras.layers.Layer)}
        if isinstance(self.cost, Mapping):
            foreign = [getattr(layer, "name", layer) for layer in self.cost if layer not in layers]
            if foreign:
                raise ValueError(f"cost names layers that {self.model.name!r} does not call: {foreign}.")
            layers |= self.cost
        elif callable(self.cost):
            layers = {layer: self.cost(layer) for layer in layers}
        for layer, amount in layers.items():
            if not isinstance(amount, numbers.Real) or not 0 <= amount < math.inf:
                raise ValueError(f"cost must be a number of at least 0. It is {amount!r} for {layer.name!r}.")
        return layer_terms(self.analysis, layers, place)

    def _place(self) -> Callable[[Binding], np.ndarray]:
        """Where channels stand among all that are switched, one structure after another; -1 for others."""
        of_label = np.full(self.analysis.trace.num_channels, -1)
        of_selection: dict[tuple[int, int], list[np.ndarray]] = {}
        start = 0
        for each in self.switched:
            if each.structure.group is not None:
                of_label[each.structure.group.labels] = start + np.arange(each.structure.size)
            else:
                for one in each.carriers.slices:
                    places = np.where(one.parts < 0, -1, start + one.parts)
                    of_selection.setdefault((id(one.variable), one.axes[0]), []).append(places)
            start += each.structure.size

        def place(binding: Binding) -> np.ndarray:
            places = of_label[self.analysis.labels[binding.channels]]
            for selected in of_selection.get((id(binding.variable), binding.axis), ()):
                places = np.where(selected < 0, places, selected)
            return places

        return place
