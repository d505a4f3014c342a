"""Which channels of a model stay."""

import numpy as np
from hypothesis import strategies as st


def choose(draw, analysis):
    """For each free group, which channels stay: at least one in every variable and every part of a tensor."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    ratio = draw(st.sampled_from([0.2, 0.5, 0.8, 1.0]))
    dead = [
        group.labels[group.keep_one_each(random.uniform(size=group.size) < ratio)] for group in analysis.groups.free
    ]
    removed = analysis.spare(np.concatenate([np.zeros(0, int), *dead]))
    return [(group, ~np.isin(group.labels, removed)) for group in analysis.groups.free]
