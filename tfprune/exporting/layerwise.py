"""Where in a file that rounds the numbers part from those of the model."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfprune.data.inputs import Samples
from tfprune.exporting.ranges import layer_name
from tfprune.tflite.scales import scales_of
from tfprune.tflite.unpacking import TFLiteFile, operator_name

_NUM_SAMPLES = 8


class TensorError(NamedTuple):
    """How far what one operator makes is off.

    Attributes:
        tensor: The name that the converter gave it.
        operator: The operator, as LiteRT names it.
        error: RMS error relative to the standard deviation of the right numbers.
        added: By how much that is more than the largest error of the operator's inputs.
    """

    tensor: str
    operator: str
    error: float
    added: float


def tensor_errors(
    file: TFLiteFile, real: TFLiteFile, samples: Samples, max_samples: int = _NUM_SAMPLES
) -> list[TensorError]:
    """Return how far the numbers in a file are off, by running it and another one operator by operator.

    Args:
        file: A file that rounds.
        real: The float file of the same model, whose tensors have the same names.
        samples: Arrays of shape `(samples, ...)` by input name.
        max_samples: How many of them are used.

    Returns:
        In the order of the operators; empty if the files have no tensors in common.
    """
    expected, found = _tensors(real, samples, max_samples), _tensors(file, samples, max_samples)
    errors = {
        name: float(np.sqrt(np.mean((found[name] - values) ** 2)) / (values.std() or 1.0))
        for name, values in expected.items()
        if name in found and found[name].shape == values.shape
    }
    return [
        TensorError(output, operator, errors[output], errors[output] - max(before, default=0.0))
        for operator, output, before in _steps(real, errors)
    ]


def worst_layer(file: TFLiteFile, real: TFLiteFile, samples: Samples) -> str:
    """Return the layer that adds most to the relative error, in words.

    Args:
        file: A file that computes in integers.
        real: The float file of the same model.
        samples: Arrays of shape `(samples, ...)` by input name.

    Returns:
        A sentence; empty if the files have no tensors in common.
    """
    found = tensor_errors(file, real, samples)
    if not found:
        return ""
    worst = max(found, key=lambda each: each.added)
    return (
        f"The relative error grows most in {layer_name(worst.tensor)!r}: from {worst.error - worst.added:.3g} before "
        f"it to {worst.error:.3g}."
    )


def _steps(file: TFLiteFile, errors: dict[str, float]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield each operator with its output and the errors of its inputs, where they are known."""
    (graph, *_) = file.model.subgraphs
    for operator in graph.operators or []:
        names = [
            [_name(graph.tensors[index]) for index in part if index >= 0]
            for part in (operator.inputs, operator.outputs)
        ]
        for output in names[1]:
            if output in errors:
                yield operator_name(file.model, operator), output, [errors[name] for name in names[0] if name in errors]


def _tensors(file: TFLiteFile, samples: Samples, max_samples: int) -> dict[str, np.ndarray]:
    """The real numbers of all activations, by the names of the tensors."""
    (graph, *_) = file.model.subgraphs
    # Kernels that take over several operators would leave nothing between them.
    interpreter = Interpreter(
        model_content=file.content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    made = {int(index) for operator in graph.operators or [] for index in operator.outputs}
    rows: dict[str, list[np.ndarray]] = {}
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    for row in range(min(max_samples, len(next(iter(samples.values()))))):
        runner(**{name: _stored(details[name], samples[name][row : row + 1]) for name in details})
        for index in made:
            values = interpreter.get_tensor(index)
            rows.setdefault(_name(graph.tensors[index]), []).append(_real(graph.tensors[index], values))
    return {name: np.stack(each) for name, each in rows.items()}


def _stored(details: dict[str, Any], values: np.ndarray) -> np.ndarray:
    scale, zero = details["quantization"]
    if not scale:
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _real(tensor: Any, values: np.ndarray) -> np.ndarray:
    scales = scales_of(tensor)
    if scales is None:
        return values.astype(np.float64)
    return (values.astype(np.float64) - float(tensor.quantization.zeroPoint[0])) * float(scales[0])


def _name(tensor: Any) -> str:
    return str(tensor.name.decode(errors="replace"))
