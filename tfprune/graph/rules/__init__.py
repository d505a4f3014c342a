"""What each kind of layer does to channels: one module a family, one rule a kind."""

from tfprune.graph.rules import convolution, dense, elementwise, merging, normalization, operations, reshaping, spatial
from tfprune.graph.rules.registry import RULES, Alive, LayerRule, find_rule, rule

__all__ = [
    "RULES",
    "Alive",
    "LayerRule",
    "convolution",
    "dense",
    "elementwise",
    "find_rule",
    "merging",
    "normalization",
    "operations",
    "reshaping",
    "rule",
    "spatial",
]
