"""What the larger model computes, at the positions that a layer is fitted on."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.data import Batch
from tfprune.reconstruction.playback import Moment, array_of, play
from tfprune.reconstruction.readings import Reading, reading_of
from tfprune.reconstruction.shortcuts import Shortcut, unscaled
from tfprune.rewriting.kept_positions import KeptPositions

POSITIONS = 4096
PER_UNKNOWN = 4
"""A layer is fitted on so many positions, or on so many for each number to fit if that is more."""

Where = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Target:
    """What a layer should compute before its activation.

    Attributes:
        where: For each batch, the positions: an index array for each axis.
        outputs: For each batch, the values of the channels that stayed, `(positions, channels)`.
        shortcut: For each batch, what is added to it later on, or `None` if that is not known.
        unscaled: What a difference behind the normalization that follows is before it, per channel.
        per_sample: How many positions a sample has.
    """

    where: list[Where]
    outputs: list[np.ndarray]
    shortcut: list[np.ndarray] | None
    unscaled: np.ndarray
    per_sample: int


class Targets:
    """Runs the larger model as far as it is asked for.

    Args:
        model: The larger model.
        kept: Which positions of its kernels stayed.
        batches: The samples.
        seed: Of the positions.
    """

    def __init__(self, model: keras.Model, kept: KeptPositions, batches: list[Batch], seed: int) -> None:
        self._model, self._kept = model, kept
        self._moments = play(model, batches)
        self._generator = np.random.default_rng(seed)
        self._found: dict[str, Target] = {}

    def of(self, name: str) -> Target:
        """Return the target of a kernel, once."""
        while name not in self._found:
            moment = next(self._moments, None)
            if moment is None:
                raise ValueError(f"{self._model.name!r} never calls a layer with the kernel {name!r}.")
            reading = reading_of(moment.node.operation)
            key = f"{moment.name}/{reading.axes.attribute}" if reading is not None else ""
            if reading is not None and key in self._kept.axes:
                self._found[key] = self._target(moment, reading, self._outputs_kept(key, reading))
        return self._found.pop(name)

    def _outputs_kept(self, name: str, reading: Reading) -> np.ndarray:
        axes, shape = self._kept.axes[name], self._kept.shapes[name]
        made = reading.axes.output_axes
        grid = np.meshgrid(*(axes[axis] for axis in made), indexing="ij")
        return np.ravel_multi_index(tuple(grid), tuple(shape[axis] for axis in made)).ravel()

    def _target(self, moment: Moment, reading: Reading, kept: np.ndarray) -> Target:
        places = [reading.places(batch.shape) for batch in moment.inputs]
        unknowns = reading.matrix(reading.kernel.numpy()).shape[1]
        where = self._positions(places, max(POSITIONS, PER_UNKNOWN * unknowns))
        outputs = [
            reading.outputs(array_of(batch), chosen)[:, kept]
            for batch, chosen in zip(moment.inputs, where, strict=True)
        ]
        shortcut = Shortcut.of(moment, reading)
        added = None if shortcut is None else [sums[:, kept] for sums in shortcut.at(where)]
        size = math.prod(reading.kernel.shape[axis] for axis in reading.axes.output_axes)
        scale = unscaled(None if shortcut is None else shortcut.norm, size)[kept]
        return Target(where, outputs, added, scale, math.prod(places[0][1:]))

    def _positions(self, places: list[tuple[int, ...]], count: int) -> list[Where]:
        """Draw positions out of those of all batches, without drawing one twice."""
        sizes = [math.prod(shape) for shape in places]
        ends = np.cumsum(sizes)
        total = int(ends[-1])
        drawn = self._generator.choice(total, min(count, total), replace=False, shuffle=False)
        parts = np.split(np.sort(drawn), np.searchsorted(np.sort(drawn), ends[:-1]))
        starts = [0, *ends[:-1].tolist()]
        return [
            tuple(np.unravel_index(part - start, shape))
            for part, start, shape in zip(parts, starts, places, strict=True)
        ]
