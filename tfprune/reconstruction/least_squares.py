"""Least squares from normal equations that are added up in float64, batch by batch."""

import numpy as np


class NormalEquations:
    """What least squares needs to know of `rows @ matrix = targets`: its memory does not grow with the rows.

    Args:
        groups: How many independent problems there are.
        inputs: How many numbers each of them has in a row.
        outputs: How many targets each of them has.

    Attributes:
        count: How many rows were added.
    """

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self.count = 0
        self._gram = np.zeros((groups, inputs, inputs))
        self._cross = np.zeros((groups, inputs, outputs))
        self._square = np.zeros((groups, outputs))
        self._row_sum, self._target_sum = np.zeros((groups, inputs)), np.zeros((groups, outputs))

    def add(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Add rows `(count, groups, inputs)` and their targets `(count, groups, outputs)`."""
        # In one piece, for which NumPy has a fast product.
        rows, targets = (np.ascontiguousarray(array.transpose(1, 0, 2)) for array in (rows, targets))
        self.count += rows.shape[1]
        self._gram += np.matmul(rows.transpose(0, 2, 1), rows)
        self._cross += np.matmul(rows.transpose(0, 2, 1), targets)
        self._square += (targets**2).sum(axis=1)
        self._row_sum += rows.sum(axis=1)
        self._target_sum += targets.sum(axis=1)

    def offset(self, matrix: np.ndarray) -> np.ndarray:
        """Return the bias that goes best with a matrix, `(groups, outputs)`: what it leaves of the targets' mean."""
        return (self._target_sum - np.einsum("gd,gdm->gm", self._row_sum, matrix)) / self.count

    def centred(self) -> "NormalEquations":
        """Return the equations of rows and targets whose means are zero: what a bias does not have to explain."""
        centred = NormalEquations(*self._cross.shape)
        rows, targets = self._row_sum / self.count, self._target_sum / self.count
        centred.count = self.count
        centred._gram = self._gram - self.count * rows[:, :, None] * rows[:, None, :]
        centred._cross = self._cross - self.count * rows[:, :, None] * targets[:, None, :]
        centred._square = self._square - self.count * targets**2
        return centred

    def solution(self, present: np.ndarray, ridge: float) -> np.ndarray:
        """Return `(A'A + lambda I)^-1 (A'T + lambda W)`, the least squares that stay near the present matrix W.

        Args:
            present: The present matrix, `(groups, inputs, outputs)`.
            ridge: Lambda over the mean of the diagonal of A'A; above 0, or infinite for the present matrix itself.

        Returns:
            The new matrix.
        """
        if ridge == np.inf:
            return present
        size = self._gram.shape[1]
        strength = ridge * np.trace(self._gram, axis1=1, axis2=2) / size
        strength = np.maximum(strength, np.finfo(float).tiny)[:, None, None]  # where no input ever varies, W stays
        # Solved for the change, so that a matrix that is right already comes back bit for bit.
        change = np.linalg.solve(self._gram + strength * np.eye(size), self._cross - np.matmul(self._gram, present))
        return present + change

    def error(self, matrix: np.ndarray, missing: np.ndarray | None = None) -> float:
        """Return the sum of squares that a matrix leaves over that of the targets; 0 where all targets are 0.

        Args:
            matrix: The matrix.
            missing: By how much all rows are off beside that, `(groups, outputs)`.
        """
        explained = 2 * (matrix * self._cross).sum() - (matrix * np.matmul(self._gram, matrix)).sum()
        total = float(self._square.sum())
        left = max(0.0, total - float(explained)) + (0.0 if missing is None else self.count * float((missing**2).sum()))
        return left / total if total > 0 else 0.0
