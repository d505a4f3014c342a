"""The rank of a noisy matrix by variational Bayes, in closed form."""

import numpy as np


def vbmf_rank(matrix: np.ndarray) -> int:
    """Return how many singular values of a matrix stand out of noise: its rank by empirical variational Bayes.

    The variance of the noise is estimated too: it minimizes the free energy, which depends on the singular values
    alone.

    Reference: Nakajima et al., Global Analytic Solution of Fully-observed Variational Bayesian Matrix Factorization,
    JMLR 2013, https://www.jmlr.org/papers/v14/nakajima13a.html

    Args:
        matrix: A matrix.

    Returns:
        The rank; 0 if all of it looks like noise.

    Example:

    >>> random = np.random.default_rng(0)
    >>> signal = random.normal(size=(30, 3)) @ random.normal(size=(3, 50))
    >>> vbmf_rank(signal + 0.5 * random.normal(size=(30, 50)))
    3
    """
    rows, columns = sorted(matrix.shape)
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    if not squares[0] > 0:
        return 0
    ratio = rows / columns
    tau = 2.5129 * np.sqrt(ratio)
    edge = (1 + tau) * (1 + ratio / tau)  # of an observation in units of noise: what lies above is signal
    variance = _noise(squares, columns, ratio, edge)
    return int(np.count_nonzero(squares > columns * variance * edge))


def _noise(squares: np.ndarray, columns: int, ratio: float, edge: float) -> float:
    """The variance of the noise."""
    rows = len(squares)
    rank = max(min(int(np.ceil(rows / (1 + ratio))) - 1, rows - 1), 0)  # there is no more signal than that
    rest = squares[rank:]
    highest = squares.sum() / (rows * columns)
    # Of a matrix without noise the rest is zero, and any variance far below its smallest singular value will do.
    lowest = max(rest[0] / (columns * edge), rest.mean() / columns, 1e-12 * highest)
    for _ in range(4):  # the free energy has kinks: a grid, then finer ones around its lowest point
        grid = np.geomspace(lowest, max(highest, lowest), 200)
        best = int(np.argmin([_free_energy(squares / (columns * each), each, ratio, edge) for each in grid]))
        lowest, highest = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(grid[best])


def _free_energy(observed: np.ndarray, variance: float, ratio: float, edge: float) -> float:
    """The free energy of a noise variance, given squares in units of it; but for what does not depend on it."""
    energy = observed.sum() + len(observed) * np.log(variance)
    signal = observed[observed > edge]
    shifted = signal - (1 + ratio)
    tau = (shifted + np.sqrt(shifted**2 - 4 * ratio)) / 2
    return float(energy + (np.log(tau + 1) + ratio * np.log(tau / ratio + 1) - tau).sum())
