"""The data that `compare` measures on, batch by batch."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

Batch: TypeAlias = tuple[Any, np.ndarray]

_BATCH_SIZE = 64


def batches(data: Any, max_samples: int | None) -> Iterator[Batch]:
    """Yield batches `(x, y)` of the data, `y` as an array, at most `max_samples` samples in all.

    Args:
        data: A tuple of arrays `(x, y)`, or an iterable or `keras.utils.PyDataset` of such batches; `x` may be a dict.
        max_samples: How many at most: evenly spread over arrays, the first ones of an iterable. None for all.

    Yields:
        The batches.

    Raises:
        TypeError: If the data has another form.
        ValueError: If it is empty or endless, or `x` and `y` differ in their number of samples.
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be 1 or more, or None for all. Received: {max_samples}.")
    source = _of_arrays(*_pair(data), max_samples) if isinstance(data, tuple) else _of_batches(data, max_samples)
    seen = 0
    for x, y in source:
        left = None if max_samples is None else max_samples - seen
        rows = _rows(x, y)
        if rows:
            yield (x, y) if left is None or rows <= left else (_take(x, slice(left)), y[:left])
        seen += rows
        if max_samples is not None and seen >= max_samples:
            return
    if not seen:
        raise ValueError("The data has no samples. A generator can be read only once: give a fresh one.")


def _of_arrays(x: Any, y: np.ndarray, max_samples: int | None) -> Iterator[Batch]:
    x = {name: np.asarray(array) for name, array in x.items()} if isinstance(x, Mapping) else np.asarray(x)
    count = _rows(x, y)
    if max_samples is not None and max_samples < count:  # evenly, as arrays are often sorted by class
        rows = np.linspace(0, count - 1, max_samples).round().astype(int)
        x, y, count = _take(x, rows), y[rows], max_samples
    for start in range(0, count, _BATCH_SIZE):
        yield _take(x, slice(start, start + _BATCH_SIZE)), y[start : start + _BATCH_SIZE]


def _of_batches(data: Any, max_samples: int | None) -> Iterator[Batch]:
    if isinstance(data, keras.utils.PyDataset):
        endless = data.num_batches is None
        elements: Iterable[Any] = (data[index] for index in (itertools.count() if endless else range(data.num_batches)))
    elif isinstance(data, Iterable) and not isinstance(data, Mapping | str | bytes) and not hasattr(data, "__array__"):
        elements = data
        endless = isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY
    else:
        raise TypeError(
            "data must be a tuple (x, y) of arrays, or a tf.data.Dataset, keras.utils.PyDataset or iterable of batches "
            f"(x, y). Received: {type(data).__name__}. Accuracy needs labels."
        )
    if endless and max_samples is None:
        raise ValueError("The data repeats without end. Say how much to use: max_samples=1000.")
    return (_pair(element) for element in elements)


def _pair(element: Any) -> Batch:
    if not isinstance(element, tuple | list) or len(element) != 2:
        found = f"{len(element)} parts" if isinstance(element, tuple | list) else type(element).__name__
        raise ValueError(f"Expected data as (x, y): inputs and labels, without sample weights. Received: {found}.")
    x, y = element
    y = np.asarray(y)
    if y.ndim == 0:
        raise ValueError("Expected batches (x, y); y is a single number. Batch the dataset: data.batch(32).")
    return x, y


def _rows(x: Any, y: np.ndarray) -> int:
    counts = {len(array) for array in (x.values() if isinstance(x, Mapping) else [x])} | {len(y)}
    if len(counts) > 1:
        raise ValueError(f"Inputs and labels differ in their number of samples: {sorted(counts)}.")
    return counts.pop()


def _take(x: Any, rows: Any) -> Any:
    if isinstance(x, Mapping):
        return {name: np.asarray(array)[rows] for name, array in x.items()}
    return np.asarray(x)[rows]
