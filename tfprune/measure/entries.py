"""What `compare` compares, under one face: Keras models and `.tflite` files with a name, inputs, outputs and costs."""

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data.inputs import Inputs, Samples, file_inputs, inputs_of
from tfprune.exporting import export
from tfprune.exporting.inputs import call, check_model, input_specs
from tfprune.exporting.operators import count_operators, integer_mode
from tfprune.exporting.signature import output_names
from tfprune.graph import functional
from tfprune.graph.profiling import profile
from tfprune.measure.file_costs import Costs, file_costs
from tfprune.measure.input_ranges import Range, file_ranges, keras_ranges
from tfprune.measure.outputs import Output
from tfprune.quantization import is_quantize_aware
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile


class Entry(ABC):
    """A model to compare.

    Attributes:
        name: What it is called in the table.
        source: The Keras model, or the path of the `.tflite` file.
        inputs: What it takes.
        outputs: What it gives, in the order of `predict`.
        integers: `"int8"` or `"int16x8"` where its file computes in integers, else None.
    """

    name: str
    source: Any
    inputs: Inputs
    outputs: list[Output]
    integers: str | None
    _order: list[int]

    @abstractmethod
    def predict(self, samples: Samples) -> list[np.ndarray]:
        """Return each output, in real numbers, for samples by input name."""

    @abstractmethod
    def file(self, target: Path, samples: Samples) -> TFLiteFile:
        """Return the `.tflite` file to time, which a Keras model writes to `target` and checks on `samples`."""

    @abstractmethod
    def costs(self) -> Costs:
        """Return weights, nonzeros and MACs."""

    @abstractmethod
    def ranges(self) -> dict[str, Range]:
        """Return what is known of the values that the inputs expect, by name."""

    def arrange(self, places: list[int]) -> None:
        """Put the outputs in another order: `places` says where each is now."""
        self._order = [self._order[place] for place in places]
        self.outputs = [self.outputs[place] for place in places]

    def samples(self, x: Any) -> Samples:
        """Return a batch of data by input name, checked against the inputs; names of one array do not matter."""
        if isinstance(x, Mapping) and len(x) == self.inputs.num_inputs == 1:
            x = next(iter(x.values()))
        return self.inputs.samples(self.inputs.cast(self.inputs.arranged(x, "data"), "data"))


class KerasEntry(Entry):
    """A Keras model, timed as the float32 `.tflite` that it exports to, or as int8 if it is quantize-aware."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.source, self._model = name, model, check_model(model)
        self.inputs = dataclasses.replace(inputs_of(self._model), owner=name)
        names = zip(output_names(self._model), functional(self._model).output_names, strict=True)
        self.outputs = [
            Output(name, tuple(tensor.shape[1:]), (alias,))
            for (name, alias), tensor in zip(names, keras.tree.flatten(self._model.outputs), strict=True)
        ]
        self._order = list(range(len(self.outputs)))
        self.integers = "int8" if is_quantize_aware(self._model) else None
        signature = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in input_specs(self._model).values()]
        # Not `predict`, which would compile a function into the user's model. A partial, as TensorFlow counts by the
        # code of a function how often it is traced, and after five models would warn of a loop.
        self._forward = tf.function(functools.partial(self._call), input_signature=signature, autograph=False)

    def predict(self, samples: Samples) -> list[np.ndarray]:
        """Return the outputs for a batch."""
        flat = keras.tree.flatten(self._forward(*(tf.constant(array) for array in samples.values())))
        found = [keras.ops.convert_to_numpy(output) for output in flat]
        return [found[place].astype(np.float32) for place in self._order]

    def file(self, target: Path, samples: Samples) -> TFLiteFile:
        """Export the model to `target`."""
        export(self.source, target, quantize=self.integers, calibration=samples)
        return TFLiteFile.read(target)

    def costs(self) -> Costs:
        """Return the sums of `profile`."""
        sums = profile(self.source)
        return Costs(sums.parameters, sums.nonzeros, sums.macs)

    def ranges(self) -> dict[str, Range]:
        """Look at the first layers."""
        return keras_ranges(self._model, list(input_specs(self._model)))

    def _call(self, *tensors: Any) -> Any:
        return call(self._model, list(tensors))


class FileEntry(Entry):
    """A `.tflite` file, run as it is."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.source, self._loaded = name, path, TFLiteModel(path)
        for details in self._loaded.inputs:
            if details.shape[:1] != (1,):
                raise ValueError(f"{name!r} takes inputs of shape {details.shape}. Export it with a batch of 1.")
        self.inputs = file_inputs(name, self._loaded.inputs)
        self.outputs = [Output(details.name, details.shape[1:]) for details in self._loaded.outputs]
        self._order = list(range(len(self.outputs)))
        self.integers = integer_mode(count_operators(self._loaded.file))

    def predict(self, samples: Samples) -> list[np.ndarray]:
        """Return the outputs for a batch, run one by one."""
        found = list(self._loaded.predict_by_name(samples).values())
        return [found[place] for place in self._order]

    def file(self, target: Path, samples: Samples) -> TFLiteFile:
        """Return the file itself."""
        return self._loaded.file

    def costs(self) -> Costs:
        """Count by the file's schema."""
        return file_costs(self._loaded.file)

    def ranges(self) -> dict[str, Range]:
        """Look at how the inputs are stored."""
        return file_ranges(self._loaded)
