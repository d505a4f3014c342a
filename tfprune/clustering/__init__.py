"""Weight sharing: kernels with a few different values."""

from tfprune.clustering.aware import cluster_aware, is_cluster_aware, strip_clusters
from tfprune.clustering.post_training import cluster

__all__ = ["cluster", "cluster_aware", "is_cluster_aware", "strip_clusters"]
