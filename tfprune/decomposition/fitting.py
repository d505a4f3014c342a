"""The kernels that take the place of one, fitted to what goes into it where data says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.data import Reader, inputs_of
from tfprune.decomposition.base import Method, Piece, Ranks, product, relative_loss
from tfprune.decomposition.sites import Site
from tfprune.statistics.input_grams import InputGrams

_MAX_SAMPLES = 1024
_DAMPING = 0.01
"""Of the mean variance: directions that the samples do not show still count a little."""


@dataclass(frozen=True)
class Moments:
    """What goes into a layer, in one window.

    Attributes:
        covariance: In the order of the kernel; the second moments if the layer has no bias to take up a mean.
        mean: The mean.
    """

    covariance: np.ndarray
    mean: np.ndarray


class Activations:
    """Measures what goes into layers, one after another; one look at the data for each.

    Args:
        model: The model; it is not changed.
        sites: The layers.
        data: Samples in any form that `fit` takes; up to 1,024 are used. None: nothing is known.

    Raises:
        TypeError: If the data has another form.
        ValueError: If it does not fit the model.
    """

    def __init__(self, model: keras.Model, sites: Sequence[Site], data: Any) -> None:
        self._sites, self._grams = sites, None
        if data is not None:
            reader = Reader(data, inputs_of(model), max_samples=_MAX_SAMPLES)
            self._grams = InputGrams(model, [site.layer for site in sites], reader, ones=True)

    def of(self, index: int) -> Moments | None:
        """Return what goes into a layer, or None where there is no data."""
        if self._grams is None:
            return None
        sums = self._grams(index).astype(np.float64)
        moments, mean = sums[:-1, :-1] / sums[-1, -1], sums[-1, :-1] / sums[-1, -1]
        if self._sites[index].layer.bias is not None:
            moments = moments - np.outer(mean, mean)
        damping = _DAMPING * max(np.trace(moments) / len(moments), np.finfo(np.float32).tiny)
        return Moments(moments + damping * np.eye(len(moments)), mean)


@dataclass(frozen=True)
class Fitted:
    """What takes the place of a layer.

    Attributes:
        pieces: What the layers are.
        factors: Their kernels, in float64.
        shift: What is added to the bias.
        loss: The squared error over the squared norm, of the kernel or of what comes out.
    """

    pieces: tuple[Piece, ...]
    factors: list[np.ndarray]
    shift: np.ndarray | float
    loss: float


def fitted(site: Site, method: Method, ranks: Ranks, moments: Moments | None) -> Fitted:
    """Return the layers that take the place of another.

    Args:
        site: The layer.
        method: How it is decomposed.
        ranks: With which ranks.
        moments: What goes into it, if that is known.
    """
    kernel, pieces = site.kernel, method.pieces(site.shape, ranks)
    covariance = None if moments is None else moments.covariance
    factors = method.factors(kernel, ranks, covariance)
    if covariance is not None and not method.optimal_on_data:
        factors[-1] = refitted(kernel, pieces, factors, covariance)
    close = product(pieces, factors)
    missing = (kernel - close).reshape(-1, kernel.shape[-1])
    shift = 0.0 if moments is None else moments.mean @ missing
    return Fitted(pieces, factors, shift, relative_loss(kernel, close, covariance))


def refitted(
    kernel: np.ndarray, pieces: Sequence[Piece], factors: Sequence[np.ndarray], covariance: np.ndarray
) -> np.ndarray:
    """Return the last kernel of several that brings their outputs nearest to those of one kernel.

    Args:
        kernel: The kernel.
        pieces: What comes in its place.
        factors: The kernels of those; the last one is replaced.
        covariance: That of the inputs in one window.
    """
    before, last = product(pieces[:-1], factors[:-1]), factors[-1]
    made = last.shape[-1]
    design = np.zeros((*kernel.shape[:-1], *last.shape[:-1]))
    for place in np.ndindex(last.shape[:-2]):  # each place of the last window reads its own part of the whole one
        there = [slice(at, at + 1) if width > 1 else slice(None) for at, width in zip(place, last.shape, strict=False)]
        design[(*there, ..., *place, slice(None))] = before
    matrix = design.reshape(-1, last.size // made)
    wanted = kernel.reshape(-1, made) - matrix @ last.reshape(-1, made)
    weighted = matrix.T @ covariance
    gram = weighted @ matrix
    # Solved for the change, with a trace of a ridge: a factor whose inputs are alike stays near what it was.
    ridge = max(1e-9 * np.trace(gram) / len(gram), np.finfo(float).tiny)
    change = np.linalg.solve(gram + ridge * np.eye(len(gram)), weighted @ wanted)
    return last + change.reshape(last.shape)
