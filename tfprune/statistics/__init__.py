"""What data says about a model: gathered in one pass, for all criteria that ask."""

from tfprune.statistics.gathering import gather, known_statistics
from tfprune.statistics.results import Statistics

__all__ = ["Statistics", "gather", "known_statistics"]
