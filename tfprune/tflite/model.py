"""Running a `.tflite` file as a device would: one sample at a time, real numbers in, real numbers out."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tfprune.common.native_logs import hidden_native_logs
from tfprune.tflite.child_process import reason_of, run_program
from tfprune.tflite.scales import RATIO_LIMIT, is_doubtful, kernel_scales
from tfprune.tflite.unpacking import TFLiteFile

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            "No interpreter for .tflite files is installed. Install one: `pip install ai-edge-litert`."
        ) from error

_PROBE = Path(__file__).with_name("probe.py")

Inputs: TypeAlias = np.ndarray | Mapping[str, np.ndarray] | Sequence[np.ndarray]


@dataclass(frozen=True)
class TensorDetails:
    """One signature input or output of the file: `real = scale * (stored - zero_point)`, or `scale` 0 if plain.

    Attributes:
        name: The name in the signature.
        shape: The shape with the batch.
        dtype: What is stored.
        scale: The step between stored numbers; 0 if they are real numbers.
        zero_point: The stored number that means 0.
        index: The tensor's number in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float
    zero_point: int
    index: int

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Return real `values` as they are stored; values of the stored dtype pass unchanged."""
        if values.dtype == self.dtype:
            return values
        if not self.scale:
            if not np.can_cast(values.dtype, self.dtype, "same_kind"):
                raise ValueError(f"Input {self.name!r} is {self.dtype}. Received: {values.dtype}. Convert it first.")
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        # Ties go to even, as in the runtime's own QUANTIZE operator: a file with float32 inputs then agrees to the bit.
        steps = np.rint(values.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        """Return what `stored` stands for, as float32; integers without a scale stay as they are."""
        if not self.scale:
            return stored
        return (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)


class TFLiteModel:
    """A loaded `.tflite` file.

    Inputs and outputs are named and ordered by the file's signature. A signature keeps no order of its own,
    so inputs are in alphabetical order: name the inputs of a model that has several. Outputs called
    `output_0`, `output_1`, ... are in that order, others in that of the file's graph: both are the order of the
    Keras model, if `tfprune.export` wrote the file.

    Args:
        source: Path of the file, its bytes, or what has been read of it.
        num_threads: Threads the interpreter may use.

    Raises:
        FileNotFoundError: If there is no file at `source`.
        ValueError: If it is not a whole `.tflite` file, or `num_threads` is below 1.
        RuntimeError: If the file is sound, but this runtime cannot run it.

    Example:

    >>> TFLiteModel(b"something else")
    Traceback (most recent call last):
    ...
    ValueError: Expected a .tflite file, whose bytes 4 to 8 are b'TFL3'. Received: 14 bytes with b'thin' there.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes | TFLiteFile, num_threads: int = 1) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be 1 or more. Received: {num_threads}.")
        self.file = _opened(source)
        content, where = self.file.content, "" if self.file.path is None else f" {str(self.file.path)!r}"
        if content[4:8] != b"TFL3":
            raise ValueError(
                f"Expected a .tflite file, whose bytes 4 to 8 are b'TFL3'. "
                f"Received:{where} {len(content)} bytes with {content[4:8]!r} there."
            )
        try:
            _ = self.file.model  # the interpreter trusts what it reads, and dies or hangs of some of it
            with hidden_native_logs():
                self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
        except ValueError as error:
            raise ValueError(
                f"The .tflite file{where} of {len(content)} bytes is cut short or damaged: {error}. "
                "Copy or export it again."
            ) from error
        try:
            if is_doubtful(self.file.model):
                _try_apart(self.file)
            with hidden_native_logs():
                self._interpreter.allocate_tensors()
        except RuntimeError as error:
            raise RuntimeError(
                f"This runtime cannot run the .tflite file{where}: {error}. Change the layer whose operator it names, "
                "or convert the model anew with tfprune.export, which tries the file before it is written."
            ) from error
        self._inputs, self._outputs = _signature_details(self._interpreter)

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return self.file.content

    @property
    def inputs(self) -> list[TensorDetails]:
        """The file's inputs: name, shape, dtype, scale and zero point of each."""
        return list(self._inputs)

    @property
    def outputs(self) -> list[TensorDetails]:
        """The file's outputs, in the order in which `predict` returns them."""
        return list(self._outputs)

    def predict(self, x: Inputs) -> np.ndarray | list[np.ndarray]:
        """Return the outputs for any number of samples, which are run one by one.

        Args:
            x: Array of shape `(samples, ...)`; for several inputs a dict by name, or a list in the order of
                `inputs`. Real numbers are quantised with the input's scale; an array that already has the
                dtype of an integer input is taken as it is.

        Returns:
            A float32 array of shape `(samples, ...)`, dequantised, or a list of them if the file has several
            outputs. Integer outputs without a scale, such as an argmax, stay integers.

        Raises:
            ValueError: If `x` does not fit the file's inputs, or the file has a fixed batch other than 1.
        """
        outputs = list(self.predict_by_name(x).values())
        return outputs[0] if len(outputs) == 1 else outputs

    def predict_by_name(self, x: Inputs) -> dict[str, np.ndarray]:
        """Return the outputs by their names, such as the keys of a Keras model that returns a dict.

        Args:
            x: The inputs, as in `predict`.

        Returns:
            An array as in `predict` for each output.

        Raises:
            ValueError: As in `predict`.
        """
        stored = [details.quantize(array) for details, array in zip(self._inputs, self._arrays(x), strict=True)]
        num_samples = len(stored[0])
        results = [np.empty((num_samples, *details.shape[1:]), details.dtype) for details in self._outputs]
        for row in range(num_samples):
            self._set([array[row : row + 1] for array in stored])
            self.invoke()
            for details, result in zip(self._outputs, results, strict=True):
                result[row] = self._interpreter.get_tensor(details.index)[0]
        return {
            details.name: details.dequantize(result) for details, result in zip(self._outputs, results, strict=True)
        }

    def set_inputs(self, x: Inputs) -> None:
        """Set the inputs for `invoke`: one sample, `x` as in `predict`."""
        arrays = self._arrays(x)
        if len(arrays[0]) != 1:
            raise ValueError(f"Expected one sample. Received: {len(arrays[0])}. Use predict() for several.")
        self._set([details.quantize(array) for details, array in zip(self._inputs, arrays, strict=True)])

    def invoke(self) -> None:
        """Run the file once on the inputs that were set last: the part that a benchmark times."""
        self._interpreter.invoke()

    def _set(self, stored: Sequence[np.ndarray]) -> None:
        for details, array in zip(self._inputs, stored, strict=True):
            self._interpreter.set_tensor(details.index, array)

    def _arrays(self, x: Inputs) -> list[np.ndarray]:
        arrays = [np.asarray(array) for array in self._in_order(x)]
        for details, array in zip(self._inputs, arrays, strict=True):
            if details.shape[:1] != (1,):
                raise ValueError(
                    f"Input {details.name!r} has the fixed shape {details.shape}; predict() runs one sample at a time. "
                    "Export the model with a batch of 1."
                )
            if array.ndim != len(details.shape) or array.shape[1:] != details.shape[1:]:
                raise ValueError(
                    f"Expected input {details.name!r} of shape (samples, {', '.join(map(str, details.shape[1:]))}). "
                    f"Received: {array.shape}."
                )
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(f"Inputs differ in their number of samples: {[len(array) for array in arrays]}.")
        return arrays

    def _in_order(self, x: Inputs) -> list[Any]:
        names = [details.name for details in self._inputs]
        if isinstance(x, Mapping):
            if set(x) != set(names):
                raise ValueError(f"Expected a dict with the inputs {names}. Received: {list(x)}.")
            return [x[name] for name in names]
        if len(names) == 1:
            return [x]
        if not isinstance(x, list | tuple) or len(x) != len(names):
            raise ValueError(f"The file has the inputs {names}. Pass a dict by name, or a list in this order.")
        return list(x)


def _try_apart(file: TFLiteFile) -> None:
    """Run a file once in a process of its own, which it may abort, and raise if it does."""
    done = run_program(_PROBE, Interpreter.__module__, content=file.content)
    if not done.returncode:
        return
    wrong = [scales for scales in kernel_scales(file.model) if not scales.ratios.max() < RATIO_LIMIT]
    where = "".join(
        f"; {each.operator} {each.output!r} multiplies by {each.ratios.max():.3g}, and must by less than {RATIO_LIMIT}"
        for each in wrong[:1]
    )
    raise RuntimeError(f"a process that tried it ended with {reason_of(done)!r}{where}")


def _opened(source: str | os.PathLike[str] | bytes | TFLiteFile) -> TFLiteFile:
    if isinstance(source, TFLiteFile):
        return source
    return TFLiteFile(source) if isinstance(source, bytes) else TFLiteFile.read(source)


def _signature_details(interpreter: Interpreter) -> tuple[list[TensorDetails], list[TensorDetails]]:
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:  # none, or several of which none is *the* model: the main graph's own lists
        inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
        return _details(inputs), _details(outputs)
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    outputs = runner.get_output_details()
    graph_order = [detail["index"] for detail in interpreter.get_output_details()]
    if all(re.fullmatch(r"output_\d+", name) for name in outputs):  # output_10 comes after output_2
        order = sorted(outputs, key=lambda name: int(name.removeprefix("output_")))
    else:
        order = sorted(outputs, key=lambda name: graph_order.index(outputs[name]["index"]))
    return _details(runner.get_input_details()), _details({name: outputs[name] for name in order})


def _details(tensors: Mapping[str, Mapping[str, Any]]) -> list[TensorDetails]:
    return [
        TensorDetails(
            name=name,
            shape=tuple(int(size) for size in detail["shape"]),
            dtype=np.dtype(detail["dtype"]),
            scale=float(detail["quantization"][0]),
            zero_point=int(detail["quantization"][1]),
            index=int(detail["index"]),
        )
        for name, detail in tensors.items()
    ]
