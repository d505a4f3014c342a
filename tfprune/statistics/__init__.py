"""What data says about a model: gathered in one pass, for all criteria that ask."""

from tfprune.statistics.gathering import gather
from tfprune.statistics.results import Statistics

__all__ = ["Statistics", "gather"]
