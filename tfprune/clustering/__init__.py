"""Weight sharing: kernels with a few different values."""

from tfprune.clustering.post_training import cluster

__all__ = ["cluster"]
