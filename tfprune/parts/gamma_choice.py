"""Which channels the gammas of BatchNormalization choose: the smallest of the whole network."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np

from tfprune.granularity import floor_share, prune_lowest
from tfprune.graph import Analysis
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.parts.gammas import Switched, describe_missing, not_trained, switched_channels
from tfprune.training.masks import Masks, merge_masks


def trained_switches(model: keras.Model, analysis: Analysis, exclude: Exclude, who: str) -> list[Switched]:
    """Find which channels are switched by gammas that train and are not excluded.

    Args:
        model: The model.
        analysis: Its analysis.
        exclude: Layers to leave alone.
        who: The callback, for the message.

    Raises:
        ValueError: If no channel is.
    """
    excluded = resolve_exclude(model, exclude)
    found = switched_channels(analysis, lambda layer: excluded(layer) or not_trained(layer))
    if not found:
        raise ValueError(f"{who} finds nothing to prune. {describe_missing(model, analysis)}\n{analysis.groups}")
    return found


def mean_magnitudes(magnitudes: np.ma.MaskedArray) -> np.ndarray:
    """Return the mean of |gamma| over the layers that a channel passes through: it does not grow with their number.

    Args:
        magnitudes: As `Switched.magnitudes` returns them.
    """
    return magnitudes.mean(axis=0).data


def masks_without(switched: Sequence[Switched], gone: Sequence[np.ndarray]) -> Masks:
    """Return masks of all that makes and carries channels.

    Args:
        switched: The channels.
        gone: For each of `switched`, one bool per channel, True for those that go.
    """
    masks: Masks = {}
    for each, channels in zip(switched, gone, strict=True):
        if channels.any():
            merge_masks(masks, each.carriers.masks(channels))
    return masks


def check_any_goes(switched: Sequence[Switched], ratio: float, left: int = 0) -> None:
    """Raise a ValueError if a ratio of all switched channels, and of those that have left the model, is none."""
    total = left + sum(each.structure.size for each in switched)
    if not floor_share(total, ratio):
        raise ValueError(
            f"At a ratio of {ratio:g} no channel would be pruned: gammas switch {total} channels, and counts are "
            f"rounded down. Use a ratio of at least {1 / total:.3g}."
        )


def choose_lowest(
    switched: Sequence[Switched],
    scores: Sequence[np.ndarray],
    ratio: float,
    min_channels: int,
    stacklevel: int = 2,
    left: int = 0,
) -> list[np.ndarray]:
    """Choose the channels of the lowest scores, ranked together; of equal ones the later go.

    Args:
        switched: The channels.
        scores: For each of `switched`, one score per channel; -inf for one that is gone already, which counts.
        ratio: The fraction of all channels that goes, rounded down.
        min_channels: How many of each always stay, unless they are gone; others go in their place.
        stacklevel: Whose line a warning names.
        left: How many channels have left the model already; they count as gone.

    Returns:
        For each of `switched`, one bool per channel, True for those that go.

    Raises:
        ValueError: If a score is NaN.

    Warns:
        UserWarning: If so many cannot go.
    """
    if np.isnan(np.concatenate(scores)).any():
        raise ValueError("Gammas are NaN, so channels have no rank. Lower the learning rate.")
    stay = [each.protected(s, min_channels) for each, s in zip(switched, scores, strict=True)]
    ranked = np.concatenate([np.where(p & (s > -np.inf), np.inf, s) for p, s in zip(stay, scores, strict=True)])
    wanted, possible = max(floor_share(len(ranked) + left, ratio) - left, 0), int((ranked < np.inf).sum())
    if wanted > possible:
        warnings.warn(
            f"A ratio of {ratio:g} asks for {wanted} of {len(ranked)} channels, but only {possible} can go: every "
            f"layer keeps {min_channels}. Lower the ratio or min_channels.",
            stacklevel=stacklevel + 1,
        )
    kept = prune_lowest(ranked, max(min(wanted, possible), int((ranked == -np.inf).sum())))
    return [~part for part in np.split(kept, np.cumsum([len(s) for s in scores])[:-1])]
