"""K-means in one dimension: sorted numbers, in which every cluster is a slice."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

Init: TypeAlias = Literal["k-means++", "linear", "density", "gaussian mixture"]

_MAX_ITERATIONS = 300
_MAX_MIXED = 20_000  # numbers that a mixture is fitted to; its start is one of many


def k_means(values: np.ndarray, clusters: int, init: Init = "k-means++", seed: int = 0) -> np.ndarray:
    """Return the centroids of numbers, by Lloyd's algorithm.

    Reference: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 1982,
    https://doi.org/10.1109/TIT.1982.1056489

    Args:
        values: Finite numbers, in any shape; at least one.
        clusters: How many centroids, at least 1.
        init: Where they start: `"k-means++"`, `"linear"` (evenly from the smallest to the largest number), `"density"`
            (as many numbers between any two) or `"gaussian mixture"` (at the means of one, fitted by scikit-learn).
        seed: Of random choices.

    Returns:
        The centroids in ascending order, `(clusters,)`, float64. Of fewer different numbers than `clusters` these
        themselves, of which the last is repeated.

    Raises:
        ImportError: If scikit-learn is needed and not installed.

    Example:

    >>> k_means(np.array([0.0, 1.0, 10.0, 12.0]), 2, "linear").tolist()
    [0.5, 11.0]
    """
    points, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    if len(points) <= clusters:
        return np.pad(points, (0, clusters - len(points)), mode="edge")
    centroids = np.sort(_STARTS[init](points, counts, clusters, np.random.default_rng(seed)))
    totals = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0], np.cumsum(points * counts)])
    for _ in range(_MAX_ITERATIONS):
        ends = np.searchsorted(points, _midpoints(centroids), side="right")
        bounds = np.concatenate([[0], ends, [len(points)]])
        sizes = np.diff(totals[bounds])
        # One without members stays where it is.
        moved = np.where(sizes > 0, np.diff(sums[bounds]) / np.maximum(sizes, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = np.sort(moved)
    return centroids


def nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return for each number the position of the nearest centroid, of two equally near ones the smaller.

    Args:
        values: Numbers of any shape.
        centroids: In ascending order, `(clusters,)`.

    Returns:
        An int array of the shape of `values`.

    Example:

    >>> nearest(np.array([[0.4, 0.5], [0.6, 7.0]]), np.array([0.0, 1.0])).tolist()
    [[0, 0], [1, 1]]
    """
    return np.searchsorted(_midpoints(centroids), values, side="left")


def _midpoints(centroids: np.ndarray) -> np.ndarray:
    middle: np.ndarray = (centroids[:-1] + centroids[1:]) / 2
    return middle


def _spread_out(points: np.ndarray, counts: np.ndarray, clusters: int, random: np.random.Generator) -> np.ndarray:
    """Numbers drawn by their squared distance from those drawn before, the best of a few each time.

    Reference: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007
    """
    chosen = [random.choice(points, p=counts / counts.sum())]
    distances = (points - chosen[0]) ** 2
    for _ in range(clusters - 1):
        weights = distances * counts
        tried = random.choice(points, size=2 + int(np.log(clusters)), p=weights / weights.sum())
        nearer = [np.minimum(distances, (points - each) ** 2) for each in tried]
        best = int(np.argmin([(each * counts).sum() for each in nearer]))
        chosen.append(tried[best])
        distances = nearer[best]
    return np.array(chosen)


def _linear(points: np.ndarray, counts: np.ndarray, clusters: int, random: np.random.Generator) -> np.ndarray:
    return np.linspace(points[0], points[-1], clusters)


def _density(points: np.ndarray, counts: np.ndarray, clusters: int, random: np.random.Generator) -> np.ndarray:
    shares = (np.arange(clusters) + 0.5) / clusters
    reached = np.searchsorted(np.cumsum(counts), shares * counts.sum())
    return np.asarray(points[reached], np.float64)


def _mixture(points: np.ndarray, counts: np.ndarray, clusters: int, random: np.random.Generator) -> np.ndarray:
    """The means of a mixture of normal distributions, which follow the shape of what weights are made of."""
    check_installed("gaussian mixture")
    mixture = importlib.import_module("sklearn.mixture")
    drawn = np.repeat(points, counts)
    if len(drawn) > _MAX_MIXED:
        drawn = random.choice(drawn, _MAX_MIXED, replace=False)
    start = _density(*np.unique(drawn, return_counts=True), clusters, random)
    spread = drawn.std() or 1.0  # what scikit-learn adds to variances is made for numbers of about 1
    fitted = mixture.GaussianMixture(clusters, means_init=start[:, None] / spread, max_iter=50, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged: Lloyd's algorithm goes on from there
        return np.asarray(fitted.fit(drawn[:, None] / spread).means_[:, 0] * spread, np.float64)


def check_installed(init: str) -> None:
    """Raise if a start needs a package that is not installed.

    Raises:
        ImportError: If scikit-learn is needed and not installed.
    """
    if init == "gaussian mixture" and importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "init='gaussian mixture' needs scikit-learn, which is not installed: "
            '`pip install "tfprune[clustering]"`. The other ways to start need nothing.'
        )


_STARTS: dict[Init, Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "k-means++": _spread_out,
    "linear": _linear,
    "density": _density,
    "gaussian mixture": _mixture,
}
