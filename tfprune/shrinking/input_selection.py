"""Channels that end in one branch while others go on reading them: what a BatchNormalization can lose alone."""

import keras
import numpy as np

from tfprune.graph import Analysis, analyse
from tfprune.graph.liveness import dead_labels
from tfprune.parts.gammas import switched_channels


def ended_channels(model: keras.Model, approximate: bool = False) -> tuple[Analysis, np.ndarray] | None:
    """Find the channels that a branch can lose alone, because its BatchNormalization has no gamma and no beta for them.

    Args:
        model: A built Sequential or functional Keras model.
        approximate: See `tfprune.channel_groups`.

    Returns:
        An analysis in which they are channels of their own behind the layer, and their labels; `None` if there is none.

    Example:

    >>> inputs = keras.Input((4, 4, 3))
    >>> trunk = keras.layers.Conv2D(3, 1)(inputs)
    >>> normalization = keras.layers.BatchNormalization()
    >>> branch = keras.layers.Conv2D(3, 1, name="branch")(normalization(trunk))
    >>> model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(keras.layers.Add()([trunk, branch])))
    >>> gamma = normalization.gamma.assign([1, 0, 1])
    >>> analysis, labels = ended_channels(model)
    >>> len(labels)
    1
    """
    cut = _dead_positions(model, analyse(model, approximate=approximate))
    if not cut:
        return None
    analysis = analyse(model, approximate=approximate, cut=cut)
    trace, labels = analysis.trace, analysis.labels
    own = np.zeros(trace.num_channels, bool)
    for key, positions in cut.items():
        own[trace.bindings[key, 0].channels[positions]] = True
    shared = np.zeros(trace.num_channels, bool)
    shared[labels[~own]] = True  # tied to channels that stay, for example by a grouped convolution
    dead = dead_labels(trace, labels)
    ended = np.unique(labels[own])
    removed = analysis.spare(ended[dead[ended] & ~shared[ended]])
    return (analysis, removed) if removed.size else None


def _dead_positions(model: keras.Model, analysis: Analysis) -> dict[int, np.ndarray]:
    """For each gamma (by id) that selects inputs, where it and beta are zero."""
    graphs = [model, *analysis.trace.views.values()]
    in_line = {id(layer) for graph in graphs if isinstance(graph, keras.Sequential) for layer in graph.layers}
    found = {}
    layers = {id(call.layer.gamma): call.layer for call in analysis.trace.calls if hasattr(call.layer, "gamma")}
    for each in switched_channels(analysis, leave=lambda layer: id(layer) in in_line):
        if each.selects_inputs:
            (gammas,) = each.structure.slices
            layer = layers[id(gammas.variable)]
            dead = (layer.gamma.numpy() == 0) & (gammas.parts >= 0)
            if layer.beta is not None:
                dead &= layer.beta.numpy() == 0
            if dead.any():
                found[id(layer.gamma)] = np.flatnonzero(dead)
    return found
