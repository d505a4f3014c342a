"""What is pruned together, and how many: from scores to a mask with an exact count."""

from tfprune.granularity.base import Granularity, check_granularity
from tfprune.granularity.channel import Channel
from tfprune.granularity.ranks import floor_share, prune_lowest
from tfprune.granularity.weights import Block, NofM, Unstructured

__all__ = [
    "Block",
    "Channel",
    "Granularity",
    "NofM",
    "Unstructured",
    "check_granularity",
    "floor_share",
    "prune_lowest",
]
