"""From a budget to the number of operations that a network may have: by counting, by exporting, by timing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import keras

from tfprune.drivers.compression.choosing import Chooser
from tfprune.drivers.data import Data
from tfprune.drivers.display import Display
from tfprune.exporting import ExportOptions, export
from tfprune.exporting.inputs import Samples, input_specs
from tfprune.graph.profiling import profile
from tfprune.measure import benchmark
from tfprune.measure.entries import KerasEntry
from tfprune.quantization import quantize_aware
from tfprune.shrinking.budget import COUNTED, Budget, measure, search
from tfprune.shrinking.one_shot import prune_channels
from tfprune.shrinking.widths import Widths

_RUNS = 100
_MEASUREMENTS = 6
_CLOSE = 0.97  # of the limit: near enough to stop measuring
_NARROWEST = 1 - 1e-9
_ANY_ERROR = 1e9  # the file of a network that is yet to be trained is for weighing only


class Int8Files:
    """Int8 files of networks of various widths: what they weigh, and how long they take.

    Size and time depend on the widths only, not on the weights, so there is one file for all networks of the same.

    Args:
        folder: Where the files are kept.
        data: Data, whose first batch gives the files some ranges.
        io_dtype: dtype of the files' inputs and outputs.
        display: Told of every export.
    """

    def __init__(self, folder: Path, data: Data, io_dtype: str, display: Display) -> None:
        self._folder, self._data, self._io_dtype, self._display = folder, data, io_dtype, display

    def path(self, model: keras.Model) -> Path:
        """Return the file of a model as wide as this one."""
        shapes = str([tuple(weight.shape) for weight in model.weights])
        path = self._folder / f"{hashlib.sha256(shapes.encode()).hexdigest()[:16]}.tflite"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            macs = profile(model).macs
            self._display.say(f"    {macs:,} MACs: exporting an int8 file to measure")
            write_int8(model, path, KerasEntry("model", model).samples(self._data.first(model).x), self._io_dtype)
            self._display.say(f"    {macs:,} MACs make an int8 file of {path.stat().st_size:,} B")
        return path

    def size(self, model: keras.Model) -> float:
        """Return the size of its file in bytes."""
        return float(self.path(model).stat().st_size)

    def latency(self, model: keras.Model, dense: keras.Model) -> float:
        """Return the median latency of its file, as a fraction of that of another model's, measured in turns."""
        paths = self.path(dense), self.path(model)
        self._display.say(f"    {profile(model).macs:,} MACs: timing the file in turns with the dense one")
        ratio = latency_ratio(*paths)
        self._display.say(f"    {profile(model).macs:,} MACs take {ratio:.2f} times as long")
        return ratio


def write_int8(model: keras.Model, path: Path, samples: Samples, io_dtype: str) -> None:
    """Write the int8 file of an untrained model, made in the way in which that of the trained one will be."""
    aware = quantize_aware(model)
    tensors = list(samples.values())
    aware(keras.tree.pack_sequence_as(aware.input, tensors), training=True)  # gives the ranges a start
    renamed = dict(zip(input_specs(aware), tensors, strict=True))
    options = ExportOptions(tolerance=_ANY_ERROR, max_samples=2)
    export(aware, path, quantize="int8", calibration=renamed, io_dtype=io_dtype, overwrite=True, options=options)


def latency_ratio(dense: Path, path: Path) -> float:
    """Return the median latency of a file as a fraction of another's."""
    return benchmark(dense, path, runs=_RUNS).files[1].ratio


def find_macs(model: keras.Model, budget: Budget, files: Int8Files, chooser: Chooser) -> tuple[int, dict[str, float]]:
    """Return how many operations a network may have to meet a budget, and the budget in absolute numbers.

    Args:
        model: The dense model.
        budget: The budget.
        files: To measure what cannot be counted.
        chooser: Chooses the channels of each network that is looked at.

    Returns:
        Multiply-accumulates, those of the dense model if it meets the budget; and the limits, that on latency as a
        fraction of the dense int8 file's.

    Raises:
        ValueError: If the budget cannot be met.
    """
    found: dict[str, float] = {**measure(model)}
    dense_macs = int(found["macs"])
    if (budget.file_bytes or 1) < 1:
        found["file_bytes"] = int(files.size(model))
    limits = budget.absolute(found)
    counted = _counted(limits)
    macs = dense_macs
    if counted and any(found[name] > limit for name, limit in counted.items()):
        macs = profile(chooser.pruned(model, chooser.widths(model, Budget(**counted)))).macs
    if "file_bytes" in limits:
        limit = limits["file_bytes"]
        macs = _search(model, macs, "file_bytes", limit, lambda small: _at_most(files.size(small)), chooser)
    if "latency" in limits:
        limit = limits["latency"]
        macs = _search(model, macs, "latency", limit, lambda small: files.latency(small, model), chooser)
    return macs, limits


def narrow(model: keras.Model, macs: int, limits: dict[str, float], files: Int8Files, chooser: Chooser) -> Widths:
    """Choose widths within a number of operations, and fewer until the file is small enough.

    Which widths depends on the weights and the data, and so does a little what the file weighs.

    Args:
        model: The model.
        macs: Multiply-accumulates.
        limits: The budget; of it the weights and the size of the file are looked at.
        files: To weigh the file.
        chooser: Chooses the channels.

    Returns:
        The widths.

    Raises:
        ValueError: If that cannot be reached.
    """
    counted = _counted(limits)
    if counted == limits and counted:  # all that there is to meet: `macs` only says how many operations that leaves
        return chooser.widths(model, Budget(**counted))
    while True:
        widths = chooser.widths(model, Budget(**{**counted, "macs": macs}))
        small = chooser.pruned(model, widths)
        if "file_bytes" not in limits or _at_most(files.size(small)) <= limits["file_bytes"]:
            return widths
        macs = int(0.99 * profile(small).macs)


def _counted(limits: dict[str, float]) -> dict[str, float]:
    return {name: max(1, limit) for name, limit in limits.items() if name in COUNTED}


def _at_most(num_bytes: float) -> int:
    """What a file may weigh in the end: Keras counts names up, and `range_10` is longer than `range_9`."""
    return int(1.005 * num_bytes) + 64


def _search(
    model: keras.Model,
    macs: int,
    name: str,
    limit: float,
    measured: Callable[[keras.Model], float],
    chooser: Chooser,
) -> int:
    """The most operations, up to `macs`, with which a measurement is within its limit: few of them, as each is slow."""
    dense = profile(model).macs
    narrowest = profile(prune_channels(model, _NARROWEST, granularity=chooser.granularity)).macs
    reached: dict[int, int] = {}
    values: dict[int, float] = {}

    def load_of(more: int) -> float:
        count = narrowest + more
        small = model
        if count < dense:
            small = chooser.pruned(model, chooser.widths(model, Budget(macs=max(1.0, count))))
        reached[more] = count = profile(small).macs
        if count not in values:  # widths are whole numbers: near numbers of operations may be the same network
            values[count] = measured(small)
        return values[count] / limit

    found = search(load_of, macs - narrowest, close=_CLOSE, tries=_MEASUREMENTS)
    if found is None:
        raise ValueError(
            f"A budget of {name}={limit:.6g} cannot be met: with as few channels left as may be it is "
            f"{values[reached[0]]:.6g}. Raise the budget; print(tfprune.channel_groups(model)) shows what is frozen."
        )
    return reached[found]
