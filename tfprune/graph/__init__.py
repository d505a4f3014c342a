"""Which channels of a model belong together: tracing, one rule per layer kind, and groups."""

from tfprune.graph.costs import multiply_accumulates
from tfprune.graph.groups import ChannelGroup, ChannelGroups, Member, channel_groups
from tfprune.graph.rules import rule
from tfprune.graph.trace import Call, Role
from tfprune.graph.walk import Node, check_traceable, walk

__all__ = [
    "Call",
    "ChannelGroup",
    "ChannelGroups",
    "Member",
    "Node",
    "Role",
    "channel_groups",
    "check_traceable",
    "multiply_accumulates",
    "rule",
    "walk",
]
