"""Callbacks for `model.fit`."""

from tfprune.callbacks import filters, monitors, penalties, weights
from tfprune.callbacks.filters import *  # noqa: F403
from tfprune.callbacks.monitors import *  # noqa: F403
from tfprune.callbacks.penalties import *  # noqa: F403
from tfprune.callbacks.weights import *  # noqa: F403

__all__ = []
__all__ += filters.__all__
__all__ += monitors.__all__
__all__ += penalties.__all__
__all__ += weights.__all__
