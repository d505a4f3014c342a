"""Low rank: layers taken apart into products of smaller ones."""

from tfprune.decomposition.cp import CP
from tfprune.decomposition.decomposer import choose_ranks, decompose
from tfprune.decomposition.ranks import VBMF, ChosenRanks, LayerRanks
from tfprune.decomposition.svd import SVD, SpatialSVD
from tfprune.decomposition.tucker import Tucker

__all__ = [
    "CP",
    "SVD",
    "VBMF",
    "ChosenRanks",
    "LayerRanks",
    "SpatialSVD",
    "Tucker",
    "choose_ranks",
    "decompose",
]
