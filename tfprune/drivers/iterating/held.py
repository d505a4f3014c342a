"""The masks that a round has chosen, held in every step of its training."""

from tfprune.callbacks.weights.base import SparseTraining
from tfprune.distributions import uniform
from tfprune.graph.exclude import Exclude
from tfprune.parts.lazy_arrays import Arrays
from tfprune.schedules import Constant


class HoldMasks(SparseTraining):
    """Hold the masks that the weights carry, and change none.

    Args:
        exclude: Layers whose weights carry none.
    """

    def __init__(self, exclude: Exclude = None) -> None:
        super().__init__(Constant(0.0), uniform, None, exclude, None, seed=0)

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Take the masks that the weights carry."""
        return recorded

    def due(self, time: int) -> bool:
        """Never: the masks stay."""
        return False
