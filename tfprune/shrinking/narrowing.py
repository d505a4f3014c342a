"""Remove channels while training goes on: the copy's optimizer goes on where the model's is."""

import keras
import numpy as np

from tfprune.graph import Analysis
from tfprune.graph.counting import SizeCounter
from tfprune.graph.liveness import CONSTANT, arrivals
from tfprune.layers import scaling_factors
from tfprune.rewriting.cloning import rebuild_in_training
from tfprune.rewriting.optimizer_state import SlicedVariable
from tfprune.shrinking.factors import adds_zeros


def zero_labels(analysis: Analysis) -> np.ndarray:
    """Return the labels of the channels that can go and carry zeros wherever they are read.

    Those that carry constants would have to become part of a bias, which then trains in another way.

    Args:
        analysis: The analysis of a model.
    """
    constant = [
        analysis.labels[arrival.binding.channels[arrival.level == CONSTANT]]
        for arrival in arrivals(analysis.trace, analysis.labels)
    ]
    removed = analysis.removable()
    return removed[~np.isin(removed, np.concatenate([np.zeros(0, int), *constant]))]


def saved_macs(model: keras.Model, analysis: Analysis, removed: np.ndarray) -> float:
    """Return which fraction of the multiply-accumulates of a model goes with some channels.

    Args:
        model: A built Keras model.
        analysis: Its analysis.
        removed: Labels of channels.

    Raises:
        ValueError: If an input shape is not fixed.
    """
    size = SizeCounter(model, analysis)
    before, after = (size(analysis.alive(labels), ["macs"])["macs"] for labels in (removed[:0], removed))
    return 1 - after / before if before else 0.0


def narrow(model: keras.Model, analysis: Analysis, removed: np.ndarray) -> tuple[keras.Model, list[SlicedVariable]]:
    """Return a smaller copy that trains on as the model would with these channels held at zero.

    Args:
        model: A built and compiled Keras model; it is not changed.
        analysis: Its analysis.
        removed: Labels of channels that carry zeros.

    Returns:
        The copy, and which part of the model's variables each of its variables holds.

    Raises:
        ValueError: If the optimizer's state cannot be carried.
    """
    return rebuild_in_training(model, analysis, analysis.alive(removed))


def check_only_zeros(model: keras.Model, analysis: Analysis, removed: np.ndarray, alive: np.ndarray | None) -> None:
    """Raise if more than channels of zeros would leave a model, so that the rest would train in another way.

    Args:
        model: A built Keras model.
        analysis: Its analysis.
        removed: Labels of the channels that are to go.
        alive: If those are to be masked first, one bool per channel number; None if they are dead as they are.

    Raises:
        ValueError: If removed channels carry constants, or the model has scaling factors or branches that add zeros.
    """
    if scaling_factors(model) or (alive is None and adds_zeros(model)):
        raise ValueError(
            f"{model.name!r} has scaling factors, or residual branches that add zeros. shrink folds or removes them "
            "whole, after which the other weights train in another way. Shrink without carry_optimizer."
        )
    found = arrivals(analysis.trace, analysis.labels, alive)
    constant = {
        arrival.call.layer.name: None
        for arrival in found
        if np.isin(analysis.labels[arrival.binding.channels[arrival.level == CONSTANT]], removed).any()
    }
    if constant:
        raise ValueError(
            f"Channels that go leave constants, which shrink adds to the biases of {', '.join(map(repr, constant))}. "
            "Biases train in another way than the constants would. Make beta and bias of those channels zero too, as "
            "the callbacks of tfprune do when training ends, or shrink without carry_optimizer."
        )
