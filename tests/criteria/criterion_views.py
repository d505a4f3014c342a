"""Views made by hand."""

import numpy as np

from tfprune.criteria import MemberView


def member(weights, role, *, effect=None, axis=0, name="kernel", channels=None, **options):
    """The slices of one variable; by default those on the axis belong to channels 0, 1, and so on."""
    weights = np.array(weights)
    channels = np.arange(weights.shape[axis]) if channels is None else np.array(channels)
    return MemberView(name, lambda: weights, role, effect, axis, channels, **options)
