"""The networks of `keras.applications` by name, each with its own preprocessing and smallest size."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

SMALLEST = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
"""Height and width that these take at least; others take 32."""


@dataclass(frozen=True)
class Backbone:
    """A network of `keras.applications`.

    Attributes:
        build: The function that makes it.
        preprocess_input: Scales pixels from 0 to 255 as it expects them; changes what it is given.
        smallest: The least height and width that it takes.
    """

    build: Callable[..., keras.Model]
    preprocess_input: Callable[[np.ndarray], np.ndarray]
    smallest: int

    def check_size(self, name: str, size: int) -> None:
        """Raise a ValueError if it does not take images of this size."""
        if size < self.smallest:
            raise ValueError(
                f"{name} takes images of at least {self.smallest} pixels. Received: --image-size {size}. Give "
                f"--image-size {self.smallest} or more."
            )


def backbones() -> dict[str, Backbone]:
    """Return the networks of `keras.applications` by name."""
    found = {}
    for name, build in vars(keras.applications).items():
        if name[0].isupper():
            module = getattr(keras.applications, build.__module__.rpartition(".")[2])
            found[name] = Backbone(build, module.preprocess_input, SMALLEST.get(name, 32))
    return found
