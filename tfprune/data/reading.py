"""Batches of whatever `keras.Model.fit` takes, checked and packed for one model."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfprune.common.checks import check_count
from tfprune.data.forms import as_arrays, is_array, unpack
from tfprune.data.inputs import Inputs, check_finite


class Batch(NamedTuple):
    """Some samples, as NumPy arrays.

    Attributes:
        x: The inputs, in the structure that the model is called with.
        y: The labels: an array, or a structure of arrays where they are several; None if there are none.
        sample_weight: The weights of the samples, in the same way.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(keras.tree.flatten(self.x)[0])

    def rows(self, which: Any) -> "Batch":
        """Return some of the samples: a slice of them, or those at an array of places."""
        return Batch(*(_mapped(lambda array: array[which], part) for part in self))


class Reader:
    """Data in any form that `fit` takes, read in batches, for one model.

    All of the data is arrays: `x`, or a tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)`. `x` is an array, or for a
    model of several inputs a list of arrays in their order or a dict by their names. Or the data is a
    `tf.data.Dataset`, a `keras.utils.PyDataset`, or a generator, list or other iterable of batches of these forms. A
    list of as many arrays as the model has inputs is `x`, and any other list one of batches. `forms.unpack` says what a
    tuple of arrays is. No more than one batch is held in memory.

    What can be known is checked when the reader is made: all of arrays, and the form and length of anything else, whose
    batches are checked as they come. Batches of a `PyDataset` are loaded one by one, whatever its `workers`.

    Args:
        data: The data.
        inputs: What the model takes.
        argument: What the data is called, for messages.
        needs_labels: Whether data without labels is refused.
        batch_size: Samples per batch, for arrays.
        max_samples: Read at most this many: evenly spread over arrays, which are often sorted by class; the first ones
            of anything else. None for all.

    Attributes:
        arrays: All samples, where the data is arrays, else None. Shapes are checked, dtypes are those that were given.
        num_batches: How many batches come, None if that is not known before they are read.

    Raises:
        TypeError: If the data has another form.
        ValueError: If it is empty or endless, does not fit the model, or is not finite; while reading, too.

    Example:

    >>> from tfprune.data import inputs_of
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> reader = Reader((np.zeros((5, 2)), np.zeros(5)), inputs_of(model), batch_size=4)
    >>> [(batch.x.shape, batch.y.shape) for batch in reader]
    [((4, 2), (4,)), ((1, 2), (1,))]
    """

    def __init__(
        self,
        data: Any,
        inputs: Inputs,
        *,
        argument: str = "data",
        needs_labels: bool = False,
        batch_size: int = 64,
        max_samples: int | None = None,
    ) -> None:
        check_count("batch_size", batch_size)
        if max_samples is not None:
            check_count("max_samples", max_samples)
        self.inputs, self.argument = inputs, argument
        self._needs_labels, self._batch_size, self._max_samples = needs_labels, batch_size, max_samples
        self._is_spent = False
        self.arrays: Batch | None = None
        self.num_batches: int | None = None
        if self._is_stream(data):
            self._stream = data
            self._set_length()
        else:
            self._set_arrays(data)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; again each time, unless they come from a generator, which can be read only once."""
        if self.arrays is None:
            yield from self._from_stream()
            return
        for start in range(0, self.arrays.num_samples, self._batch_size):
            yield self._finished(self.arrays.rows(slice(start, start + self._batch_size)))

    def _is_stream(self, data: Any) -> bool:
        if isinstance(data, str | bytes | os.PathLike):
            raise TypeError(
                f"{self.argument} is the path {str(data)!r}, and must be arrays or a dataset. Load it: np.load(path)."
            )
        if isinstance(data, tuple | Mapping) or is_array(data):
            return False
        if isinstance(data, list) and len(data) == self.inputs.num_inputs and all(map(is_array, data)):
            return False
        if isinstance(data, Iterable | keras.utils.PyDataset):
            return True
        raise TypeError(
            f"{self.argument} must be arrays x, (x, y) or (x, y, sample_weight), a tf.data.Dataset, a "
            f"keras.utils.PyDataset, or a generator or list of batches. Received: {type(data).__name__}."
        )

    def _set_length(self) -> None:
        length = None
        if isinstance(self._stream, tf.data.Dataset):
            length = int(self._stream.cardinality())
        elif isinstance(self._stream, keras.utils.PyDataset):
            length = tf.data.INFINITE_CARDINALITY if self._stream.num_batches is None else self._stream.num_batches
        elif isinstance(self._stream, list):
            length = len(self._stream)
        if length == tf.data.INFINITE_CARDINALITY and self._max_samples is None:
            raise ValueError(
                f"{self.argument} repeats without end. Say how much to use: dataset.take(number_of_batches), or "
                "max_samples=1000 where it is an argument."
            )
        self.num_batches = length if length is not None and length >= 0 and self._max_samples is None else None

    def _set_arrays(self, data: Any) -> None:
        self.arrays = self._arranged(data, TypeError)
        num_samples = self.arrays.num_samples
        if not num_samples:
            raise ValueError(self._no_samples())
        if self._max_samples is not None and self._max_samples < num_samples:
            self.arrays = self.arrays.rows(evenly(num_samples, self._max_samples))
        self.num_batches = math.ceil(self.arrays.num_samples / self._batch_size)
        for _ in self:  # checks all values
            pass

    def _from_stream(self) -> Iterator[Batch]:
        if self._is_spent:
            raise ValueError(f"{self.argument} is a generator, which can be read only once. Give arrays or a dataset.")
        self._is_spent = isinstance(self._stream, Iterator)
        seen = 0
        for element in _elements(self._stream):
            batch = self._finished(self._arranged(element, ValueError))
            if self._max_samples is not None:
                batch = batch.rows(slice(self._max_samples - seen))
            if batch.num_samples:
                yield batch
            seen += batch.num_samples
            if seen == self._max_samples:
                return
        if not seen:
            raise ValueError(self._no_samples())

    def _arranged(self, value: Any, error: type[Exception]) -> Batch:
        num_inputs = None if self._needs_labels else self.inputs.num_inputs  # with labels, a tuple is never x alone
        x, y, sample_weight = unpack(value, num_inputs, self.argument)
        if y is None and self._needs_labels:
            kind = "inputs only" if isinstance(value, list | tuple) else type(value).__name__
            raise error(
                f"Expected {self.argument} as (x, y) or (x, y, sample_weight), or batches of these. Received: {kind}. "
                "What is measured here needs labels."
            )
        batch = Batch(
            self.inputs.arranged(x, self.argument),
            _unwrapped(as_arrays(y, self.argument)),
            _unwrapped(as_arrays(sample_weight, self.argument)),
        )
        self._check_counts(batch)
        return batch

    def _check_counts(self, batch: Batch) -> None:
        flat = [keras.tree.flatten(part) for part in batch]
        names = self.inputs.names if len(self.inputs.names) > 1 else ["x"] * len(flat[0])
        named = [
            *zip(names, flat[0], strict=True),
            *(("y", y) for y in flat[1]),
            *(("sample_weight", w) for w in flat[2]),
        ]
        arrays = [(name, array) for name, array in named if array is not None]
        for name, array in arrays:
            if not array.ndim:
                raise ValueError(
                    f"Expected {self.argument} as arrays with an axis for the samples; {name} is a single number. "
                    "Batch the dataset: data.batch(32)."
                )
        if len({len(array) for _, array in arrays}) > 1:
            counts = {name: len(array) for name, array in arrays}
            raise ValueError(f"The parts of {self.argument} differ in their number of samples: {counts}.")

    def _finished(self, batch: Batch) -> Batch:
        for weights in keras.tree.flatten(batch.sample_weight):
            if weights is not None:
                check_finite(weights, self.argument, "sample_weight")
        return batch._replace(x=self.inputs.cast(batch.x, self.argument))

    def _no_samples(self) -> str:
        return f"{self.argument} has no samples. A generator can be read only once: give a fresh one."


def evenly(num_samples: int, max_samples: int) -> np.ndarray:
    """Return at most `max_samples` places out of `num_samples`, evenly spaced from the first to the last.

    Example:

    >>> evenly(9, 3).tolist(), evenly(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, num_samples - 1, min(num_samples, max_samples)).round().astype(int)


def _elements(stream: Any) -> Iterator[Any]:
    if not isinstance(stream, keras.utils.PyDataset):
        yield from stream
        return
    stream.on_epoch_begin()  # as fit does: it may choose the order
    try:
        for index in itertools.count() if stream.num_batches is None else range(stream.num_batches):
            yield stream[index]
    finally:
        stream.on_epoch_end()


def _unwrapped(structure: Any) -> Any:
    """Return the one array of a structure of one, as models with one output take it in a list or a dict too."""
    flat = keras.tree.flatten(structure)
    return flat[0] if len(flat) == 1 else structure


def _mapped(function: Any, structure: Any) -> Any:
    return None if structure is None else keras.tree.map_structure(function, structure)
