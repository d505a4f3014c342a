"""What `compare` compares, under one face: Keras models and `.tflite` files with a name, doors, outputs and costs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.exporting import export
from tfprune.exporting.inputs import Samples, call, check_model, input_specs
from tfprune.graph.profiling import profile
from tfprune.measure.file_costs import Costs, file_costs
from tfprune.quantization import is_quantize_aware
from tfprune.tflite.model import TFLiteModel

Door = tuple[tuple[int, ...], np.dtype]
"""Shape of one sample, and the dtype that goes in."""


class Entry(ABC):
    """A model to compare.

    Attributes:
        name: What it is called in the table.
        source: The Keras model, or the path of the `.tflite` file.
        doors: Its inputs by name.
        outputs: Shapes of its outputs for one sample.
    """

    name: str
    source: Any
    doors: dict[str, Door]
    outputs: list[tuple[int | None, ...]]

    @abstractmethod
    def predict(self, samples: Samples) -> np.ndarray:
        """Return the one output, in real numbers, for samples by input name."""

    @abstractmethod
    def file(self, target: Path, samples: Samples) -> Path:
        """Return the `.tflite` file to time, which a Keras model writes to `target` and checks on `samples`."""

    @abstractmethod
    def costs(self) -> Costs:
        """Return weights, nonzeros and MACs."""

    def samples(self, x: Any) -> Samples:
        """Return a batch of data by input name, checked against the inputs."""
        names = list(self.doors)
        if isinstance(x, Mapping) and len(x) == len(names) == 1:
            x = next(iter(x.values()))
        if isinstance(x, Mapping) and set(x) == set(names):
            arrays = {name: np.asarray(x[name]) for name in names}
        elif len(names) == 1 and not isinstance(x, Mapping | tuple):
            arrays = {names[0]: np.asarray(x)}
        else:
            received = list(x) if isinstance(x, Mapping) else type(x).__name__
            raise ValueError(f"{self.name!r} has the inputs {names}: give x as a dict by name. Received: {received}.")
        return {name: self._fitting(name, array) for name, array in arrays.items()}

    def _fitting(self, name: str, array: np.ndarray) -> np.ndarray:
        shape, dtype = self.doors[name]
        if array.shape[1:] != shape or array.ndim != len(shape) + 1:
            raise ValueError(
                f"{self.name!r} expects batches of shape (samples, {', '.join(map(str, shape))}) for input {name!r}. "
                f"Received: {array.shape}. Compare models of one task, and batch a dataset: data.batch(32)."
            )
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"{self.name!r} expects {dtype} for input {name!r}. Received: {array.dtype}.")
        return array.astype(dtype, copy=False)


class KerasEntry(Entry):
    """A Keras model, timed as the float32 `.tflite` that it exports to, or as int8 if it is quantize-aware."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.source, self._model = name, model, check_model(model)
        specs = input_specs(self._model)
        self.doors = {key: (tuple(spec.shape[1:]), np.dtype(spec.dtype.as_numpy_dtype)) for key, spec in specs.items()}
        self.outputs = [tuple(tensor.shape[1:]) for tensor in keras.tree.flatten(self._model.outputs)]
        signature = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in specs.values()]
        # Not `predict`, which would compile a function into the user's model.
        self._forward = tf.function(self._call, input_signature=signature, autograph=False)

    def predict(self, samples: Samples) -> np.ndarray:
        """Return the output for a batch."""
        (output,) = keras.tree.flatten(self._forward(*(tf.constant(array) for array in samples.values())))
        return keras.ops.convert_to_numpy(output).astype(np.float32)

    def file(self, target: Path, samples: Samples) -> Path:
        """Export the model to `target`."""
        export(self.source, target, quantize="int8" if is_quantize_aware(self._model) else None, calibration=samples)
        return target

    def costs(self) -> Costs:
        """Return the sums of `profile`."""
        sums = profile(self.source)
        return Costs(sums.parameters, sums.nonzeros, sums.macs)

    def _call(self, *tensors: Any) -> Any:
        return call(self._model, list(tensors))


class FileEntry(Entry):
    """A `.tflite` file, run as it is."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.source, self._loaded = name, path, TFLiteModel(path)
        for door in self._loaded.inputs:
            if door.shape[:1] != (1,):
                raise ValueError(f"{name!r} takes inputs of shape {door.shape}. Export it with a batch of 1.")
        # Data are real numbers, also where their dtype happens to be that of a quantized input.
        self.doors = {
            door.name: (door.shape[1:], np.dtype(np.float32) if door.scale else door.dtype)
            for door in self._loaded.inputs
        }
        self.outputs = [door.shape[1:] for door in self._loaded.outputs]

    def predict(self, samples: Samples) -> np.ndarray:
        """Return the output for a batch, run one by one."""
        output = self._loaded.predict(samples)
        assert isinstance(output, np.ndarray)
        return output

    def file(self, target: Path, samples: Samples) -> Path:
        """Return the file itself."""
        return Path(self.source)

    def costs(self) -> Costs:
        """Count by the file's schema."""
        return file_costs(self._loaded.content)
