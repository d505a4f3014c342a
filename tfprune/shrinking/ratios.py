"""Different ratios for different groups, by hand."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfprune.common.checks import check_fraction
from tfprune.graph import Analysis, ChannelGroup
from tfprune.shrinking.removal import own_group

Ratios = Mapping[Any, float] | Callable[[ChannelGroup], float]
"""The fraction to prune by `ChannelGroup`, by a layer that makes the channels, or as a function of the group."""


def resolve_ratios(analysis: Analysis, ratios: Ratios) -> list[float]:
    """Return the fraction to prune of each free group.

    Args:
        analysis: The analysis of a model.
        ratios: See `Ratios`. A layer stands for the groups that it makes, or if it makes none, as BatchNormalization,
            for those that it carries. What is not named keeps all channels.

    Returns:
        One ratio per free group.

    Raises:
        TypeError: If a key is neither a group nor a layer.
        ValueError: If a ratio is not in [0, 1), a key is foreign or frozen, or two keys disagree about a group.
    """
    free = analysis.groups.free
    if not isinstance(ratios, Mapping):
        return [check_fraction(f"The ratio for {group.name!r}", ratios(group)) for group in free]
    given: dict[int, tuple[float, str]] = {}
    for key, ratio in ratios.items():
        name = repr(getattr(key, "name", key))
        check_fraction(f"The ratio for {name}", ratio)
        for group in _groups_of(analysis, key):
            earlier = given.setdefault(id(group), (ratio, name))
            if earlier[0] != ratio:
                raise ValueError(
                    f"{earlier[1]} and {name} belong to the group {group.name!r}, whose channels go together, but "
                    f"their ratios are {earlier[0]} and {ratio}. Give one ratio."
                )
    return [given[id(group)][0] if id(group) in given else 0.0 for group in free]


def _groups_of(analysis: Analysis, key: ChannelGroup | keras.layers.Layer) -> list[ChannelGroup]:
    groups = analysis.groups
    if isinstance(key, ChannelGroup):
        return [own_group(groups, key, "ratio")]
    if not isinstance(key, keras.layers.Layer):
        raise TypeError(
            "ratio must map groups of tfprune.channel_groups(model) or layer objects to fractions. Received the key "
            f"{key!r}. For a layer by name, pass model.get_layer(name)."
        )
    made = [group for group in groups if any(member.layer is key for member in group.producers)]
    carried = [group for group in groups if any(member.layer is key for member in group.with_role("affine"))]
    found = made or carried
    if not found:
        raise ValueError(
            f"ratio names {key.name!r}, which makes no channels of {groups.model!r}. Name a layer that does, or a "
            "group: print(tfprune.channel_groups(model)) shows them."
        )
    free = [group for group in found if not group.frozen]
    if not free:
        raise ValueError(f"ratio names {key.name!r}, but its channels are frozen: {'; '.join(found[0].frozen)}.")
    return free
