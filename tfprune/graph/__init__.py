"""Which channels of a model belong together: tracing, one rule per layer kind, and groups."""

from tfprune.graph.costs import multiply_accumulates
from tfprune.graph.groups import Analysis, ChannelGroup, ChannelGroups, Member, analyse, channel_groups
from tfprune.graph.kinds import KernelAxes, LayerKind, register_kind
from tfprune.graph.record import Call, Role
from tfprune.graph.rules import find_rule, rule
from tfprune.graph.walk import (
    Node,
    check_built,
    check_traceable,
    functional,
    is_graph,
    nested,
    output_structure,
    room_for,
    walk,
)

__all__ = [
    "Analysis",
    "Call",
    "ChannelGroup",
    "ChannelGroups",
    "KernelAxes",
    "LayerKind",
    "Member",
    "Node",
    "Role",
    "analyse",
    "channel_groups",
    "check_built",
    "check_traceable",
    "find_rule",
    "functional",
    "is_graph",
    "multiply_accumulates",
    "nested",
    "output_structure",
    "register_kind",
    "room_for",
    "rule",
    "walk",
]
