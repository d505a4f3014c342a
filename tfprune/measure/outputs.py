"""Which outputs of models and files are the same, by name, and which labels and weights belong to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.data import Batch
from tfprune.measure.scores import Metric, make_score

Metrics = Metric | Mapping[str, Metric | None]
"""One metric for all outputs, or one for each that is to be measured, by name; None for accuracy."""


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        name: What it is called in a `.tflite` file.
        shape: Its shape for one sample.
        aliases: What else it is called: by Keras, in `fit`.
    """

    name: str
    shape: tuple[int | None, ...]
    aliases: tuple[str, ...] = ()


def places_of(outputs: Sequence[Output], wanted: Sequence[Output]) -> list[int] | None:
    """Return where the outputs of one model are among those of another, by their names.

    Where one of the two has no names of its own (`output_0`, `output_1`, ...), it is the order that tells.

    Args:
        outputs: Those to look among.
        wanted: Those to look for.

    Returns:
        A place for each of `wanted`; None if they are not the same.

    Example:

    >>> wanted = [Output("boxes", (4,)), Output("scores", (3,))]
    >>> places_of([Output("scores", (3,)), Output("boxes", (4,))], wanted)
    [1, 0]
    """
    if len(outputs) != len(wanted):
        return None
    found = [
        next((place for name in _names(one) if (place := place_of(outputs, name)) is not None), -1) for one in wanted
    ]
    by_name = sorted(found) == list(range(len(wanted)))
    numbered = any(all(each.name == f"output_{place}" for place, each in enumerate(one)) for one in (outputs, wanted))
    places = found if by_name else list(range(len(wanted))) if numbered or len(wanted) == 1 else None
    if places is None or not all(
        _same_shape(outputs[p].shape, one.shape) for p, one in zip(places, wanted, strict=True)
    ):
        return None
    return places


def place_of(outputs: Sequence[Output], name: str) -> int | None:
    """Return which output has a name, in a file or in Keras; None if none has."""
    return next((place for place, one in enumerate(outputs) if name in _names(one)), None)


class OutputScores:
    """What one entry is worth, output by output: fed with batches, asked once.

    Args:
        metric: What to measure.
        outputs: The outputs of the first entry, to which labels and metrics belong.

    Raises:
        TypeError: If a metric is nothing that measures.
        ValueError: If a name is not that of an output, or accuracy is asked of one that is not a classifier's.
    """

    def __init__(self, metric: Metrics | None, outputs: Sequence[Output]) -> None:
        self._outputs = outputs
        wanted = {self._place(name): one for name, one in metric.items()} if isinstance(metric, Mapping) else None
        metrics: dict[int, Any] = dict.fromkeys(range(len(outputs)), metric) if wanted is None else wanted
        if not metrics:
            raise ValueError(f"metric= is an empty dict. Name an output: {self._names}.")
        self._scores = {place: make_score(one, outputs[place].shape) for place, one in sorted(metrics.items())}

    @property
    def name(self) -> str:
        """What is measured: the metrics' names, each once."""
        return ", ".join(dict.fromkeys(score.name for score in self._scores.values()))

    def check(self, batch: Batch) -> None:
        """Raise if these labels or weights cannot be measured with."""
        for place, score in self._scores.items():
            score.check(self._part(batch, place))

    def add(self, batch: Batch, answers: Sequence[np.ndarray]) -> None:
        """Take in the labels of a batch, and what the entry answers, an array for each output."""
        for place, score in self._scores.items():
            score.add(self._part(batch, place), answers[place])

    def results(self) -> dict[str, float]:
        """Return the score of all batches for each output that is measured, by name."""
        return {self._outputs[place].name: score.result() for place, score in self._scores.items()}

    @property
    def _names(self) -> list[str]:
        return [one.name for one in self._outputs]

    def _place(self, name: str) -> int:
        place = place_of(self._outputs, name)
        if place is None:
            raise ValueError(
                f"metric= has the name {name!r}, and the outputs are {self._names}. Use one of these names."
            )
        return place

    def _part(self, batch: Batch, place: int) -> Batch:
        """The labels and weights of one output."""
        if len(self._outputs) == 1:
            return batch
        weights = batch.sample_weight
        if isinstance(weights, Mapping | list | tuple):
            weights = self._of(weights, place, "sample weights")
        if isinstance(batch.y, np.ndarray) and len(self._scores) == 1:
            return batch._replace(sample_weight=weights)
        return batch._replace(y=self._of(batch.y, place, "labels"), sample_weight=weights)

    def _of(self, given: Any, place: int, what: str) -> Any:
        output = self._outputs[place]
        received = "one array"
        if isinstance(given, Mapping):
            found = [given[name] for name in _names(output) if name in given]
            received = f"{list(given)}, and nothing for {output.name!r}"
        elif isinstance(given, list | tuple):
            found = [given[place]] if len(given) == len(self._outputs) else []
            received = f"a list of {len(given)}"
        else:
            found = []
        if found and found[0] is not None:
            return found[0]
        raise ValueError(
            f"The models have the outputs {self._names}: give {what} as a dict by these names, or a list in this "
            f"order. Received: {received}. To measure some outputs only, name them: metric={{name: None}} for accuracy."
        )


def _names(output: Output) -> tuple[str, ...]:
    return (output.name, *output.aliases)


def _same_shape(first: tuple[int | None, ...], second: tuple[int | None, ...]) -> bool:
    return len(first) == len(second) and all(a == b or None in (a, b) for a, b in zip(first, second, strict=True))
