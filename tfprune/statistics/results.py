"""What was gathered: arrays by name, for variables and for channel groups."""

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.files import check_expansion, write_atomically
from tfprune.graph import analyse
from tfprune.graph.groups import named

Arrays = Mapping[str, np.ndarray]
_INDEX = "index"


@dataclass(frozen=True)
class Statistics:
    """What data says about a model.

    Attributes:
        num_samples: How many samples were seen.
        variables: By the name of a statistic and the path of a variable, an array of the shape of the variable.
        channels: By the name of a statistic and the name of a channel group, an array of shape (channels, ...). Groups
            are named as in `tfprune.Widths`: of two with one name the second is `name#2`.

    Example:

    >>> import keras
    >>> from tfprune.statistics import gather
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)])
    >>> found = gather(model, np.ones((8, 2)), ["gate_gradient_squared"])
    >>> found
    Statistics(gate_gradient, gate_gradient_squared, 8 samples)
    >>> found.channels["gate_gradient_squared"]["hidden"].shape
    (3,)
    """

    num_samples: int
    variables: Mapping[str, Arrays] = field(default_factory=dict)
    channels: Mapping[str, Arrays] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Statistics({', '.join([*sorted(self.names), f'{self.num_samples} samples'])})"

    @property
    def names(self) -> frozenset[str]:
        """The names of the statistics that were gathered."""
        return frozenset({**self.variables, **self.channels})

    def of_group(self, name: str) -> dict[str, np.ndarray]:
        """Return what is known of a channel group, by the name of the statistic."""
        return {statistic: arrays[name] for statistic, arrays in self.channels.items() if name in arrays}

    def of_variable(self, path: str) -> dict[str, np.ndarray]:
        """Return what is known of a variable, by the name of the statistic."""
        return {statistic: arrays[path] for statistic, arrays in self.variables.items() if path in arrays}

    def each(self) -> Iterator[tuple[str, str, str, np.ndarray]]:
        """Yield all arrays, each behind `"variables"` or `"channels"`, the statistic, and the path or group."""
        for kind, found in (("variables", self.variables), ("channels", self.channels)):
            for statistic, arrays in found.items():
                for name, array in arrays.items():
                    yield kind, statistic, name, array

    def check_fits(self, model: keras.Model) -> None:
        """Raise if these are the statistics of another model.

        Args:
            model: The model.

        Raises:
            ValueError: If it has no variable or channel group of one of the names, or of another shape.
        """
        sizes = {path: (group.size,) for path, group in named(analyse(model).groups).items()} if self.channels else {}
        shapes = {"variables": {each.path: tuple(each.shape) for each in model.weights}, "channels": sizes}
        for kind, statistic, name, array in self.each():
            known = shapes[kind].get(name)
            if known is None or known != array.shape[: len(known)]:
                there = "has nothing of that name" if known is None else f"has the shape {known} there"
                raise ValueError(
                    f"These are the statistics of another model: {statistic!r} of {name!r} has the shape "
                    f"{array.shape}, and {model.name!r} {there}. Gather them for this model."
                )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the statistics to a file.

        Args:
            path: Where; by custom it ends with `.npz`.

        Returns:
            The path.

        Raises:
            OSError: If it cannot be written.
        """
        each = [*self.each()]
        content = io.BytesIO()
        arrays: dict[str, Any] = {f"array_{number}": array for number, (*_, array) in enumerate(each)}
        arrays[_INDEX] = np.array(
            json.dumps({"num_samples": self.num_samples, "arrays": [names for *names, _ in each]})
        )
        np.savez(content, **arrays)
        return write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: keras.Model | None = None) -> "Statistics":
        """Read statistics from a file.

        Args:
            path: A file that `save` wrote.
            model: The model that they must be of; not checked if left out.

        Returns:
            The statistics.

        Raises:
            ValueError: If it is no such file, or they are of another model.
        """
        check_expansion(path)
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                index = json.loads(str(file[_INDEX]))
                each = [(*names, file[f"array_{number}"]) for number, names in enumerate(index["arrays"])]
                found: dict[str, dict[str, dict[str, np.ndarray]]] = {"variables": {}, "channels": {}}
                for kind, statistic, name, array in each:
                    found[kind].setdefault(statistic, {})[name] = array
                loaded = cls(int(index["num_samples"]), **found)
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise ValueError(f"{str(path)!r} holds no statistics, or is damaged: {error}.") from error
        if model is not None:
            loaded.check_fits(model)
        return loaded
