"""What was gathered: arrays by name, for variables and for channel groups."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Arrays = Mapping[str, np.ndarray]


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
    >>> found.num_samples, found.channels["gate_gradient_squared"]["hidden"].shape
    (8, (3,))
    """

    num_samples: int
    variables: Mapping[str, Arrays] = field(default_factory=dict)
    channels: Mapping[str, Arrays] = field(default_factory=dict)

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
