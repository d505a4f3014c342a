"""How dense every layer is, now and over the epochs of the last training."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.table import Table

from tfprune.callbacks.monitors.layer_density import LOG_PREFIX
from tfprune.common.tables import Report, new_table
from tfprune.graph.exclude import Exclude
from tfprune.parts.kernels import kernels
from tfprune.training.masks import living_weights

_COLUMNS = 5
"""How many epochs a table shows at most."""


@dataclass(frozen=True)
class KernelDensity:
    """One row of a density report.

    Attributes:
        name: The kernel's name: the layer's, and the variable's where a layer has several.
        shape: The kernel's shape.
        weights: How many weights it has.
        living: How many of them are alive.
        over_time: The density after each epoch that was logged; empty if none was.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    living: int
    over_time: tuple[float, ...] = ()

    @property
    def density(self) -> float:
        """The fraction of weights that are alive."""
        return self.living / self.weights


@dataclass(frozen=True)
class DensityReport(Report):
    """The densities of a model's kernels, and of all together; printed as a table.

    Attributes:
        model: The model's name.
        kernels: One row per kernel.
        epochs: The epochs of the last training, counted from 0 as in `History.epoch`, if `LayerwiseDensity` logged
            them; otherwise empty.
    """

    model: str
    kernels: tuple[KernelDensity, ...]
    epochs: tuple[int, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of all kernels."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def living(self) -> int:
        """Living weights of all kernels."""
        return sum(kernel.living for kernel in self.kernels)

    @property
    def density(self) -> float:
        """The fraction of all weights that are alive."""
        return self.living / self.weights

    @property
    def over_time(self) -> tuple[float, ...]:
        """The density of all kernels together after each epoch; empty if one of them was not logged."""
        if not all(kernel.over_time for kernel in self.kernels):
            return ()
        sizes = [kernel.weights / self.weights for kernel in self.kernels]
        return tuple(
            float(np.dot(sizes, densities)) for densities in zip(*(k.over_time for k in self.kernels), strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the rows with all epochs, and the sums."""
        result = super().to_dict()
        for row, kernel in zip(result["kernels"], self.kernels, strict=True):
            row["density"] = kernel.density
        totals = {"weights": self.weights, "living": self.living, "density": self.density}
        return {**result, **totals, "over_time": self.over_time}

    def to_table(self) -> Table:
        """Return one row per kernel and the sum; of many epochs, a few that are evenly chosen."""
        last = len(self.epochs) - 1
        chosen = np.linspace(0, last, min(last + 1, _COLUMNS)).round().astype(int).tolist()
        numbers = ["weights", "living", "density", *(f"epoch {self.epochs[index]}" for index in chosen)]
        table = new_table(f"Density of {self.model}", ["kernel", "shape"], numbers)
        for row in self.kernels:
            shape = " x ".join(str(size) for size in row.shape)
            table.add_row(row.name, shape, *_numbers(row, chosen))
        table.add_section()
        table.add_row("total", "", *_numbers(self, chosen))
        return table


def layerwise_density(model: keras.Model, exclude: Exclude = None) -> DensityReport:
    """Count the living weights of every kernel whose weights can be pruned one by one.

    Where a callback of tfprune holds or held masks, those that it has not pruned are alive, also one that has just
    been grown at zero. In a kernel without such masks, all weights that are not zero are.

    If the last `fit` ran with `callbacks.LayerwiseDensity`, the table also shows the densities after some of its
    epochs, and `to_dict` and `save` give all of them.

    Args:
        model: A built Keras model.
        exclude: Layers to leave out: a list of layer objects, or a function from a layer to bool.

    Returns:
        One row per kernel, those of depthwise layers too, and the sums; printing it shows a table. Layers that are
        not trained (`trainable=False`) are left out.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, has no trainable layer with a kernel, or a layer that is not excluded
            is quantized or has LoRA enabled; if `exclude` names a foreign layer.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, use_bias=False, name="hidden")])
    >>> model.set_weights([np.eye(4, 5)])
    >>> result = layerwise_density(model)
    >>> result.living, result.weights, result.density
    (4, 20, 0.2)
    """
    found = kernels(model, exclude)
    if not found:
        raise ValueError(
            f"There is no density to tell of {model.name!r}: it has no trainable layer with a kernel that is not "
            "excluded."
        )
    history: Any = getattr(model, "history", None)
    logged = history.history if isinstance(history, keras.callbacks.History) else {}
    epochs = tuple(history.epoch) if any(LOG_PREFIX + kernel.name in logged for kernel in found) else ()
    rows = []
    for kernel in found:
        living = living_weights(kernel.variable)
        # A History that the user has given to several fits goes on with its values, but not with its epochs.
        over_time = tuple(logged.get(LOG_PREFIX + kernel.name, ())[-len(epochs) :])
        count = int(np.count_nonzero(living))
        rows.append(KernelDensity(kernel.name, living.shape, living.size, count, over_time))
    return DensityReport(model.name, tuple(rows), epochs)


def _numbers(row: KernelDensity | DensityReport, chosen: list[int]) -> list[str]:
    over_time = [f"{row.over_time[index]:.2%}" if row.over_time else "" for index in chosen]
    return [f"{row.weights:,}", f"{row.living:,}", f"{row.density:.2%}", *over_time]
